//! Directories that several users may share: what is made below a directory that a group or
//! everybody may write to gets the mode of that directory, whatever the umask is. The directory
//! that a user named may be a symbolic link; below it, no link is followed.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;

use crate::io::dir::Dir;
use crate::io::regular;
use crate::io::temporary::set_mode;

/// Bits of a mode by which others than the owner may write.
const OTHERS_WRITE: u32 = 0o022;

/// Opens the directory `dir`, which is `root` or lies below it.
///
/// # Errors
/// When `dir` is not below `root`, of the kind [`io::ErrorKind::NotFound`] if a directory on
/// the way is absent, and of the kind [`io::ErrorKind::InvalidInput`] if it is something else,
/// as a symbolic link.
pub fn open(root: &Path, dir: &Path) -> io::Result<Dir> {
    let mut open = Dir::followed(root)?;
    for part in dir.strip_prefix(root).map_err(io::Error::other)? {
        open = open.sub(part)?;
    }
    Ok(open)
}

/// Opens the directory `dir`, which is `root` or lies below it, and makes it with all
/// that it is in.
///
/// # Errors
/// When `dir` is not below `root`, of the kind [`io::ErrorKind::InvalidInput`] if something
/// other than a directory is on the way, and when a directory cannot be made.
pub fn create(root: &Path, dir: &Path) -> io::Result<Dir> {
    let mut open = match Dir::followed(root) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            fs::create_dir_all(root)?;
            Dir::followed(root)?
        }
        open => open?,
    };
    let mode = open.file().metadata()?.mode() & 0o7777;
    for part in dir.strip_prefix(root).map_err(io::Error::other)? {
        open = match open.sub(part) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => make(&open, part, mode)?,
            sub => sub?,
        };
    }
    Ok(open)
}

/// Makes the directory `name` of `dir`. It gets `mode` if that lets others write.
fn make(dir: &Dir, name: &OsStr, mode: u32) -> io::Result<Dir> {
    match rustix::fs::mkdirat(dir.file(), name, Mode::from_raw_mode(0o777)) {
        Ok(()) if mode & OTHERS_WRITE != 0 => {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let made = rustix::fs::openat(dir.file(), name, flags, Mode::empty())?;
            set_mode(&made.into(), mode)?;
        }
        Ok(()) | Err(Errno::EXIST) => {}
        Err(error) => return Err(error.into()),
    }
    dir.sub(name)
}

/// Makes what is in `file`, which is to be in `dir`, readable for all who share `dir`,
/// whatever the umask is.
///
/// # Errors
/// When the mode of `dir` cannot be found out, or that of `file` cannot be set.
pub fn share(dir: &Dir, file: &File) -> io::Result<()> {
    match dir.file().metadata()?.mode() & OTHERS_WRITE {
        0 => Ok(()),
        _ => set_mode(file, 0o644),
    }
}

/// Removes the file `name` of `dir`, if it is this user's to remove ([`is_ours`]). That
/// it is gone already is no error.
///
/// # Errors
/// Those of [`is_ours`], and when the kernel does not remove the name, as that of a directory.
pub fn remove(dir: &Dir, name: impl AsRef<OsStr>) -> io::Result<()> {
    is_ours(dir, name.as_ref())?;
    match rustix::fs::unlinkat(dir.file(), name.as_ref(), AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Whether this user may remove or replace `name` of `dir`: it is theirs, or they own
/// the directory, or it is one where each user may remove the others' files. That holds
/// for root, too, whom the kernel would let do more.
///
/// # Errors
/// Of the kind [`io::ErrorKind::PermissionDenied`] if that is not so.
pub fn is_ours(dir: &Dir, name: &OsStr) -> io::Result<()> {
    const STICKY: u32 = 0o1000;
    let own = rustix::process::geteuid().as_raw();
    let there = match rustix::fs::statat(dir.file(), name, AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::NOENT) => return Ok(()),
        there => there?,
    };
    let metadata = dir.file().metadata()?;
    let anyone = metadata.mode() & OTHERS_WRITE != 0 && metadata.mode() & STICKY == 0;
    if there.st_uid == own || metadata.uid() == own || anyone {
        return Ok(());
    }
    let text = format!("it belongs to the user {}, and stays", there.st_uid);
    Err(io::Error::new(io::ErrorKind::PermissionDenied, text))
}

/// A file to be locked by whoever uses what it stands for.
#[derive(Debug)]
pub struct LockFile {
    /// None if there is none, and none can be made.
    pub file: Option<File>,
    /// Whether this user may write to it, and so to what it stands for.
    pub writable: bool,
}

/// Opens the lock file `name` of `dir`, and makes it if it is missing. A file that this user may
/// only read can be locked as well. Where no file can be made, nobody can write what it stands for
/// either, and there is no need for a lock.
///
/// # Errors
/// When something other than a regular file has the name, other processes keep removing the
/// file, or it cannot be opened or made for another reason than that this user may not write.
pub fn open_lock(dir: &Dir, name: &str) -> io::Result<LockFile> {
    // Another process may remove the file between the two steps, but hardly ten times in a row.
    for _ in 0..10 {
        match regular::open_with(dir.file(), Path::new(name), OFlags::RDWR) {
            Ok(file) => return Ok(LockFile { file: Some(file), writable: true }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) if may_not_write(&error) => {
                let file = match regular::open_at(dir.file(), name) {
                    Ok(file) => Some(file),
                    Err(error) if may_not_write(&error) => None,
                    Err(error) => return Err(error),
                };
                return Ok(LockFile { file, writable: false });
            }
            Err(error) => return Err(error),
        }
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL;
        let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match rustix::fs::openat(dir.file(), name, flags, Mode::from_raw_mode(0o644)) {
            Ok(fd) => {
                let file = File::from(fd);
                let shared = dir.file().metadata()?.mode() & OTHERS_WRITE;
                if shared != 0 {
                    set_mode(&file, 0o644 | shared)?;
                }
                return Ok(LockFile { file: Some(file), writable: true });
            }
            Err(Errno::EXIST) => {}
            Err(error) => {
                let error = error.into();
                return match may_not_write(&error) {
                    true => Ok(LockFile { file: None, writable: false }),
                    false => Err(error),
                };
            }
        }
    }
    Err(io::Error::other("somebody keeps removing it"))
}

/// Whether `error` says that this user may not write there.
pub fn may_not_write(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn what_is_made_in_a_shared_directory_is_shared() {
        let tmp = tempfile::tempdir().unwrap();
        for (mode, lock) in [(0o2775, 0o664), (0o1777, 0o666)] {
            let root = tmp.path().join(format!("{mode:o}"));
            fs::create_dir(&root).unwrap();
            fs::set_permissions(&root, fs::Permissions::from_mode(mode)).unwrap();
            let dir = root.join("v1/deep");
            let made = create(&root, &dir).unwrap();
            open_lock(&made, "x.lock").unwrap().file.unwrap();
            let mode_of = |path: &Path| path.metadata().unwrap().mode() & 0o7777;
            assert_eq!(mode_of(&root.join("v1")), mode);
            assert_eq!(mode_of(&dir), mode);
            assert_eq!(mode_of(&dir.join("x.lock")), lock);
        }
    }

    #[test]
    fn a_lock_is_a_regular_file_or_an_error() {
        let tmp = tempfile::tempdir().unwrap();
        let at = |name: &str| tmp.path().join(name);
        fs::write(at("victim"), "").unwrap();
        std::os::unix::fs::symlink("victim", at("link")).unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, at("fifo"), Mode::RWXU).unwrap();
        fs::create_dir(at("dir")).unwrap();
        let dir = Dir::followed(tmp.path()).unwrap();
        for name in ["link", "fifo", "dir"] {
            assert!(open_lock(&dir, name).is_err(), "{name}");
        }
        assert!(open_lock(&dir, "new").unwrap().writable);
    }

    #[test]
    fn only_the_root_may_be_a_link() {
        let tmp = tempfile::tempdir().unwrap();
        let at = |name: &str| tmp.path().join(name);
        fs::create_dir_all(at("real/sub")).unwrap();
        for (to, link) in [("real", "root"), ("sub", "real/link")] {
            std::os::unix::fs::symlink(to, at(link)).unwrap();
        }
        for make in [open, create] {
            assert!(make(&at("root"), &at("root/sub")).is_ok());
            for dir in ["root/link", "root/link/deep"] {
                let error = make(&at("root"), &at(dir)).unwrap_err().to_string();
                assert!(error.contains("root/link is a symbolic link"), "{error}");
            }
        }
        assert_eq!(fs::read_dir(at("real/sub")).unwrap().count(), 0);
    }
}
