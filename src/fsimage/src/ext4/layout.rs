//! Which blocks belong to which inode, and how large a file system must be.

use std::ops::Range;

use super::disk::BLOCK;
use super::extent::{self, MAX_RUN, Run};
use super::geometry::{self, BLOCKS_PER_GROUP, Geometry};
use super::journal;
use super::nodes::Nodes;
use crate::ext4::error::Error;
use crate::ext4::limits::MAX_SIZE;

/// Proposed sizes are multiples of this many bytes.
const STEP: u64 = 1 << 20;

/// Where everything lies that belongs to an inode.
#[derive(Debug)]
pub(super) struct Place {
    /// Content, in the order of the file.
    pub runs: Vec<Run>,
    /// The extent tree's blocks outside of the inode.
    pub tree: Vec<u32>,
    /// The block of xattrs.
    pub xattrs: Option<u32>,
}

/// Where everything lies in a file system of a given size.
#[derive(Debug)]
pub(super) struct Blocks {
    pub geometry: Geometry,
    pub journal_blocks: u32,
    pub journal: Place,
    /// One for each node.
    pub places: Vec<Place>,
    /// Blocks taken in each group, the fixed ones included.
    pub used: Vec<u32>,
    /// Blocks that are left.
    pub free: u32,
}

impl Blocks {
    /// Lays `nodes` out in `size` bytes. An error says how many more it takes,
    /// at the least.
    pub(super) fn new(nodes: &Nodes, size: u64) -> Result<Self, u64> {
        let Some(geometry) = Geometry::new(size, nodes.last_ino()) else {
            let least = geometry::least_size(nodes.last_ino());
            return Err(least.saturating_sub(size).max(STEP));
        };
        let mut allocator = Allocator::new(&geometry);
        let journal_blocks = journal::blocks(geometry.blocks);
        let bytes = u64::from(journal_blocks) * BLOCK as u64;
        let journal = allocator.place(&[Range { start: 0, end: bytes }], false);
        let places = nodes.list.iter().map(|n| allocator.place(&n.data, n.xattrs.block.is_some()));
        let places = places.collect();
        if allocator.missing > 0 {
            return Err(allocator.missing.saturating_mul(BLOCK as u64));
        }
        let used = allocator.used;
        let free = (0..geometry.groups).map(|g| geometry.blocks_in(g) - used[g as usize]).sum();
        Ok(Self { geometry, journal_blocks, journal, places, used, free })
    }
}

/// A size from `size` on in which `nodes` leave `free` bytes, and where all lies there.
///
/// What is lacking is added again and again, as a larger file system has larger tables and at
/// some sizes a larger journal. Terminates because the size grows by [`STEP`] at least, up to
/// [`MAX_SIZE`].
pub(super) fn least(nodes: &Nodes, mut size: u64, free: u64) -> Result<(u64, Blocks), Error> {
    loop {
        let lack = match Blocks::new(nodes, size) {
            Ok(blocks) => match free.saturating_sub(u64::from(blocks.free) * BLOCK as u64) {
                0 => return Ok((size, blocks)),
                lack => lack,
            },
            Err(lack) => lack,
        };
        let larger = size.checked_add(lack).and_then(|size| size.checked_next_multiple_of(STEP));
        size = larger.filter(|size| *size <= MAX_SIZE).ok_or(Error::Large)?;
    }
}

/// Hands out blocks in ascending order, past the fixed parts.
struct Allocator {
    lens: Vec<u32>,
    used: Vec<u32>,
    group: usize,
    /// Blocks that did not fit.
    missing: u64,
}

impl Allocator {
    fn new(geometry: &Geometry) -> Self {
        let used = (0..geometry.groups).map(|g| geometry.fixed_blocks(g)).collect();
        let lens = (0..geometry.groups).map(|g| geometry.blocks_in(g)).collect();
        Self { used, lens, group: 0, missing: 0 }
    }

    /// Allocates `len` disk blocks for the file blocks `at..at + len`, and adds them to `runs`.
    fn take(&mut self, mut at: u32, mut len: u32, runs: &mut Vec<Run>) {
        let first = runs.len();
        while len > 0 {
            let Some(total) = self.lens.get(self.group) else {
                self.missing += u64::from(len);
                return;
            };
            let used = &mut self.used[self.group];
            let take = len.min(total - *used);
            if take > 0 {
                let start = self.group as u32 * BLOCKS_PER_GROUP + *used;
                match runs[first..].last_mut() {
                    Some(last) if last.start + last.len == start && last.len + take <= MAX_RUN => {
                        last.len += take;
                    }
                    _ => runs.push(Run { at, start, len: take }),
                }
                *used += take;
                at += take;
                len -= take;
            }
            if len > 0 {
                self.group += 1;
            }
        }
    }

    /// Blocks for ranges of bytes, for what maps them, and for xattrs.
    fn place(&mut self, data: &[Range<u64>], xattrs: bool) -> Place {
        let mut runs = Vec::new();
        for range in data {
            let (at, len) = blocks(range);
            self.take(at, len, &mut runs);
        }
        let mut more = Vec::new();
        self.take(0, extent::node_blocks(runs.len()) as u32, &mut more);
        let tree = more.drain(..).flat_map(|run| run.start..run.start + run.len).collect();
        if xattrs {
            self.take(0, 1, &mut more);
        }
        Place { runs, tree, xattrs: more.first().map(|run| run.start) }
    }
}

/// The first block of a range of a file, and how many there are: numbers of
/// 32 bits, as [`crate::ext4::limits::MAX_FILE`] sees to.
fn blocks(range: &Range<u64>) -> (u32, u32) {
    let first = range.start / BLOCK as u64;
    (first as u32, (range.end.div_ceil(BLOCK as u64) - first) as u32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ext4::limits::MIN_SIZE;
    use crate::tree::arena::Tree;
    use crate::tree::inode::{Inode, InodeId, Kind, Stat};
    use crate::tree::name::Name;
    use crate::tree::xattrs::Xattrs;

    const MIB: u64 = 1 << 20;

    struct Any(u64);

    impl crate::ext4::Content for Any {
        fn size(&self) -> u64 {
            self.0
        }

        fn data(&self) -> std::io::Result<Vec<Range<u64>>> {
            Ok(std::iter::once(0..self.0).collect())
        }

        fn copy(&self, _: Range<u64>, _: &mut dyn crate::io::sink::Sink) -> std::io::Result<()> {
            unreachable!("a layout asks for no bytes")
        }
    }

    fn tree(sizes: impl IntoIterator<Item = u64>) -> Tree<Any> {
        let mut tree = Tree::new(Stat::IMPLIED_DIR);
        for (i, size) in sizes.into_iter().enumerate() {
            let (xattrs, kind) = (Xattrs::default(), Kind::File(Any(size)));
            let id = tree.push(Inode { stat: Stat::IMPLIED_DIR, xattrs, kind }).unwrap();
            let name = Name::new(i.to_string().as_bytes()).unwrap();
            tree.dir_mut(InodeId::ROOT).unwrap().entries.insert(name, id);
        }
        tree
    }

    #[test]
    fn the_least_size_is_enough_and_no_more_than_that() {
        // Some are near the sizes at which the journal grows, some have more
        // inodes than usual.
        for (len, others) in [
            (30 * MIB, 0),
            (112 * MIB, 0),
            (119 * MIB, 3),
            (123 * MIB, 0),
            (990 * MIB, 0),
            (64_000 * MIB, 0),
            (130_000 * MIB, 0),
            (4 << 40, 0),
            (15 << 40, 0),
            (1, 40_000),
            (100 * MIB, 100_000),
            (1, 1_000_000),
        ] {
            let tree = tree((0..=others).map(|i| if i == 0 { len } else { 0 }));
            let nodes = Nodes::new(&tree).unwrap();
            let (least_size, _) = least(&nodes, MIN_SIZE, 0).unwrap();
            assert!(Blocks::new(&nodes, least_size).is_ok());
            assert!(
                Blocks::new(&nodes, least_size - MIB).is_err(),
                "{len} and {others}: {least_size}"
            );

            let free = 512 << 20;
            let (size, blocks) = least(&nodes, MIN_SIZE, free).unwrap();
            let left = u64::from(blocks.free) * BLOCK as u64;
            // So many inodes may want a size that leaves more.
            let little = size == least_size || left < free + 2 * MIB;
            assert!(left >= free && little, "{len} and {others}: {left}");
        }
    }

    #[test]
    fn what_16_tib_cannot_hold_has_no_least_size() {
        let large = |tree: &Tree<Any>, free| {
            let found = least(&Nodes::new(tree).unwrap(), MIN_SIZE, free);
            matches!(found, Err(Error::Large))
        };
        let max = crate::ext4::limits::MAX_FILE;
        assert!(large(&tree([max]), 0));
        assert!(large(&tree([max; 3]), 0));
        assert!(large(&tree([]), u64::MAX));
        assert!(!large(&tree([1 << 40; 15]), 0));
    }
}
