//! What is particular to Linux, with stand-ins for other systems. Everything else in this crate is
//! the same on all of them.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{Mode, OFlags, RawMode};
use rustix::io::{Errno, Result};

/// Opens a directory to reach what is in it. On Linux nobody needs to be allowed to list it.
#[cfg(target_os = "linux")]
pub const REACH: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);
/// Opens a directory to reach what is in it, for which this user must be allowed to list it.
#[cfg(not(target_os = "linux"))]
pub const REACH: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// Permission bits, in the width that this system gives them.
pub fn mode(bits: u32) -> Mode {
    // The bits are the lowest twelve everywhere.
    Mode::from_raw_mode((bits & 0o7777) as RawMode)
}

/// A new file of the directory `dir` that has no name.
///
/// # Errors
/// [`Errno::OPNOTSUPP`] where there are no such files.
#[cfg(target_os = "linux")]
pub fn unnamed(dir: impl AsFd, mode: Mode) -> Result<OwnedFd> {
    let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::TMPFILE;
    rustix::fs::openat(dir, ".", flags, mode)
}
/// Stands for files without a name, which this system does not have.
///
/// # Errors
/// Always [`Errno::OPNOTSUPP`].
#[cfg(not(target_os = "linux"))]
pub fn unnamed(_: impl AsFd, _: Mode) -> Result<OwnedFd> {
    Err(Errno::OPNOTSUPP)
}

/// `file` opened once more to be written past the page cache (O_DIRECT), if its file system
/// allows that.
#[cfg(target_os = "linux")]
pub fn past_the_page_cache(file: &File) -> Option<File> {
    use std::os::fd::AsRawFd as _;
    use std::os::unix::fs::OpenOptionsExt as _;

    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    File::options().write(true).custom_flags(OFlags::DIRECT.bits() as i32).open(path).ok()
}
/// Stands for writing past the page cache; always `None` on this system.
#[cfg(not(target_os = "linux"))]
pub fn past_the_page_cache(_: &File) -> Option<File> {
    None
}

/// Has `to`, which is empty, share all blocks of `from` (FICLONE). Says whether its file system
/// does that.
#[cfg(target_os = "linux")]
pub fn share_blocks(from: impl AsFd, to: impl AsFd) -> bool {
    rustix::fs::ioctl_ficlone(to, from).is_ok()
}
/// Stands for sharing blocks between files; always `false` on this system.
#[cfg(not(target_os = "linux"))]
pub fn share_blocks(_: impl AsFd, _: impl AsFd) -> bool {
    false
}

/// Whether the system gives random bytes, which hash tables need.
#[cfg(target_os = "linux")]
pub fn has_random_bytes() -> bool {
    use rustix::rand::GetRandomFlags;

    let random = rustix::io::retry_on_intr(|| {
        rustix::rand::getrandom(&mut [0; 16][..], GetRandomFlags::NONBLOCK)
    });
    match random {
        Ok(_) | Err(Errno::AGAIN) => true,
        // Where a sandbox or an old kernel has no such call, the device does.
        Err(Errno::NOSYS | Errno::PERM) => File::open("/dev/urandom").is_ok(),
        Err(_) => false,
    }
}
/// Whether the system gives random bytes, which hash tables need.
#[cfg(not(target_os = "linux"))]
pub fn has_random_bytes() -> bool {
    File::open("/dev/urandom").is_ok()
}

/// Fills `bytes` with random ones: so few (256 at most) come at once or not at all.
///
/// # Errors
/// When the system gives none.
#[cfg(target_os = "linux")]
pub fn random(bytes: &mut [u8]) -> Result<()> {
    use rustix::rand::{GetRandomFlags, getrandom};

    rustix::io::retry_on_intr(|| getrandom(&mut *bytes, GetRandomFlags::empty())).map(drop)
}
/// Fills `bytes` with random ones.
///
/// # Errors
/// When the system gives none.
#[cfg(not(target_os = "linux"))]
pub fn random(bytes: &mut [u8]) -> std::io::Result<()> {
    std::io::Read::read_exact(&mut File::open("/dev/urandom")?, bytes)
}

/// Major and minor number of the device `number`, which has another width on each system.
pub fn device_numbers(number: u64) -> (u32, u32) {
    let number = number as rustix::fs::Dev;
    (rustix::fs::major(number), rustix::fs::minor(number))
}
