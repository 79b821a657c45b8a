//! A tree of files: walking, reading, and what the kernel keeps of it. Both programs that read what this project makes use it.

use std::ffi::{CStr, CString};
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Dir, FileType, Mode, OFlags, openat};

/// Both the caches of the file system and those of a loop's backing file.
pub(crate) fn drop_caches(caches: &mut File) -> io::Result<()> {
    rustix::fs::sync();
    caches.write_all(b"3")
}

pub(crate) type Visit<'v> = dyn FnMut(BorrowedFd, &CStr, FileType, &[u8]) -> io::Result<()> + 'v;

/// Calls `visit` for all that is below `dir`: with the directory, name, kind, and path from where the walk began.
pub(crate) fn walk(dir: BorrowedFd, visit: &mut Visit) -> io::Result<()> {
    fn below(dir: BorrowedFd, path: &mut Vec<u8>, visit: &mut Visit) -> io::Result<()> {
        for entry in Dir::read_from(dir)? {
            let entry = entry?;
            let (name, kind) = (entry.file_name(), entry.file_type());
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            let length = path.len();
            path.extend_from_slice(name.to_bytes());
            visit(dir, name, kind, path)?;
            if kind == FileType::Directory {
                path.push(b'/');
                below(open(dir, name)?.as_fd(), path, visit)?;
            }
            path.truncate(length);
        }
        Ok(())
    }
    below(dir, &mut Vec::new(), visit)
}

pub(crate) fn open(dir: BorrowedFd, path: &CStr) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(dir, path, flags, Mode::empty())
        .map_err(|e| io::Error::other(format!("{}: {e}", path.to_string_lossy())))
}

/// The paths of one kind, in an order that no file system has a say in.
pub(crate) fn paths(root: &OwnedFd, wanted: FileType) -> io::Result<Vec<CString>> {
    let mut paths = Vec::new();
    walk(root.as_fd(), &mut |_, _, kind, path| {
        if kind == wanted {
            paths.push(CString::new(path)?);
        }
        Ok(())
    })?;
    paths.sort();
    Ok(paths)
}

pub(crate) fn read_whole(mut file: File, buffer: &mut [u8]) -> io::Result<u64> {
    let mut sum = 0u64;
    loop {
        match file.read(buffer)? {
            0 => return Ok(sum),
            read => sum = sum.wrapping_add(sum_of(&buffer[..read])),
        }
    }
}

/// Cheap next to reading, and enough to see that something else was read.
pub(crate) fn sum_of(bytes: &[u8]) -> u64 {
    let words = bytes.chunks_exact(8);
    let rest = words.remainder().iter().fold(bytes.len() as u64, |sum, b| sum * 31 + u64::from(*b));
    words
        .map(|word| u64::from_le_bytes(word.try_into().expect("chunks of 8")))
        .fold(rest, u64::wrapping_add)
}
