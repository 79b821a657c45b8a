//! Directories that several users may share: what is made below one that a group or
//! everybody may write to has its mode, whatever the umask is.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags};

use crate::regular;
use crate::temporary::set_mode;

/// Bits of a mode by which others than the owner may write.
const OTHERS_WRITE: u32 = 0o022;

/// Makes the directory `dir`, which is `root` or lies below it, with all that it is in.
pub fn create(root: &Path, dir: &Path) -> io::Result<()> {
    if dir.is_dir() {
        return Ok(());
    }
    fs::create_dir_all(root)?;
    let mode = fs::metadata(root)?.mode() & 0o7777;
    let mut path = root.to_owned();
    for part in dir.strip_prefix(root).map_err(io::Error::other)? {
        path.push(part);
        match rustix::fs::mkdirat(CWD, &path, Mode::from_raw_mode(0o777)) {
            Ok(()) if mode & OTHERS_WRITE != 0 => {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                set_mode(&rustix::fs::open(&path, flags, Mode::empty())?.into(), mode)?;
            }
            Ok(()) | Err(rustix::io::Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// A file to be locked by whoever uses what it stands for.
pub struct LockFile {
    /// None if there is none, and none can be made.
    pub file: Option<File>,
    /// Whether this user may write to it, and so to what it stands for.
    pub writable: bool,
}

/// Opens the lock file at `path`, which is made if it is not there. One that this
/// user may only read is as good for a lock; where none can be made, nobody writes.
pub fn open_lock(path: &Path) -> io::Result<LockFile> {
    // Somebody may remove it between the two steps: that happens once, not for ever.
    for _ in 0..10 {
        match regular::open_with(CWD, path, OFlags::RDWR) {
            Ok(file) => return Ok(LockFile { file: Some(file), writable: true }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) if may_not_write(&error) => {
                let file = match regular::open(path) {
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
        match rustix::fs::open(path, flags, Mode::from_raw_mode(0o644)) {
            Ok(fd) => {
                let file = File::from(fd);
                let dir = fs::metadata(path.parent().unwrap_or(Path::new(".")))?.mode();
                if dir & OTHERS_WRITE != 0 {
                    set_mode(&file, 0o644 | dir & OTHERS_WRITE)?;
                }
                return Ok(LockFile { file: Some(file), writable: true });
            }
            Err(rustix::io::Errno::EXIST) => {}
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
            create(&root, &dir).unwrap();
            open_lock(&dir.join("x.lock")).unwrap().file.unwrap();
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
        rustix::fs::mkfifoat(CWD, at("fifo"), Mode::RWXU).unwrap();
        fs::create_dir(at("dir")).unwrap();
        for name in ["link", "fifo", "dir"] {
            assert!(open_lock(&at(name)).is_err(), "{name}");
        }
        assert!(open_lock(&at("new")).unwrap().writable);
    }
}
