//! What can run a guest, and what it can give it.

use std::fmt;

use anyhow::{Context as _, Result, ensure};
use bundle::boot::{MAX_CPUS, Memory};
use serde::{Deserialize, Serialize};

/// Names the engine to use where `--engine` does not.
pub const VARIABLE: &str = "ROOTFS_BOOT_ENGINE";

/// What runs a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Engine {
    /// In this program, on the processor's own virtualisation.
    Libkrun,
    /// `qemu-system-…`, in software.
    Qemu,
}

impl fmt::Display for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Libkrun => "libkrun",
            Self::Qemu => "qemu",
        })
    }
}

impl Engine {
    /// Refuses more than it could give a machine.
    ///
    /// # Errors
    /// When there are more than [`MAX_CPUS`] processors, or this host does not give so
    /// much memory.
    pub fn can_have(self, cpus: u8, memory: Memory) -> Result<()> {
        ensure!(
            cpus <= MAX_CPUS,
            "a machine of {self} has {MAX_CPUS} processors at most, and not {cpus} (--cpus)"
        );
        let mib = memory.mib();
        // Asked as the engine will ask: libkrun reserves nothing, so that any address
        // will do; qemu's is counted by the kernel.
        let mut map = memmap2::MmapOptions::new();
        if self == Self::Libkrun {
            map.no_reserve_swap();
        }
        let bytes = usize::try_from(u64::from(mib) << 20).unwrap_or(usize::MAX);
        let tried = map.len(bytes).map_anon().map(drop);
        tried.with_context(|| format!("this host does not give a machine {mib} MiB (--memory)"))
    }
}

/// The engine to use.
#[derive(Debug)]
pub struct Choice {
    /// The engine that runs the guest.
    pub engine: Engine,
    /// Whether qemu may take its place: it was not asked for by name, and qemu can do what
    /// the options want.
    pub may_fall_back: bool,
}
