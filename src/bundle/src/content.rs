//! What a file of a bundle holds, as a hash.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};

use anyhow::{Result, ensure};
use fsimage::budget::MAX_SPARSE;
use fsimage::digest::{Blake3, HASHED};
use fsimage::io::hash;
use rustix::fs::SeekFrom;
use serde::{Deserialize, Serialize};

use crate::names::INDEX;

/// A file's hash, and what it is taken of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Content {
    /// BLAKE3 of all bytes.
    Blake3(Blake3),
    /// For a file that is mostly holes, and may have terabytes of them. BLAKE3
    /// of its blocks of 4096 bytes that are not all zero, in order, each behind
    /// its number as 8 little-endian bytes.
    Blake3NonzeroBlocks(Blake3),
}

impl Content {
    /// Refuses a content that is `found` and should be this one, of the index.
    ///
    /// # Errors
    /// When the two differ in their kind or their hash.
    pub fn check(&self, found: &Content) -> Result<()> {
        ensure!(found == self, "its content is not what {INDEX} says: the hash differs");
        Ok(())
    }

    /// Refuses `file` if it holds anything else.
    ///
    /// # Errors
    /// When the file has another hash, cannot be read, or has more holes than are hashed
    /// (see [`Content::again`]).
    pub fn check_file(&self, file: &File) -> Result<()> {
        self.check(&self.again(file)?)
    }

    /// Bytes of holes of `file` that this hash counts as it counts data.
    ///
    /// # Errors
    /// When the host does not tell the file's length or where it has data and holes.
    pub fn holes(&self, file: &File) -> io::Result<u64> {
        let len = file.metadata()?.len();
        if matches!(self, Self::Blake3NonzeroBlocks(_)) {
            return Ok(0);
        }
        let (mut at, mut holes) = (0, 0);
        while at < len {
            let data = match rustix::fs::seek(file, SeekFrom::Data(at)) {
                Ok(data) => data,
                Err(rustix::io::Errno::NXIO) => len,
                Err(error) => return Err(error.into()),
            };
            holes += data - at;
            if data >= len {
                break;
            }
            at = rustix::fs::seek(file, SeekFrom::Hole(data))?;
        }
        Ok(holes)
    }

    /// The hash of `file`'s present content, of the same kind.
    ///
    /// # Errors
    /// When the file cannot be read, or, for [`Content::Blake3`], when it has more than
    /// [`MAX_HOLES`] bytes of holes.
    pub fn again(&self, file: &File) -> io::Result<Content> {
        match self {
            Self::Blake3(_) => {
                has_few_holes(file)?;
                Ok(Self::Blake3(hash::of_file_by_all(file)?))
            }
            Self::Blake3NonzeroBlocks(_) => nonzero_blocks(file),
        }
    }
}

/// Bytes of holes that a file may have of which every byte is hashed. A build makes a
/// hole of what a layer has as zeros, of which its default limits allow no more; what
/// has terabytes was made to keep a reader busy.
pub const MAX_HOLES: u64 = MAX_SPARSE;

fn has_few_holes(file: &File) -> io::Result<()> {
    let metadata = file.metadata()?;
    let len = metadata.len();
    // Some file systems compress: what is not allocated need not be a hole.
    if len.saturating_sub(metadata.blocks().saturating_mul(512)) <= MAX_HOLES {
        return Ok(());
    }
    let mut holes = 0u64;
    let mut at = 0;
    while at < len {
        let data = match rustix::fs::seek(file, SeekFrom::Data(at)) {
            Ok(data) => data.min(len),
            Err(rustix::io::Errno::NXIO) => len,
            Err(error) => return Err(error.into()),
        };
        holes = holes.saturating_add(data - at);
        if holes > MAX_HOLES {
            let text = format!("it has more than {MAX_HOLES} bytes of holes, which are not hashed");
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        if data == len {
            break;
        }
        at = rustix::fs::seek(file, SeekFrom::Hole(data))?;
    }
    Ok(())
}

const BLOCK: usize = 4096;

/// [`Content::Blake3NonzeroBlocks`] of a file from its first byte to its last.
#[derive(Default)]
pub struct NonzeroBlocks {
    hasher: blake3::Hasher,
    /// What is to be hashed next.
    due: Vec<u8>,
    /// What came of a block that is not full.
    partial: Vec<u8>,
    /// Blocks before it.
    blocks: u64,
}

impl NonzeroBlocks {
    /// The bytes that come next.
    pub fn data(&mut self, mut bytes: &[u8]) {
        if !self.partial.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(BLOCK - self.partial.len()));
            self.partial.extend_from_slice(now);
            if self.partial.len() < BLOCK {
                return;
            }
            let mut full = std::mem::take(&mut self.partial);
            self.block(&full);
            full.clear();
            self.partial = full;
            bytes = later;
        }
        let mut blocks = bytes.chunks_exact(BLOCK);
        blocks.by_ref().for_each(|block| self.block(block));
        self.partial.extend_from_slice(blocks.remainder());
    }

    /// `len` zeros come next.
    pub fn zeros(&mut self, len: u64) {
        let open = (BLOCK - self.partial.len()) as u64 % BLOCK as u64;
        self.data(&[0; BLOCK][..open.min(len) as usize]);
        let rest = len.saturating_sub(open);
        self.blocks += rest / BLOCK as u64;
        self.data(&[0; BLOCK][..(rest % BLOCK as u64) as usize]);
    }

    fn block(&mut self, block: &[u8]) {
        if block.iter().any(|b| *b != 0) {
            self.due.extend_from_slice(&self.blocks.to_le_bytes());
            self.due.extend_from_slice(block);
            if self.due.len() >= HASHED {
                self.hasher.update(&self.due[..HASHED]);
                self.due.drain(..HASHED);
            }
        }
        self.blocks += 1;
    }

    /// The hash of all that came.
    pub fn finish(mut self) -> Content {
        // Of a file that someone cut.
        let rest = std::mem::take(&mut self.partial);
        self.block(&rest);
        self.hasher.update(&self.due);
        Content::Blake3NonzeroBlocks(self.hasher.finalize().into())
    }
}

/// [`Content::Blake3NonzeroBlocks`] of `file`.
fn nonzero_blocks(file: &File) -> io::Result<Content> {
    nonzero_blocks_by(file, |to| rustix::fs::seek(file, to))
}

/// As [`nonzero_blocks`]; `seek` tells where the host has data and holes.
fn nonzero_blocks_by(
    file: &File,
    seek: impl Fn(SeekFrom) -> rustix::io::Result<u64>,
) -> io::Result<Content> {
    let len = file.metadata()?.len();
    let mut hash = NonzeroBlocks::default();
    let mut buffer = vec![0; 256 * BLOCK];
    let mut at = 0;
    while at < len {
        // The host's holes only save reading them: zeros count for nothing anyway.
        let data = match seek(SeekFrom::Data(at)) {
            Ok(data) => data,
            Err(rustix::io::Errno::NXIO) => break,
            Err(error) => return Err(error.into()),
        };
        // The host's blocks may be smaller: the hole is looked for behind the data, and
        // not behind the start of their block, which may be a hole itself.
        let hole = seek(SeekFrom::Hole(data))?;
        let start = data - data % BLOCK as u64;
        hash.zeros(start - at);
        at = start;
        let end = hole.next_multiple_of(BLOCK as u64).min(len);
        while at < end {
            let want = (end - at).min(buffer.len() as u64) as usize;
            file.read_exact_at(&mut buffer[..want], at)?;
            hash.data(&buffer[..want]);
            at += want as u64;
        }
    }
    Ok(hash.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holes_and_written_zeros_are_the_same() {
        let path = std::env::temp_dir().join(format!("content-{}", std::process::id()));
        let hash = |zeros: &[u8]| {
            let file = File::options()
                .read(true)
                .write(true)
                .create(true)
                .truncate(true)
                .open(&path)
                .unwrap();
            file.set_len(1 << 30).unwrap();
            file.write_all_at(zeros, 8192).unwrap();
            file.write_all_at(b"x", (1 << 29) + 5).unwrap();
            nonzero_blocks(&file).unwrap()
        };
        let file = tempfile::tempfile().unwrap();
        file.set_len(1 << 30).unwrap();
        file.write_all_at(b"x", 1 << 20).unwrap();
        let holes = Content::Blake3(Blake3::of(b"")).holes(&file).unwrap();
        assert!(holes > (1 << 30) - (1 << 20) && holes < 1 << 30, "{holes}");
        assert_eq!(Content::Blake3NonzeroBlocks(Blake3::of(b"")).holes(&file).unwrap(), 0);
        let mut block = [0; 4096];
        block[5] = b'x';
        let mut expected = blake3::Hasher::new();
        expected.update(&(1u64 << 17).to_le_bytes()).update(&block);
        let expected = Content::Blake3NonzeroBlocks(expected.finalize().into());
        assert_eq!(hash(&[]), expected);
        assert_eq!(hash(&[0; 100_000]), expected);
        assert_ne!(hash(&[1]), expected);
        std::fs::remove_file(path).unwrap();
    }

    /// A host whose blocks are smaller, and of which the first is a hole.
    #[test]
    fn a_hole_may_end_within_a_block() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(3 * BLOCK as u64).unwrap();
        file.write_all_at(b"x", 1024).unwrap();
        let steps = std::cell::Cell::new(0);
        let seek = |to: SeekFrom| {
            steps.set(steps.get() + 1);
            match to {
                _ if steps.get() > 10 => Err(rustix::io::Errno::TIMEDOUT),
                SeekFrom::Data(at @ 0..2048) => Ok(at.max(1024)),
                SeekFrom::Hole(1024..2048) => Ok(2048),
                SeekFrom::Hole(at) => Ok(at),
                _ => Err(rustix::io::Errno::NXIO),
            }
        };
        let found = nonzero_blocks_by(&file, seek).unwrap();
        assert_eq!(found, nonzero_blocks(&file).unwrap());
    }

    #[test]
    fn terabytes_of_holes_are_not_hashed_byte_by_byte() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(4 << 40).unwrap();
        file.write_all_at(b"x", 2 << 40).unwrap();
        let error = Content::Blake3(Blake3::of(b"")).again(&file).unwrap_err();
        assert!(error.to_string().contains("bytes of holes"), "{error}");
        assert!(Content::Blake3NonzeroBlocks(Blake3::of(b"")).again(&file).is_ok());
    }
}
