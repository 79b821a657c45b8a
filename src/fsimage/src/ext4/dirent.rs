//! Directory blocks: entries one behind the other, and a checksum at the end.
//!
//! `struct ext4_dir_entry_2`: inode u32, rec_len u16, name_len u8, file_type
//! u8, name; the last entry of a block reaches up to the tail.

use super::disk::{BLOCK, Seed};
use crate::fields::FieldsMut;
use crate::tree::file_type::FileType;

const HEAD: usize = 8;
const TAIL: usize = 12;

/// A name in a directory.
pub(super) struct Dirent<'a> {
    pub name: &'a [u8],
    pub ino: u32,
    pub file_type: FileType,
}

fn rec_len(name: &[u8]) -> usize {
    (HEAD + name.len()).next_multiple_of(4)
}

/// How many blocks entries with these names fill.
pub(super) fn block_count<'n>(names: impl Iterator<Item = &'n [u8]>) -> usize {
    let (mut blocks, mut used) = (1, 0);
    for name in names {
        if used + rec_len(name) > BLOCK - TAIL {
            blocks += 1;
            used = 0;
        }
        used += rec_len(name);
    }
    blocks
}

/// The blocks of a directory; `seed` is its inode's.
pub(super) fn blocks(entries: &[Dirent<'_>], seed: Seed) -> Vec<u8> {
    let mut out = vec![0; block_count(entries.iter().map(|e| e.name)) * BLOCK];
    let mut rest = entries;
    for block in out.chunks_mut(BLOCK) {
        let (mut used, mut last) = (0, 0);
        while let Some((entry, others)) = rest.split_first() {
            let len = rec_len(entry.name);
            if used + len > BLOCK - TAIL {
                break;
            }
            let mut f = FieldsMut(block);
            f.u32(used, entry.ino);
            f.u16(used + 4, len as u16);
            f.u8(used + 6, entry.name.len() as u8);
            f.u8(used + 7, entry.file_type as u8);
            f.bytes(used + HEAD, entry.name);
            last = used;
            used += len;
            rest = others;
        }
        let mut f = FieldsMut(block);
        f.u16(last + 4, (BLOCK - TAIL - last) as u16);
        f.u16(BLOCK - TAIL + 4, TAIL as u16);
        f.u8(BLOCK - TAIL + 7, 0xde);
        let sum = seed.then(&block[..BLOCK - TAIL]).sum();
        FieldsMut(block).u32(BLOCK - 4, sum);
    }
    assert!(rest.is_empty(), "the count of blocks is that of the entries");
    out
}
