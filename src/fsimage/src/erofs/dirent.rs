//! Directory blocks.
//!
//! A block holds its entries' fixed parts, then their names; the first entry's
//! `nameoff` tells how many there are. Names ascend by their bytes within a
//! block and from block to block, `.` and `..` among them.

use super::disk::{DIRENT_SIZE, DiskDirent};
use crate::tree::file_type::FileType;
use crate::units::BLOCK_SIZE;

/// A name in a directory, and where it leads.
pub(super) struct Dirent<'a> {
    pub name: &'a [u8],
    pub nid: u64,
    pub file_type: FileType,
}

/// How many entries fill each block, and how many bytes of the last block are used. `lens` has the
/// lengths of the names in their order.
pub(super) fn split(lens: impl Iterator<Item = usize>) -> (Vec<usize>, u64) {
    let (mut counts, mut count, mut used) = (Vec::new(), 0, 0);
    for len in lens {
        let size = DIRENT_SIZE + len;
        if used + size > BLOCK_SIZE as usize {
            counts.push(count);
            (count, used) = (0, 0);
        }
        count += 1;
        used += size;
    }
    counts.push(count);
    (counts, used as u64)
}

/// Appends one block with `entries`, not padded.
pub(super) fn encode_block(entries: &[Dirent<'_>], out: &mut Vec<u8>) {
    let mut nameoff = entries.len() * DIRENT_SIZE;
    for entry in entries {
        // At most a block, which `split` saw to.
        let dirent = DiskDirent {
            nid: entry.nid,
            nameoff: nameoff as u16,
            file_type: entry.file_type as u8,
        };
        dirent.encode(out);
        nameoff += entry.name.len();
    }
    for entry in entries {
        out.extend_from_slice(entry.name);
    }
}
