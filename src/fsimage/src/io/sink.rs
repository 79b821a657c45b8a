//! Where a writer's bytes go, in address order.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;

use crate::digest::{Blake3, HASHED, TreeHash};
use crate::io::write_behind::{Behind, Part};
use crate::units::PAGE_SIZE;

/// Takes the bytes of one file from its first to its last.
pub trait Sink {
    /// The bytes that come next.
    ///
    /// # Errors
    /// When they cannot be written, as where a disk is full.
    fn data(&mut self, bytes: &[u8]) -> io::Result<()>;

    /// `len` zero bytes come next. They need not take space.
    ///
    /// # Errors
    /// When what came before them cannot be written, or the file would become too large.
    fn zeros(&mut self, len: u64) -> io::Result<()>;

    /// How many bytes came so far.
    fn position(&self) -> u64;
}

/// Whether all of `bytes` are zero.
pub fn is_zero(bytes: &[u8]) -> bool {
    // Each step of 64 bytes compiles to a few vector instructions. Data mostly have a byte in
    // the first step that is not zero, which ends the search.
    let (steps, rest) = bytes.as_chunks::<64>();
    let zero = |bytes: &[u8]| bytes.iter().fold(0, |all, byte| all | byte) == 0;
    steps.iter().all(|step| zero(step)) && zero(rest)
}

/// Divides `bytes` into runs of blocks, as long as they can be, that are all zero or of which
/// none is, and says of each whether it is zero. The last block may be shorter than `block`.
pub fn runs(bytes: &[u8], block: usize) -> impl Iterator<Item = (bool, &[u8])> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let first = rest.chunks(block).next()?;
        let zero = is_zero(first);
        let others = rest[first.len()..].chunks(block).take_while(|b| is_zero(b) == zero);
        let (run, behind) = rest.split_at(first.len() + others.map(<[u8]>::len).sum::<usize>());
        rest = behind;
        Some((zero, run))
    })
}

/// Runs of zeros from this length on become holes of the host's file.
const HOLE: u64 = PAGE_SIZE;

/// A sink into a new file, with holes where zeros are.
///
/// With [`FileSink::hashed`] the file's BLAKE3 is taken on the way; its first
/// bytes may then be set at the end, because a superblock is known last.
#[derive(Debug)]
pub struct FileSink {
    part: Part,
    /// Offset of the first byte that is not hashed.
    hashed: u64,
    hash: Option<TreeHash>,
    behind: Behind,
}

impl FileSink {
    /// Writes `file` from its start. The file must be empty: nothing is written where zeros are,
    /// so what lay there would stay. It has all that was written only after
    /// [`FileSink::finish`].
    pub fn new(file: File) -> Self {
        Self { part: Part::new(0), hashed: 0, hash: None, behind: Behind::new(file) }
    }

    /// As [`FileSink::new`], and takes the BLAKE3 of what is written.
    pub fn hashed(file: File) -> Self {
        Self { hash: Some(TreeHash::default()), ..Self::new(file) }
    }

    /// Says that what comes from now on is read soon: the page cache keeps it.
    ///
    /// # Errors
    /// When what came so far cannot be written.
    pub fn cached(&mut self) -> io::Result<()> {
        self.flush(self.position())?;
        self.behind.cached();
        Ok(())
    }

    /// Hashes the bytes of the part that are not hashed yet.
    fn hash(&mut self) {
        if let Some(hash) = &mut self.hash {
            let from = (self.hashed - self.part.position()) as usize;
            hash.update(&self.part.bytes()[from..]);
        }
        self.hashed = self.part.end();
    }

    /// Hands the part on to be written; what comes next belongs at offset `next`.
    fn flush(&mut self, next: u64) -> io::Result<()> {
        self.hash();
        self.behind.write(&mut self.part, next)
    }

    /// Ends the file. `head` replaces its first bytes, which must have been
    /// written as zeros. Returns it with its BLAKE3 if that was asked for.
    ///
    /// # Errors
    /// When the rest or `head` cannot be written, or an earlier write failed meanwhile.
    pub fn finish(mut self, head: &[u8]) -> io::Result<(File, Option<Blake3>)> {
        let end = self.position();
        self.flush(end)?;
        let file = self.behind.finish()?;
        let end_it = || -> io::Result<()> {
            // A hole at the end is not written.
            if file.metadata()?.len() != end {
                file.set_len(end)?;
            }
            file.write_all_at(head, 0)
        };
        end_it().map_err(|error| Behind::named(&file, error))?;
        let hash = self.hash.map(|h| h.finish(head));
        Ok((file, hash))
    }
}

impl Sink for FileSink {
    fn data(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let step = HASHED - (self.position() % HASHED as u64) as usize;
            let (now, later) = bytes.split_at(bytes.len().min(step));
            self.part.push(now);
            if now.len() == step {
                self.hash();
                if self.part.room() == 0 {
                    self.flush(self.position())?;
                }
            }
            bytes = later;
        }
        Ok(())
    }

    fn zeros(&mut self, len: u64) -> io::Result<()> {
        if len < HOLE {
            return self.data(&[0; HOLE as usize][..len as usize]);
        }
        let next = self.position().checked_add(len).ok_or(io::ErrorKind::FileTooLarge)?;
        self.flush(next)?;
        if let Some(hash) = &mut self.hash {
            hash.update_zeros(len);
        }
        self.hashed = next;
        Ok(())
    }

    fn position(&self) -> u64 {
        self.part.end()
    }
}

/// Writes all of `from`, but at most `most` bytes, into `file`, which is empty:
/// returns the file, its BLAKE3, and how many bytes came.
///
/// # Errors
/// When `from` cannot be read, or `file` cannot be written.
pub fn copy(from: &mut impl Read, most: u64, file: File) -> io::Result<(File, Blake3, u64)> {
    let mut sink = FileSink::hashed(file);
    let mut from = from.take(most);
    let mut buffer = vec![0; HASHED];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => break,
            Ok(n) if is_zero(&buffer[..n]) => sink.zeros(n as u64)?,
            Ok(n) => sink.data(&buffer[..n])?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    let came = sink.position();
    let (file, hash) = sink.finish(&[])?;
    Ok((file, hash.expect("the sink hashes"), came))
}

impl Sink for Vec<u8> {
    fn data(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.extend_from_slice(bytes);
        Ok(())
    }

    fn zeros(&mut self, len: u64) -> io::Result<()> {
        let len = usize::try_from(len).map_err(|_| io::ErrorKind::OutOfMemory)?;
        self.resize(self.len() + len, 0);
        Ok(())
    }

    fn position(&self) -> u64 {
        self.len() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hashed_file_sink_writes_and_hashes_the_same_bytes_with_a_late_head() {
        for len in [0usize, 1, 4096, 1 << 20, (1 << 20) + 1, (3 << 20) + 777] {
            let path = std::env::temp_dir().join(format!("sink-{}-{len}", std::process::id()));
            let file = File::create(&path).unwrap();
            let mut sink = FileSink::hashed(file);
            let mut expected = vec![0u8; 4096];
            sink.zeros(4096).unwrap();
            let body: Vec<u8> = (0..len).map(|i| (i % 251) as u8).collect();
            for part in body.chunks(70_001) {
                sink.data(part).unwrap();
            }
            expected.extend_from_slice(&body);
            sink.zeros(10_000).unwrap();
            expected.resize(expected.len() + 10_000, 0);
            assert_eq!(sink.position(), expected.len() as u64);
            let head = [7u8; 128];
            expected[..128].copy_from_slice(&head);
            let (_, hash) = sink.finish(&head).unwrap();
            let written = std::fs::read(&path).unwrap();
            std::fs::remove_file(&path).unwrap();
            assert!(written == expected, "length {len}");
            assert_eq!(hash.unwrap(), Blake3::of(&expected), "length {len}");
        }
    }

    #[test]
    fn data_and_holes_of_every_length_lie_where_they_belong() {
        let path = std::env::temp_dir().join(format!("sink-{}-holes", std::process::id()));
        let mut sink = FileSink::hashed(File::create(&path).unwrap());
        let mut expected: Vec<u8> = Vec::new();
        let content: Vec<u8> = (0..3 << 20).map(|i: u32| (i % 251) as u8 + 1).collect();
        let mut number = 1u64;
        let mut cached = false;
        while expected.len() < 40 << 20 {
            number = number.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            // As often long as short, and as often at a page's edge as not.
            let mut len = (number >> 33) >> (9 + number % 23);
            if number & (1 << 32) != 0 {
                len = (expected.len() as u64 + len).next_multiple_of(PAGE_SIZE)
                    - expected.len() as u64;
            }
            if number & (1 << 31) != 0 {
                sink.zeros(len).unwrap();
                expected.zeros(len).unwrap();
            } else {
                sink.data(&content[..len as usize]).unwrap();
                expected.data(&content[..len as usize]).unwrap();
            }
            if expected.len() > 30 << 20 && !cached {
                sink.cached().unwrap();
                cached = true;
            }
            assert_eq!(sink.position(), expected.position());
        }
        let (_, hash) = sink.finish(&[]).unwrap();
        let written = std::fs::read(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert!(written == expected);
        assert_eq!(hash.unwrap(), Blake3::of(&expected));
    }
}
