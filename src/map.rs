//! Files as memory.

use std::fs::File;
use std::io;
use std::ops::Deref;

/// A file's bytes, or none for an empty file, which cannot be mapped.
pub struct Mapped(Option<memmap2::Mmap>);

impl Deref for Mapped {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.0.as_deref().unwrap_or_default()
    }
}

/// Maps all of `file` for reading.
pub fn file(file: &File) -> io::Result<Mapped> {
    if file.metadata()?.len() == 0 {
        return Ok(Mapped(None));
    }
    // SAFETY: the map is private to this process and only ever read. Should
    // another process change the file meanwhile, bytes change under checks that
    // are made on each read, and a truncation ends the process with SIGBUS:
    // the same as for any program that maps its input.
    let map = unsafe { memmap2::Mmap::map(file)? };
    Ok(Mapped(Some(map)))
}
