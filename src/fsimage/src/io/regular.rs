//! Regular files, opened so that nothing that lies in their place does harm.
//!
//! A directory may hold something else under a name that this program knows: a
//! symbolic link that leads elsewhere, a fifo that waits for a writer, a device
//! without an end. None of them is followed, waited for, or read.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::AsFd;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags};
use rustix::io::Errno;

/// Opens the regular file at `path` for reading. The last part of `path` is
/// followed through no symbolic link.
///
/// # Errors
/// Of the kind [`io::ErrorKind::NotFound`] if nothing is there, of the kind
/// [`io::ErrorKind::InvalidInput`] if something other than a regular file is.
pub fn open(path: &Path) -> io::Result<File> {
    open_with(CWD, path, OFlags::RDONLY)
}

/// Opens the regular file `name` of the directory `dir`, as [`open`] does.
///
/// # Errors
/// Of the kinds that [`open`] has.
pub fn open_at(dir: impl AsFd, name: impl AsRef<Path>) -> io::Result<File> {
    open_with(dir, name.as_ref(), OFlags::RDONLY)
}

/// Opens the regular file at `path` for reading, which a symbolic link may lead to:
/// a user named the path, or a digest tells what must be in the file.
///
/// # Errors
/// Of the kind [`io::ErrorKind::NotFound`] if nothing is there, of the kind
/// [`io::ErrorKind::InvalidInput`] if `path` leads to something other than a regular file.
pub fn open_followed(path: &Path) -> io::Result<File> {
    open_flags(CWD, path, OFlags::RDONLY)
}

/// Opens a regular file with `flags`, which say whether it is read or written.
///
/// # Errors
/// Of the kinds that [`open`] has, and when this user may not do with the file what `flags` ask
/// for.
pub fn open_with(dir: impl AsFd, name: &Path, flags: OFlags) -> io::Result<File> {
    open_flags(dir, name, flags | OFlags::NOFOLLOW)
}

/// Follows a symbolic link unless `flags` say otherwise.
fn open_flags(dir: impl AsFd, name: &Path, flags: OFlags) -> io::Result<File> {
    let follow = match flags.contains(OFlags::NOFOLLOW) {
        true => AtFlags::SYMLINK_NOFOLLOW,
        false => AtFlags::empty(),
    };
    // To open a device may rewind a tape, or start a watchdog. Nothing is opened that
    // is not a regular file; what takes its place in between is told below.
    let found = rustix::fs::statat(&dir, name, follow)?;
    match FileType::from_raw_mode(found.st_mode) {
        FileType::RegularFile => {}
        FileType::Symlink => return Err(other("is a symbolic link")),
        _ => return Err(other(NOT_REGULAR)),
    }
    // Without NONBLOCK, opening a fifo waits for the other end.
    let flags = flags | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = match rustix::fs::openat(&dir, name, flags, Mode::empty()) {
        Ok(fd) => File::from(fd),
        Err(Errno::LOOP) => return Err(other("is a symbolic link")),
        // A socket, a fifo that nobody reads, a device without a driver; a directory.
        Err(Errno::NXIO | Errno::NODEV | Errno::ISDIR) => return Err(other(NOT_REGULAR)),
        Err(error) => return Err(error.into()),
    };
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(other(NOT_REGULAR)),
    }
}

/// The bytes of the regular file at `path`, which must not have more than
/// `max_bytes`.
///
/// # Errors
/// Of the kinds that [`open`] has, of the kind [`io::ErrorKind::InvalidData`] if there are more
/// than `max_bytes`, and when the file cannot be read.
pub fn read(path: &Path, max_bytes: u64) -> io::Result<Vec<u8>> {
    bytes(&open(path)?, max_bytes)
}

/// The bytes of the regular file `name` of `dir`, as [`read`] reads them.
///
/// # Errors
/// Of the kinds that [`read`] has.
pub fn read_at(dir: impl AsFd, name: impl AsRef<Path>, max_bytes: u64) -> io::Result<Vec<u8>> {
    bytes(&open_at(dir, name)?, max_bytes)
}

/// The bytes of what a user named, which may be a pipe or a device as well as a file,
/// and must not have more than `max_bytes`.
///
/// # Errors
/// Of the kind [`io::ErrorKind::InvalidData`] if there are more than `max_bytes`, and when
/// `path` cannot be opened or read.
pub fn read_named(path: &Path, max_bytes: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(max_bytes.saturating_add(1)).read_to_end(&mut bytes)?;
    match bytes.len() as u64 {
        size if size > max_bytes => {
            let text = format!("has more than {max_bytes} bytes");
            Err(io::Error::new(io::ErrorKind::InvalidData, text))
        }
        _ => Ok(bytes),
    }
}

/// What is left to read of `file`, which must not have more than `max_bytes`.
///
/// # Errors
/// Of the kind [`io::ErrorKind::InvalidData`] if the file has more than `max_bytes`, and when
/// it cannot be read.
pub fn bytes(file: &File, max_bytes: u64) -> io::Result<Vec<u8>> {
    let size = file.metadata()?.len();
    let too_large = |size| {
        let text = format!("has {size} bytes, more than {max_bytes}");
        io::Error::new(io::ErrorKind::InvalidData, text)
    };
    if size > max_bytes {
        return Err(too_large(size));
    }
    let mut bytes = Vec::new();
    // A file may grow while it is read.
    let mut limited = file.take(max_bytes.saturating_add(1));
    limited.read_to_end(&mut bytes)?;
    match bytes.len() as u64 {
        size if size > max_bytes => Err(too_large(size)),
        _ => Ok(bytes),
    }
}

const NOT_REGULAR: &str = "is not a regular file";

fn other(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, what.to_owned())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn only_a_regular_file_of_a_bounded_size_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::write(at("file"), b"twelve bytes").unwrap();
        std::os::unix::fs::symlink(at("file"), at("link")).unwrap();
        std::os::unix::fs::symlink("/dev/zero", at("zero")).unwrap();
        rustix::fs::mkfifoat(CWD, at("fifo"), Mode::RUSR | Mode::WUSR).unwrap();
        std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
        fs::create_dir(at("dir")).unwrap();
        assert_eq!(read(&at("file"), 12).unwrap(), b"twelve bytes");
        let handle = File::open(dir.path()).unwrap();
        assert_eq!(read_at(&handle, "file", 100).unwrap(), b"twelve bytes");
        for (name, words) in [
            ("file", "has 12 bytes, more than 11"),
            ("link", "is a symbolic link"),
            ("zero", "is a symbolic link"),
            ("fifo", "is not a regular file"),
            ("socket", "is not a regular file"),
            ("dir", "is not a regular file"),
        ] {
            let error = read(&at(name), 11).unwrap_err();
            assert!(error.to_string().contains(words), "{name}: {error}");
        }
        assert_eq!(read(&at("absent"), 1).unwrap_err().kind(), io::ErrorKind::NotFound);
        assert!(open_followed(&at("link")).is_ok());
        for name in ["zero", "fifo", "dir"] {
            let error = open_followed(&at(name)).unwrap_err();
            assert_eq!(error.to_string(), NOT_REGULAR, "{name}");
        }
        assert!(read_named(Path::new("/dev/zero"), 1 << 20).is_err());
        assert_eq!(read_named(&at("link"), 12).unwrap(), b"twelve bytes");
        // A device is asked for its type, and never opened.
        let error = read(Path::new("/dev/zero"), 1 << 20).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    }
}
