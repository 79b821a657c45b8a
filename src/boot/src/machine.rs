//! The process that becomes the machine.

use std::fs::File;
use std::io::Read as _;
use std::os::fd::RawFd;

use anyhow::{Context as _, Result, ensure};

use super::engine::Engine;
#[cfg(feature = "libkrun")]
use super::krun;
use super::qemu;
use super::spec::Spec;
use crate::system::{end_with_parent, fd_path};

/// Becomes the machine that descriptor `number` describes. Returns only to say
/// why it could not.
///
/// # Errors
/// When the descriptor does not describe a machine, its supervisor is gone, or the engine
/// does not start.
pub fn enter(number: &str) -> Result<std::convert::Infallible> {
    let fd: RawFd = number.parse().context("the number of a descriptor")?;
    ensure!(fd > 2, "descriptor {fd} is not that of a machine");
    let mut text = String::new();
    let mut file = File::open(fd_path(fd)).context("reading the machine")?;
    file.read_to_string(&mut text).context("reading the machine")?;
    let spec: Spec = serde_json::from_str(&text)?;
    // The machine ends with its supervisor, however that ends.
    end_with_parent()?;
    let parent = rustix::process::getppid().map(|pid| pid.as_raw_pid() as u32);
    ensure!(parent == Some(spec.supervisor), "the supervisor is gone");
    fsimage::io::process::raise_open_files();
    match spec.engine {
        Engine::Qemu => qemu::exec(&spec),
        #[cfg(feature = "libkrun")]
        Engine::Libkrun => krun::enter(&spec),
        #[cfg(not(feature = "libkrun"))]
        Engine::Libkrun => anyhow::bail!("this program was built without libkrun"),
    }
}
