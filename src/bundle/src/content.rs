//! Hashes of the files of a bundle.

use std::fmt;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};

use anyhow::{Result, ensure};
use fsimage::budget::MAX_SPARSE;
use fsimage::digest::{Blake3, HASHED};
use fsimage::io::{hash, holes};
use serde::{Deserialize, Serialize};

use crate::names::INDEX;

/// The hash of a file's content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ContentHash {
    /// BLAKE3 of all bytes.
    Blake3(Blake3),
    /// For a file that is mostly holes, and may have terabytes of them. BLAKE3
    /// of its blocks of 4096 bytes that are not all zero, in order, each behind
    /// its number as 8 little-endian bytes.
    Blake3NonzeroBlocks(Blake3),
}

impl ContentHash {
    /// Compares the hash that was `found` with this one, which the index has.
    ///
    /// # Errors
    /// When the two differ in their kind or their hash.
    pub fn check(&self, found: &ContentHash) -> Result<()> {
        ensure!(found == self, "its content is not what {INDEX} says: the hash differs");
        Ok(())
    }

    /// Hashes `file`, and refuses it if its content is another.
    ///
    /// # Errors
    /// When the file has another hash, cannot be read, or has more holes than are hashed
    /// (see [`ContentHash::again`]).
    pub fn check_file(&self, file: &File) -> Result<()> {
        self.check(&self.again(file)?)
    }

    /// Bytes of the holes in `file` that are hashed like data by this kind of hash.
    ///
    /// # Errors
    /// When the host does not tell the file's length or where it has data and holes.
    pub fn holes(&self, file: &File) -> io::Result<u64> {
        let len = file.metadata()?.len();
        if matches!(self, Self::Blake3NonzeroBlocks(_)) {
            return Ok(0);
        }
        let data =
            holes::data(file, len, 1).map(|range| range.map(|range| range.end - range.start));
        Ok(len - data.sum::<io::Result<u64>>()?)
    }

    /// Hashes `file` as it is now, by the same kind of hash.
    ///
    /// # Errors
    /// When the file cannot be read, or, for [`ContentHash::Blake3`], when it has more than
    /// [`MAX_HOLES`] bytes of holes.
    pub fn again(&self, file: &File) -> io::Result<ContentHash> {
        match self {
            Self::Blake3(_) => {
                has_few_holes(file)?;
                Ok(Self::Blake3(hash::of_file_by_all(file)?))
            }
            Self::Blake3NonzeroBlocks(_) => nonzero_blocks(file),
        }
    }
}

/// The most bytes of holes in a file of which every byte is hashed. A build makes holes of
/// zeros in a layer, and its default limits allow no more of them; a file with terabytes was
/// made to keep a reader busy.
pub const MAX_HOLES: u64 = MAX_SPARSE;

/// Refuses a `file` with more than [`MAX_HOLES`] bytes of holes.
fn has_few_holes(file: &File) -> io::Result<()> {
    let metadata = file.metadata()?;
    let mut left = MAX_HOLES;
    // A quick test that most files pass. It cannot refuse a file: on file systems that
    // compress, what is not allocated need not be a hole.
    if metadata.len().saturating_sub(metadata.blocks().saturating_mul(512)) <= left {
        return Ok(());
    }
    let mut at = 0;
    let end = std::iter::once(Ok(metadata.len()..metadata.len()));
    for data in holes::data(file, metadata.len(), 1).chain(end) {
        let data = data?;
        left = left.checked_sub(data.start - at).ok_or_else(|| {
            let text = format!("it has more than {MAX_HOLES} bytes of holes, which are not hashed");
            io::Error::new(io::ErrorKind::InvalidData, text)
        })?;
        at = data.end;
    }
    Ok(())
}

const BLOCK: usize = 4096;

/// Computes [`ContentHash::Blake3NonzeroBlocks`] of a file that comes in order.
#[derive(Default)]
pub struct NonzeroBlocks {
    hasher: blake3::Hasher,
    /// Numbers and blocks that are collected to be hashed together.
    due: Vec<u8>,
    /// The bytes so far of a block that is not full.
    partial: Vec<u8>,
    /// The number of full blocks before it.
    blocks: u64,
}

/// Without the bytes.
impl fmt::Debug for NonzeroBlocks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NonzeroBlocks").field("blocks", &self.blocks).finish_non_exhaustive()
    }
}

impl NonzeroBlocks {
    /// Takes the next bytes of the file.
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

    /// Takes the next `len` bytes of the file, which are zeros.
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

    /// The hash of the whole file.
    pub fn finish(mut self) -> ContentHash {
        // Empty, unless the file was cut: an ext4 has whole blocks.
        let rest = std::mem::take(&mut self.partial);
        self.block(&rest);
        self.hasher.update(&self.due);
        ContentHash::Blake3NonzeroBlocks(self.hasher.finalize().into())
    }
}

/// [`ContentHash::Blake3NonzeroBlocks`] of `file`.
fn nonzero_blocks(file: &File) -> io::Result<ContentHash> {
    let mut hash = NonzeroBlocks::default();
    let mut buffer = vec![0; 256 * BLOCK];
    let mut at = 0;
    // Holes are skipped, which only saves reading them: blocks of zeros are not hashed anyway.
    for data in holes::data(file, file.metadata()?.len(), BLOCK as u64) {
        let Range { start, end } = data?;
        hash.zeros(start - at);
        at = start;
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
        let holes = ContentHash::Blake3(Blake3::of(b"")).holes(&file).unwrap();
        assert!(holes > (1 << 30) - (1 << 20) && holes < 1 << 30, "{holes}");
        assert_eq!(ContentHash::Blake3NonzeroBlocks(Blake3::of(b"")).holes(&file).unwrap(), 0);
        let mut block = [0; 4096];
        block[5] = b'x';
        let mut expected = blake3::Hasher::new();
        expected.update(&(1u64 << 17).to_le_bytes()).update(&block);
        let expected = ContentHash::Blake3NonzeroBlocks(expected.finalize().into());
        assert_eq!(hash(&[]), expected);
        assert_eq!(hash(&[0; 100_000]), expected);
        assert_ne!(hash(&[1]), expected);
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn terabytes_of_holes_are_not_hashed_byte_by_byte() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(4 << 40).unwrap();
        file.write_all_at(b"x", 2 << 40).unwrap();
        let error = ContentHash::Blake3(Blake3::of(b"")).again(&file).unwrap_err();
        assert!(error.to_string().contains("bytes of holes"), "{error}");
        assert!(ContentHash::Blake3NonzeroBlocks(Blake3::of(b"")).again(&file).is_ok());
    }
}
