//! The tree that maps a file's blocks to the disk's.
//!
//! Nodes are a 12-byte header and 12-byte entries (`ext4_extents.h`). The root
//! lies in the inode and holds four; a block holds 340 and ends in a checksum.

use super::disk::{BLOCK, I_BLOCK, Seed};
use crate::fields::FieldsMut;

/// Neighbouring blocks of the disk that hold neighbouring blocks of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Run {
    /// The first of the file's blocks.
    pub at: u32,
    /// The first of the disk's.
    pub start: u32,
    pub len: u32,
}

/// The longest run that one entry can name: more would mean "not written yet".
pub(super) const MAX_RUN: u32 = 32_768;

const ENTRY: usize = 12;
const ROOT_ENTRIES: usize = I_BLOCK / ENTRY - 1;
const BLOCK_ENTRIES: usize = (BLOCK - ENTRY) / ENTRY;

/// How many blocks the tree takes outside of the inode for `runs` runs.
pub(super) fn node_blocks(runs: usize) -> usize {
    let mut total = 0;
    let mut level = runs;
    while level > ROOT_ENTRIES {
        level = level.div_ceil(BLOCK_ENTRIES);
        total += level;
    }
    total
}

/// The root for the inode, and the blocks that go to `addresses`, one each.
///
/// `runs` ascend in the file, with holes between them, and `addresses` are
/// [`node_blocks`] many. `seed` is the inode's.
pub(super) fn tree(
    runs: &[Run],
    addresses: &[u32],
    seed: Seed,
) -> ([u8; I_BLOCK], Vec<[u8; BLOCK]>) {
    let entry = |run: &Run| ExtentEntry { file_block: run.at, body: leaf(run) };
    let mut level: Vec<ExtentEntry> = runs.iter().map(entry).collect();
    let mut blocks = Vec::with_capacity(addresses.len());
    let mut depth = 0;
    while level.len() > ROOT_ENTRIES {
        let mut above = Vec::new();
        for part in level.chunks(BLOCK_ENTRIES) {
            let mut block = [0; BLOCK];
            let tail = BLOCK_ENTRIES * ENTRY + ENTRY;
            node(&mut block[..tail], part, depth);
            let sum = seed.then(&block[..tail]).sum();
            FieldsMut(&mut block).u32(tail, sum);
            above.push(ExtentEntry {
                file_block: part[0].file_block,
                body: index(addresses[blocks.len()]),
            });
            blocks.push(block);
        }
        level = above;
        depth += 1;
    }
    let mut root = [0; I_BLOCK];
    node(&mut root, &level, depth);
    (root, blocks)
}

struct ExtentEntry {
    file_block: u32,
    /// What follows it in `struct ext4_extent` or `struct ext4_extent_idx`.
    body: [u8; 8],
}

fn leaf(run: &Run) -> [u8; 8] {
    let mut body = [0; 8];
    let mut f = FieldsMut(&mut body);
    f.u16(0, run.len as u16); // ee_len; then ee_start_hi, which is 0
    f.u32(4, run.start); // ee_start_lo
    body
}

fn index(address: u32) -> [u8; 8] {
    let mut body = [0; 8];
    FieldsMut(&mut body).u32(0, address); // ei_leaf_lo; then ei_leaf_hi, which is 0
    body
}

/// Fills `out`, whose length says how many entries there could be.
fn node(out: &mut [u8], entries: &[ExtentEntry], depth: u16) {
    let max = out.len() / ENTRY - 1;
    let mut f = FieldsMut(out);
    f.u16(0, 0xf30a); // eh_magic
    f.u16(2, entries.len() as u16);
    f.u16(4, max as u16);
    f.u16(6, depth);
    for (i, entry) in entries.iter().enumerate() {
        let at = ENTRY * (1 + i);
        f.u32(at, entry.file_block);
        f.bytes(at + 4, &entry.body);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tree_deepens_as_the_runs_grow_in_number() {
        assert_eq!([0, 4, 5, 340, 341, 1360].map(node_blocks), [0, 0, 1, 1, 2, 4]);
        assert_eq!(node_blocks(1361), 5 + 1);
        for runs in [0, 1, 4, 5, 341, 1361, 500_000] {
            let list = vec![Run { at: 0, start: 7, len: 1 }; runs];
            let addresses: Vec<u32> = (0..node_blocks(runs) as u32).collect();
            let (root, blocks) = tree(&list, &addresses, Seed::of_file_system(&[0; 16]));
            assert_eq!(blocks.len(), addresses.len());
            assert!(root[2] <= 4);
        }
    }
}
