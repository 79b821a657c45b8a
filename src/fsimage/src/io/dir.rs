//! Directories: what is in them, and those that are in them.
//!
//! `std::fs::read_dir` panics when the kernel fails to close a directory, which a
//! network's file system may; rustix's reader does not.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags};
use rustix::io::Errno;

use crate::io::system;

/// An open directory, in which things are reached by their names alone: whatever is
/// put in its place meanwhile, they are those of this directory.
#[derive(Clone, Debug)]
pub struct Dir {
    /// How it is called in messages.
    pub path: PathBuf,
    file: Arc<File>,
}

impl Dir {
    /// The directory at `path`, which a symbolic link may lead to.
    ///
    /// # Errors
    /// When nothing is at `path`, it leads to something other than a directory, or this user
    /// may not reach it.
    pub fn followed(path: &Path) -> io::Result<Self> {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        let file = Arc::new(rustix::fs::open(path, system::REACH, Mode::empty())?.into());
        Ok(Self { path: path.to_owned(), file })
    }

    /// The directory `name` of this one.
    ///
    /// # Errors
    /// Of the kind [`io::ErrorKind::InvalidInput`] if something else is there, which a
    /// symbolic link is.
    pub fn sub(&self, name: impl AsRef<OsStr>) -> io::Result<Self> {
        let path = self.path.join(name.as_ref());
        let file = match rustix::fs::openat(
            &*self.file,
            name.as_ref(),
            system::REACH | OFlags::NOFOLLOW,
            Mode::empty(),
        ) {
            Ok(fd) => Arc::new(fd.into()),
            Err(Errno::NOTDIR | Errno::LOOP) => {
                let text = match self.kind(name.as_ref())? {
                    FileType::Symlink => "is a symbolic link, which is not followed here",
                    _ => "is not a directory",
                };
                let text = format!("{} {text}; it stays as it is", path.display());
                return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
            }
            Err(error) => return Err(error.into()),
        };
        Ok(Self { path, file })
    }

    /// This directory, if this user owns it.
    ///
    /// # Errors
    /// Of the kind [`io::ErrorKind::PermissionDenied`] if another user does.
    pub fn own(self) -> io::Result<Self> {
        let owner = self.file.metadata()?.uid();
        if owner == rustix::process::geteuid().as_raw() {
            return Ok(self);
        }
        let text =
            format!("{} belongs to the user {owner}, and stays as it is", self.path.display());
        Err(io::Error::new(io::ErrorKind::PermissionDenied, text))
    }

    /// The open directory, for system calls that take one. On Linux it serves to reach what is
    /// in it, and cannot be read.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// The names in it, in the order of their bytes.
    ///
    /// # Errors
    /// When this user may not list the directory, or it cannot be read.
    pub fn names(&self) -> io::Result<Vec<OsString>> {
        names_in(&self.file)
    }

    /// What `name` in it is.
    ///
    /// # Errors
    /// Of the kind [`io::ErrorKind::NotFound`] if nothing has that name, and when this user may
    /// not search the directory.
    pub fn kind(&self, name: &OsStr) -> io::Result<FileType> {
        let stat = rustix::fs::statat(&*self.file, name, AtFlags::SYMLINK_NOFOLLOW)?;
        Ok(FileType::from_raw_mode(stat.st_mode))
    }
}

/// The names in the directory `path`, in the order of their bytes.
///
/// # Errors
/// When `path` is not a directory, this user may not list it, or it cannot be read.
pub fn names(path: &Path) -> io::Result<Vec<OsString>> {
    names_at(CWD, path)
}

/// The names in the directory that `dir` is, in the order of their bytes.
///
/// # Errors
/// When `dir` is not a directory, this user may not list it, or it cannot be read.
pub fn names_in(dir: &File) -> io::Result<Vec<OsString>> {
    names_at(dir, Path::new("."))
}

/// Opens the directory `name` of `dir`, and not what a link leads to.
///
/// # Errors
/// When nothing has that name, something other than a directory has it, or this user may not
/// list the directory.
pub fn open_dir(dir: impl AsFd, name: impl AsRef<OsStr>) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(dir, name.as_ref(), flags, Mode::empty())?.into())
}

/// Opens the directory `name` of `dir`, as [`open_dir`] does; it is made if need be.
///
/// # Errors
/// When the directory cannot be made, something other than a directory has the name, or this
/// user may not list the directory.
pub fn make_dir(dir: &File, name: &str, mode: u32) -> io::Result<File> {
    match rustix::fs::mkdirat(dir, name, system::mode(mode)) {
        Ok(()) | Err(Errno::EXIST) => open_dir(dir, name),
        Err(error) => Err(error.into()),
    }
}

fn names_at(dir: impl AsFd, path: &Path) -> io::Result<Vec<OsString>> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let open = || rustix::fs::openat(&dir, path, flags, Mode::empty());
    sorted(rustix::fs::Dir::new(rustix::io::retry_on_intr(open)?)?)
}

fn sorted(dir: rustix::fs::Dir) -> io::Result<Vec<OsString>> {
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
