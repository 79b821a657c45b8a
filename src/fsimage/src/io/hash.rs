//! BLAKE3 of files that are there.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;

use blake3::Hasher;

use super::mmap::{self, Mapped};
use super::{holes, threads};
use crate::digest::{Blake3, HASHED};

/// BLAKE3 of all that `file` holds, taken by this thread.
///
/// Its holes are hashed as the zeros that they are, and not touched: where the file is
/// kept in memory (tmpfs), a hole that is read through a map takes memory, and keeps it
/// for as long as there is the file.
///
/// # Errors
/// When `file` cannot be mapped into memory, or a part of it cannot be read.
pub fn of_file(file: &File) -> io::Result<Blake3> {
    hash(file, |hasher, bytes| {
        hasher.update(bytes);
    })
}

/// The same, with the threads of the pool if the file is worth it.
///
/// # Errors
/// Those of [`of_file`], and when the threads of the pool cannot be started.
pub fn of_file_by_all(file: &File) -> io::Result<Blake3> {
    if file.metadata()?.len() < HASHED as u64 {
        return of_file(file);
    }
    threads::pool()?;
    hash(file, |hasher, bytes| {
        if bytes.len() < HASHED {
            hasher.update(bytes);
        } else {
            hasher.update_rayon(bytes);
        }
    })
}

/// Hashes data as they come and holes as zeros, `PIECE` bytes at a time.
///
/// Invariant: the first `at` bytes of the file are hashed, or due and fewer than `PIECE`. What
/// comes next is data or a hole that begins there, so every byte is hashed once and in order;
/// how they are cut into pieces makes no difference to the hash. Terminates because the ranges
/// of data ascend and end at the file's length.
fn hash(file: &File, update: impl FnMut(&mut Hasher, &[u8])) -> io::Result<Blake3> {
    let bytes = mmap::file(file)?;
    let (due, hasher) = (Vec::new(), Hasher::new());
    let mut whole = Whole { file, bytes: &bytes, due, hasher, update };
    let len = bytes.len() as u64;
    let mut at = 0;
    for data in holes::data_or_all(file, len, 1) {
        whole.zeros(data.start - at);
        at = data.end;
        whole.data(data)?;
    }
    whole.zeros(len - at);
    whole.flush();
    Ok(whole.hasher.finalize().into())
}

/// Bytes that [`hash`] hashes at once; data in longer runs are not copied for it.
const PIECE: usize = 1 << 20;

/// A file while [`hash`] hashes it.
struct Whole<'f, U> {
    file: &'f File,
    bytes: &'f Mapped,
    /// What comes next; less than [`PIECE`].
    due: Vec<u8>,
    hasher: blake3::Hasher,
    update: U,
}

impl<U: FnMut(&mut Hasher, &[u8])> Whole<'_, U> {
    fn zeros(&mut self, mut len: u64) {
        static ZEROS: [u8; PIECE] = [0; PIECE];
        while len > 0 {
            let take = len.min((PIECE - self.due.len()) as u64) as usize;
            if take == PIECE {
                (self.update)(&mut self.hasher, &ZEROS);
            } else {
                self.due.resize(self.due.len() + take, 0);
                self.flush_if_full();
            }
            len -= take as u64;
        }
    }

    fn data(&mut self, range: Range<u64>) -> io::Result<()> {
        if range.end - range.start >= PIECE as u64 {
            self.flush();
            let range = range.start as usize..range.end as usize;
            (self.update)(&mut self.hasher, &self.bytes[range]);
            return Ok(());
        }
        let mut at = range.start;
        while at < range.end {
            let from = self.due.len();
            let take = (range.end - at).min((PIECE - from) as u64) as usize;
            self.due.resize(from + take, 0);
            // Not through the map: what was a hole a moment ago may be one again.
            let read = self.file.read_exact_at(&mut self.due[from..], at);
            read.map_err(|error| match error.kind() {
                io::ErrorKind::UnexpectedEof => {
                    io::Error::new(error.kind(), "it became shorter while it was read")
                }
                _ => error,
            })?;
            self.flush_if_full();
            at += take as u64;
        }
        Ok(())
    }

    fn flush_if_full(&mut self) {
        if self.due.len() == PIECE {
            self.flush();
        }
    }

    fn flush(&mut self) {
        (self.update)(&mut self.hasher, &self.due);
        self.due.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_hashed_with_their_holes_which_stay_holes() {
        let cases: [&[(u64, usize)]; 5] = [
            &[],
            &[(0, 10)],
            &[(0, 5000), (9 << 20, 1)],
            &[(4096, 3 << 20), (7 << 20, 1 << 20), (20 << 20, 70_000)],
            &[(1 << 20, 4096), (3 << 19, 4096), (2 << 20, 4096), (3 << 20, 3 << 20)],
        ];
        for pieces in cases {
            // As a file of a tmpfs.
            let flags = rustix::fs::MemfdFlags::CLOEXEC;
            let file = File::from(rustix::fs::memfd_create("holes", flags).unwrap());
            let len = if pieces.is_empty() { 0 } else { (21 << 20) + 123 };
            file.set_len(len).unwrap();
            let mut expected = vec![0; len as usize];
            for (at, len) in pieces {
                let bytes: Vec<u8> = (0..*len).map(|i| (i % 251) as u8).collect();
                file.write_all_at(&bytes, *at).unwrap();
                expected[*at as usize..][..*len].copy_from_slice(&bytes);
            }
            let blocks = || std::os::unix::fs::MetadataExt::blocks(&file.metadata().unwrap());
            let before = blocks();
            let hash = [of_file(&file).unwrap(), of_file_by_all(&file).unwrap()];
            assert_eq!(hash, [Blake3::of(&expected); 2], "{pieces:?}");
            assert_eq!(blocks(), before, "{pieces:?}");
        }
    }
}
