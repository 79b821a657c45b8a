//! What an engine is told of a machine: plain data, descriptors by number.

use std::os::fd::RawFd;
use std::path::PathBuf;

use bundle::boot::Publish;
use serde::{Deserialize, Serialize};

use super::engine::Engine;

/// What comes before its number in the engine process's arguments.
pub const ARGUMENT: &str = "--machine-from-descriptor";

/// What the engine process needs to know.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Spec {
    pub engine: Engine,
    /// Process ID of the supervisor, with which the machine ends.
    pub supervisor: u32,
    pub cpus: u8,
    pub memory_mib: u32,
    pub disks: Vec<Disk>,
    pub ports: Vec<Port>,
    /// A pipe that takes what the guest's kernel prints.
    pub console: RawFd,
    /// Words of the kernel's command line.
    pub cmdline: Vec<String>,
    pub shares: Vec<Share>,
    pub net: bool,
    pub publish: Vec<Publish>,
    pub krunfw: PathBuf,
}

/// A disk of the machine, an open descriptor.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Disk {
    pub serial: String,
    pub fd: RawFd,
    pub format: Format,
    pub read_only: bool,
    /// Whether its content need not survive a crash of the host: flushes are ignored.
    pub throwaway: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Format {
    Raw,
    Vmdk,
}

/// A named port of the guest, a socket here.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Port {
    pub name: String,
    pub fd: RawFd,
}

/// A directory of the host.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Share {
    pub tag: String,
    pub path: PathBuf,
    pub read_only: bool,
}
