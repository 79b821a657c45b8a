//! What Linux has and other systems lack, or have otherwise. Everything else in this crate
//! is the same on all of them; an engine is found on Linux alone.

use std::fs::File;
use std::io;
use std::os::fd::RawFd;
use std::path::PathBuf;

use rustix::io::FdFlags;
use rustix::process::{Pid, Signal};

/// A path of the open file `fd` in this process.
pub(crate) fn fd_path(fd: RawFd) -> String {
    let dir = if cfg!(target_os = "linux") { "/proc/self/fd" } else { "/dev/fd" };
    format!("{dir}/{fd}")
}

/// This program, even if its file was replaced since it started.
#[cfg(target_os = "linux")]
pub(crate) fn this_program() -> io::Result<PathBuf> {
    Ok("/proc/self/exe".into())
}
/// The file that this program was started from.
#[cfg(not(target_os = "linux"))]
pub(crate) fn this_program() -> io::Result<PathBuf> {
    std::env::current_exe()
}

/// A new file in memory, which is gone with its last descriptor.
#[cfg(target_os = "linux")]
pub(crate) fn memory_file(name: &str) -> io::Result<File> {
    Ok(rustix::fs::memfd_create(name, rustix::fs::MemfdFlags::CLOEXEC)?.into())
}
/// A new file without a name, which is gone with its last descriptor.
#[cfg(not(target_os = "linux"))]
pub(crate) fn memory_file(_: &str) -> io::Result<File> {
    tempfile::tempfile()
}

/// The same, open in the programs that this one starts or becomes.
pub(crate) fn inherited_memory_file(name: &str) -> io::Result<File> {
    let file = memory_file(name)?;
    rustix::io::fcntl_setfd(&file, FdFlags::empty())?;
    Ok(file)
}

/// Has this process end when its parent does.
#[cfg(target_os = "linux")]
pub(crate) fn end_with_parent() -> io::Result<()> {
    Ok(rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?)
}
/// Does nothing: on this system, a process is not told that its parent has ended.
#[cfg(not(target_os = "linux"))]
pub(crate) fn end_with_parent() -> io::Result<()> {
    Ok(())
}

/// A child of this process, and never another process that got its number later (a pidfd).
#[cfg(target_os = "linux")]
pub(crate) struct ChildProcess(std::os::fd::OwnedFd);
/// A child of this process, by its number.
#[cfg(not(target_os = "linux"))]
pub(crate) struct ChildProcess(Pid);

#[cfg(target_os = "linux")]
impl ChildProcess {
    pub(crate) fn new(pid: Pid) -> io::Result<Self> {
        Ok(Self(rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty())?))
    }

    /// Kills it, unless it is gone already.
    pub(crate) fn kill(&self) {
        let _ = rustix::process::pidfd_send_signal(&self.0, Signal::KILL);
    }
}
#[cfg(not(target_os = "linux"))]
impl ChildProcess {
    pub(crate) fn new(pid: Pid) -> io::Result<Self> {
        Ok(Self(pid))
    }

    /// Kills it, unless it is gone already.
    pub(crate) fn kill(&self) {
        let _ = rustix::process::kill_process(self.0, Signal::KILL);
    }
}
