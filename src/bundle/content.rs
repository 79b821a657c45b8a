//! What a file of a bundle holds, as a hash.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

use rustix::fs::SeekFrom;
use serde::{Deserialize, Serialize};

use crate::map;

/// A file's hash, as 64 hex digits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Content {
    /// BLAKE3 of all bytes.
    Blake3(String),
    /// For a file that is mostly holes, and may have terabytes of them. BLAKE3
    /// of its blocks of 4096 bytes that are not all zero, in order, each behind
    /// its number as 8 little-endian bytes.
    Blake3NonzeroBlocks(String),
}

impl Content {
    /// The hash of `file`'s present content, of the same kind.
    pub fn again(&self, file: &File) -> io::Result<Content> {
        match self {
            Self::Blake3(_) => {
                let mut hasher = blake3::Hasher::new();
                hasher.update_rayon(&map::file(file)?);
                Ok(Self::Blake3(hasher.finalize().to_hex().to_string()))
            }
            Self::Blake3NonzeroBlocks(_) => nonzero_blocks(file),
        }
    }
}

const BLOCK: usize = 4096;

/// [`Content::Blake3NonzeroBlocks`] of a file whose length is whole blocks.
pub fn nonzero_blocks(file: &File) -> io::Result<Content> {
    let len = file.metadata()?.len();
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; 256 * BLOCK];
    let mut at = 0;
    while at < len {
        // The host's holes only save reading them: zeros count for nothing anyway.
        at = match rustix::fs::seek(file, SeekFrom::Data(at)) {
            Ok(data) => data - data % BLOCK as u64,
            Err(rustix::io::Errno::NXIO) => break,
            Err(error) => return Err(error.into()),
        };
        let hole = rustix::fs::seek(file, SeekFrom::Hole(at))?.next_multiple_of(BLOCK as u64);
        let end = hole.min(len.next_multiple_of(BLOCK as u64));
        while at < end {
            let want = (end - at).min(buffer.len() as u64) as usize;
            let want = want.min((len - at).min(usize::MAX as u64) as usize);
            file.read_exact_at(&mut buffer[..want], at)?;
            for block in buffer[..want].chunks(BLOCK) {
                if block.iter().any(|b| *b != 0) {
                    hasher.update(&(at / BLOCK as u64).to_le_bytes()).update(block);
                }
                at += block.len() as u64;
            }
        }
    }
    Ok(Content::Blake3NonzeroBlocks(hasher.finalize().to_hex().to_string()))
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
        let mut block = [0; 4096];
        block[5] = b'x';
        let mut expected = blake3::Hasher::new();
        expected.update(&(1u64 << 17).to_le_bytes()).update(&block);
        let expected = Content::Blake3NonzeroBlocks(expected.finalize().to_hex().to_string());
        assert_eq!(hash(&[]), expected);
        assert_eq!(hash(&[0; 100_000]), expected);
        assert_ne!(hash(&[1]), expected);
        std::fs::remove_file(path).unwrap();
    }
}
