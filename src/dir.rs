//! Directories: what is in them, and those that are in them.
//!
//! `std::fs::read_dir` panics when the kernel fails to close a directory, which a
//! network's file system may; rustix's reader does not.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use rustix::fs::{Dir, Mode, OFlags};
use rustix::io::Errno;

/// The names in the directory `path`, in the order of their bytes.
pub fn names(path: &Path) -> io::Result<Vec<OsString>> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let dir = rustix::io::retry_on_intr(|| rustix::fs::open(path, flags, Mode::empty()))?;
    sorted(Dir::new(dir)?)
}

/// The names in the directory that `dir` is, in the order of their bytes.
pub fn names_in(dir: &File) -> io::Result<Vec<OsString>> {
    sorted(Dir::read_from(dir)?)
}

/// Opens the directory `name` of `dir`, and not what a link leads to.
pub fn open_dir(dir: impl AsFd, name: impl AsRef<OsStr>) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(dir, name.as_ref(), flags, Mode::empty())?.into())
}

/// Opens the directory `name` of `dir`, as [`open_dir`] does; it is made if need be.
pub fn make_dir(dir: &File, name: &str, mode: u32) -> io::Result<File> {
    match rustix::fs::mkdirat(dir, name, Mode::from_raw_mode(mode)) {
        Ok(()) | Err(Errno::EXIST) => open_dir(dir, name),
        Err(error) => Err(error.into()),
    }
}

fn sorted(dir: Dir) -> io::Result<Vec<OsString>> {
    let mut names = Vec::new();
    for entry in dir {
        let entry = entry?;
        let name = OsStr::from_bytes(entry.file_name().to_bytes());
        if name != "." && name != ".." {
            names.push(name.to_owned());
        }
    }
    names.sort();
    Ok(names)
}
