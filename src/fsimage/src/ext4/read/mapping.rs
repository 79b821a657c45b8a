//! Which blocks of the disk hold a file: an extent tree, or ext2's block map.
//!
//! Facts: `fs/ext4/ext4_extents.h` and `fs/ext4/indirect.c`.

use rustc_hash::FxHashSet;

use super::inode::{RawInode, has_extents};
use crate::ext4::disk::{I_BLOCK, Seed};
use crate::ext4::extent::MAX_RUN;
use crate::ext4::read::error::{Result, bad};
use crate::ext4::read::reader::Reader;
use crate::fields::Fields;

const MAGIC: u16 = 0xf30a;
const ENTRY: usize = 12;
/// `EXT4_MAX_EXTENT_DEPTH`: so deep a tree has an entry for every block of any file.
const MAX_DEPTH: u16 = 5;
/// Blocks that an inode names itself, without an indirect block.
const DIRECT: usize = 12;

/// Weight of a run, or of a block that holds runs, while it is kept and mapped again.
/// The first run of an inode is part of the inode's own weight.
const RUN: u64 = 72;

/// Neighbouring blocks of the disk that hold neighbouring blocks of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// The first of the file's blocks.
    pub file_block: u64,
    /// The first of the disk's.
    pub start: u64,
    /// How many blocks there are.
    pub len: u64,
}

/// All blocks of one inode.
#[derive(Debug, Default)]
pub(super) struct Mapping {
    /// What was written, in the order of the file.
    pub runs: Vec<Run>,
    /// What is reserved and reads as zeros.
    pub unwritten: Vec<Run>,
    /// The blocks that hold the mapping itself, and how far each is above the
    /// leaves, in the order of the file.
    pub nodes: Vec<(u16, u64)>,
}

impl Mapping {
    /// All blocks that the inode has, its block of xattrs aside.
    pub(super) fn blocks(&self) -> u64 {
        let data: u64 = self.runs.iter().chain(&self.unwritten).map(|run| run.len).sum();
        data + self.nodes.len() as u64
    }
}

impl Reader<'_> {
    /// The mapping of an inode that has one: no device, no inline content.
    pub(super) fn mapping(&self, inode: &RawInode) -> Result<Mapping> {
        let mut mapping = Mapping::default();
        if has_extents(inode) {
            let root = inode.i_block();
            let depth = Fields(root).u16(6);
            if depth > MAX_DEPTH {
                return Err(bad(inode.ino, format!("its extent tree has depth {depth}")));
            }
            let walk = MappingWalk { reader: self, ino: inode.ino, seed: inode.seed };
            walk.node(root, depth, 0..1 << 32, &mut mapping)?;
        } else {
            BlockMap { reader: self, ino: inode.ino, seen: FxHashSet::default() }
                .all(inode.i_block(), &mut mapping)?;
        }
        Ok(mapping)
    }

    /// Refuses blocks that the file system does not have.
    fn bounds(&self, ino: u32, start: u64, len: u64) -> Result<()> {
        let superblock = &self.superblock;
        if start <= superblock.first_data_block.into() || start + len > superblock.blocks_count {
            let text = format!("it names block {start} and {len} in all, outside the file system");
            return Err(bad(ino, text));
        }
        Ok(())
    }
}

struct MappingWalk<'r> {
    reader: &'r Reader<'r>,
    ino: u32,
    seed: Seed,
}

impl MappingWalk<'_> {
    /// Adds what the node `bytes` maps, all of it within `range` of the file's blocks.
    ///
    /// Terminates because every node below the root has an entry, entries ascend,
    /// and all of a node's lie in the range that its parent has for it: a block
    /// that two entries lead to fails the second time.
    fn node(
        &self,
        bytes: &[u8],
        depth: u16,
        range: std::ops::Range<u64>,
        mapping: &mut Mapping,
    ) -> Result<()> {
        let f = Fields(bytes);
        let fail = |what: String| Err(bad(self.ino, format!("its extent tree {what}")));
        let (magic, count, max, told) = (f.u16(0), f.u16(2), f.u16(4), f.u16(6));
        let room = bytes.len() / ENTRY - 1;
        if magic != MAGIC || told != depth || count > max || usize::from(max) > room {
            return fail(format!(
                "has a node with magic {magic:#06x}, {count} of {max} entries and depth {told}, \
                 where depth {depth} belongs"
            ));
        }
        let is_root = bytes.len() == I_BLOCK;
        if count == 0 && !(is_root && depth == 0) {
            return fail("has a node without entries".into());
        }
        let mut next = range.start;
        for i in 1..=usize::from(count) {
            let at = i * ENTRY;
            let first = u64::from(f.u32(at));
            if first < next || first >= range.end {
                return fail(format!("is out of order at the file's block {first}"));
            }
            if depth == 0 {
                next = self.leaf(first, Fields(&bytes[at..at + ENTRY]), range.end, mapping)?;
                continue;
            }
            let is_last = i == usize::from(count);
            let end = if is_last { range.end } else { f.u32(at + ENTRY).into() };
            if end <= first {
                return fail(format!("is out of order at the file's block {end}"));
            }
            let block = u64::from(f.u32(at + 4)) | u64::from(f.u16(at + 8)) << 32;
            self.child(block, depth - 1, first..end, mapping)?;
            next = end;
        }
        Ok(())
    }

    /// The run of the leaf entry `f`; returns where it ends in the file.
    fn leaf(&self, first: u64, f: Fields<'_>, end: u64, mapping: &mut Mapping) -> Result<u64> {
        let start = u64::from(f.u32(8)) | u64::from(f.u16(6)) << 32;
        let told = u32::from(f.u16(4));
        let written = told <= MAX_RUN;
        let len = u64::from(if written { told } else { told - MAX_RUN });
        if len == 0 || first + len > end {
            let text =
                format!("its extent of {len} blocks at the file's block {first} does not fit");
            return Err(bad(self.ino, text));
        }
        self.reader.bounds(self.ino, start, len)?;
        let run = Run { file_block: first, start, len };
        let runs = if written { &mut mapping.runs } else { &mut mapping.unwritten };
        if !runs.is_empty() {
            self.reader.keep(self.ino, RUN)?;
        }
        runs.push(run);
        Ok(first + len)
    }

    fn child(
        &self,
        block: u64,
        depth: u16,
        range: std::ops::Range<u64>,
        mapping: &mut Mapping,
    ) -> Result<()> {
        self.reader.bounds(self.ino, block, 1)?;
        let bytes = self.reader.block(block)?;
        let f = Fields(&bytes);
        // The checksum lies behind the last place for an entry.
        let tail = (usize::from(f.u16(4)) + 1) * ENTRY;
        if self.reader.superblock.has_metadata_csum() {
            let told = bytes.get(tail..tail + 4).map(|sum| Fields(sum).u32(0));
            let found = bytes.get(..tail).map(|bytes| self.seed.then(bytes).sum());
            if told.is_none() || told != found {
                let text = format!("the checksum of its extent tree's block {block} is wrong");
                return Err(bad(self.ino, text));
            }
        }
        if u64::from(f.u32(ENTRY)) != range.start {
            let text =
                format!("its extent tree's block {block} does not begin where it is said to");
            return Err(bad(self.ino, text));
        }
        self.reader.keep(self.ino, RUN)?;
        mapping.nodes.push((depth, block));
        self.node(&bytes, depth, range, mapping)
    }
}

/// ext2's way: numbers of blocks, and blocks of such numbers, up to three deep.
struct BlockMap<'r> {
    reader: &'r Reader<'r>,
    ino: u32,
    /// Indirect blocks that were met. Terminates because none is read twice.
    seen: FxHashSet<u64>,
}

impl BlockMap<'_> {
    fn all(mut self, root: &[u8; I_BLOCK], mapping: &mut Mapping) -> Result<()> {
        let mut next = 0;
        for i in 0..I_BLOCK / 4 {
            let depth = i.saturating_sub(DIRECT - 1) as u16;
            next = self.add(Fields(root).u32(i * 4).into(), depth, next, mapping)?;
        }
        Ok(())
    }

    /// Adds what `block` holds, `depth` blocks of numbers above the content, from
    /// the file's block `next` on. Returns which block of the file follows.
    fn add(&mut self, block: u64, depth: u16, next: u64, mapping: &mut Mapping) -> Result<u64> {
        let per_block = self.reader.superblock.block_size as u64 / 4;
        let end = next + per_block.pow(depth.into());
        if block == 0 {
            return Ok(end);
        }
        self.reader.bounds(self.ino, block, 1)?;
        if depth == 0 {
            match mapping.runs.last_mut() {
                Some(last)
                    if last.file_block + last.len == next && last.start + last.len == block =>
                {
                    last.len += 1;
                }
                last => {
                    if last.is_some() {
                        self.reader.keep(self.ino, RUN)?;
                    }
                    mapping.runs.push(Run { file_block: next, start: block, len: 1 });
                }
            }
            return Ok(end);
        }
        if !self.seen.insert(block) {
            return Err(bad(self.ino, format!("it names block {block} twice")));
        }
        self.reader.keep(self.ino, RUN)?;
        mapping.nodes.push((depth - 1, block));
        let bytes = self.reader.block(block)?;
        let mut at = next;
        for number in bytes.chunks_exact(4) {
            at = self.add(Fields(number).u32(0).into(), depth - 1, at, mapping)?;
        }
        Ok(end)
    }
}
