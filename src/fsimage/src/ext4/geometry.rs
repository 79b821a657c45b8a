//! Where the fixed parts of a file system of a given size lie.
//!
//! Every block group begins with what is fixed in it, and nothing else is:
//! a copy of superblock and descriptors in some groups (`sparse_super`), then,
//! in the first group of each flex group, block bitmaps, inode bitmaps and
//! inode tables of all groups of the flex group, in this order.

use super::disk::{BLOCK, DESC_SIZE, FIRST_INO, INODE_SIZE, LOG_GROUPS_PER_FLEX};
use crate::units::PAGE_SIZE;

/// One block of bitmap has a bit for each.
pub(super) const BLOCKS_PER_GROUP: u32 = 8 * BLOCK as u32;

pub(super) const GROUPS_PER_FLEX: u32 = 1 << LOG_GROUPS_PER_FLEX;

const INODES_PER_BLOCK: u32 = (BLOCK / INODE_SIZE) as u32;

const DESCS_PER_BLOCK: u32 = (BLOCK / DESC_SIZE) as u32;

/// Blocks of descriptors at 16 TiB, where there are most.
const MAX_GDT: u32 = (1 << 17) / DESCS_PER_BLOCK;

/// So many inodes per group that the tables of a flex group still fit into
/// its first group, behind the largest copy of the descriptors.
const MAX_INODES_PER_GROUP: u32 =
    ((BLOCKS_PER_GROUP - 1 - MAX_GDT) / GROUPS_PER_FLEX - 2) * INODES_PER_BLOCK;

/// The shape of one file system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Geometry {
    /// Blocks of the file system. The image may be a little longer.
    pub blocks: u32,
    pub groups: u32,
    pub inodes_per_group: u32,
    /// Blocks that one copy of the descriptors takes.
    pub gdt_blocks: u32,
}

impl Geometry {
    /// The file system for an image of `size` bytes, of which the numbers up to
    /// `last_ino` will be taken. `None` when it cannot have so many inodes.
    pub(super) fn new(size: u64, last_ino: u32) -> Option<Self> {
        // 2³² blocks are one more than s_blocks_count can say, so an image of
        // 16 TiB leaves its last block alone.
        let blocks = u32::try_from(size / PAGE_SIZE).unwrap_or(u32::MAX);
        let mut geometry = Self::of_blocks(blocks, size, last_ino)?;
        // A last group that is too small for its fixed part is omitted.
        let last = geometry.groups - 1;
        if last > 0 && geometry.blocks_in(last) <= geometry.fixed_blocks(last) {
            geometry = Self::of_blocks(geometry.first_block(last), size, last_ino)?;
        }
        Some(geometry)
    }

    fn of_blocks(blocks: u32, size: u64, last_ino: u32) -> Option<Self> {
        let groups = blocks.div_ceil(BLOCKS_PER_GROUP);
        let usual = size / bytes_per_inode(size);
        // However many the tree takes, half of the usual number stays free.
        let wanted = usual.max(u64::from(last_ino) + usual / 2);
        let per_group = wanted
            .div_ceil(u64::from(groups))
            .next_multiple_of(u64::from(INODES_PER_BLOCK))
            .min(u64::from(MAX_INODES_PER_GROUP)) as u32;
        let enough = u64::from(per_group) * u64::from(groups) >= u64::from(last_ino);
        enough.then_some(Self {
            blocks,
            groups,
            inodes_per_group: per_group,
            gdt_blocks: groups.div_ceil(DESCS_PER_BLOCK),
        })
    }

    pub(super) fn inodes(&self) -> u32 {
        // At most 2¹⁷ groups of fewer than 2¹⁵ inodes.
        self.groups * self.inodes_per_group
    }

    /// Blocks of one group's inode table.
    pub(super) fn table_blocks(&self) -> u32 {
        self.inodes_per_group / INODES_PER_BLOCK
    }

    pub(super) fn first_block(&self, group: u32) -> u32 {
        group * BLOCKS_PER_GROUP
    }

    /// Blocks of `group`: fewer than [`BLOCKS_PER_GROUP`] in the last one.
    pub(super) fn blocks_in(&self, group: u32) -> u32 {
        (self.blocks - self.first_block(group)).min(BLOCKS_PER_GROUP)
    }

    /// Whether `group` has a copy of the superblock and the descriptors.
    pub(super) fn has_super(&self, group: u32) -> bool {
        group <= 1 || [3, 5, 7].into_iter().any(|base| is_power(group, base))
    }

    /// Blocks of such a copy in `group`.
    pub(super) fn super_blocks(&self, group: u32) -> u32 {
        if self.has_super(group) { 1 + self.gdt_blocks } else { 0 }
    }

    /// Whether the bitmaps and tables of a flex group lie in `group`.
    pub(super) fn leads_flex(&self, group: u32) -> bool {
        group.is_multiple_of(GROUPS_PER_FLEX)
    }

    /// How many groups the flex group has that `group` leads.
    pub(super) fn groups_in_flex(&self, group: u32) -> u32 {
        (self.groups - group).min(GROUPS_PER_FLEX)
    }

    /// Blocks at the start of `group` that no file can have.
    pub(super) fn fixed_blocks(&self, group: u32) -> u32 {
        let flex = if self.leads_flex(group) {
            self.groups_in_flex(group) * (2 + self.table_blocks())
        } else {
            0
        };
        self.super_blocks(group) + flex
    }

    /// Where the first bitmap is of the flex group that `group` belongs to.
    fn flex_start(&self, group: u32) -> (u32, u32) {
        let leader = group - group % GROUPS_PER_FLEX;
        (leader, self.first_block(leader) + self.super_blocks(leader))
    }

    pub(super) fn block_bitmap(&self, group: u32) -> u32 {
        let (leader, start) = self.flex_start(group);
        start + (group - leader)
    }

    pub(super) fn inode_bitmap(&self, group: u32) -> u32 {
        let (leader, start) = self.flex_start(group);
        start + self.groups_in_flex(leader) + (group - leader)
    }

    pub(super) fn inode_table(&self, group: u32) -> u32 {
        let (leader, start) = self.flex_start(group);
        start + 2 * self.groups_in_flex(leader) + (group - leader) * self.table_blocks()
    }

    /// How many of `group`'s inodes are taken when all up to `last_ino` are.
    pub(super) fn inodes_used(&self, group: u32, last_ino: u32) -> u32 {
        last_ino.saturating_sub(group * self.inodes_per_group).min(self.inodes_per_group)
    }
}

/// No file system below this many bytes has the inode numbers up to `last_ino`.
pub(super) fn least_size(last_ino: u32) -> u64 {
    let whole_groups = last_ino.div_ceil(MAX_INODES_PER_GROUP).saturating_sub(1);
    u64::from(whole_groups) * u64::from(BLOCKS_PER_GROUP) * PAGE_SIZE
}

/// Bytes of file system for each inode, as mke2fs has it by default.
fn bytes_per_inode(size: u64) -> u64 {
    if size < 4 << 40 { 16 << 10 } else { 32 << 10 }
}

fn is_power(mut value: u32, base: u32) -> bool {
    while value > 1 && value.is_multiple_of(base) {
        value /= base;
    }
    value == 1
}

const _: () = assert!(MAX_INODES_PER_GROUP <= BLOCKS_PER_GROUP);
const _: () = assert!(MAX_INODES_PER_GROUP > FIRST_INO);

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn fixed_parts_leave_room_in_every_group_at_every_size() {
        let odd =
            [1, 2, 3, 66, 67, 68, 255, 256, 257, 258, 600, 8300].map(|n| 128 * MIB + n * 4096);
        let even = [16, 17, 100, 128, 4096, 102_400, 1 << 20, 4 << 20, 1 << 24].map(|n| n * MIB);
        let flex = [1, 100, 513, 514, 515, 520].map(|n| 16 * 128 * MIB + n * 4096);
        for size in odd.into_iter().chain(even).chain(flex) {
            for last_ino in [12, 30_000] {
                let g = Geometry::new(size, last_ino).unwrap();
                assert!(u64::from(g.blocks) * 4096 <= size);
                assert!(u64::from(g.inodes()) >= u64::from(last_ino));
                for group in 0..g.groups {
                    assert!(g.fixed_blocks(group) < g.blocks_in(group), "{size} {group} {g:?}");
                    let end = g.inode_table(group) + g.table_blocks();
                    let leader = group - group % GROUPS_PER_FLEX;
                    assert!(end <= g.first_block(leader) + g.fixed_blocks(leader));
                }
            }
        }
    }

    #[test]
    fn an_image_of_16_tib_leaves_its_last_block_alone() {
        let g = Geometry::new(1 << 44, 12).unwrap();
        assert_eq!((g.blocks, g.groups, g.gdt_blocks), (u32::MAX, 1 << 17, 1024));
        assert_eq!(g.blocks_in((1 << 17) - 1), BLOCKS_PER_GROUP - 1);
    }

    #[test]
    fn the_tree_may_ask_for_more_inodes_than_usual() {
        assert_eq!(Geometry::new(16 * MIB, 12).unwrap().inodes(), 1024);
        assert_eq!(
            Geometry::new(16 * MIB, 900).unwrap().inodes(),
            900_u32.next_multiple_of(4) + 524
        );
        assert!(Geometry::new(16 * MIB, 40_000).is_none());
    }

    #[test]
    fn copies_of_the_superblock_are_sparse() {
        let g = Geometry::new(16 << 40, 12).unwrap();
        let with: Vec<u32> = (0..130).filter(|group| g.has_super(*group)).collect();
        assert_eq!(with, [0, 1, 3, 5, 7, 9, 25, 27, 49, 81, 125]);
    }
}
