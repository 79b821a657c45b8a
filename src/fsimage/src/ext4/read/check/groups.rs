//! Block groups: descriptors, bitmaps and copies, which follow from the tree.

use crate::ext4::disk::{
    BLOCK, BLOCK_UNINIT, DESC_SIZE, GroupDesc, INODE_SIZE, INODE_UNINIT, INODE_ZEROED, halves,
};
use crate::ext4::read::check::upper::{Upper, field, same_record};
use crate::ext4::read::error::{ReadError, Result};
use crate::tree::inode::Kind;

/// Fields of `struct ext4_group_desc` by their offsets, for messages.
const FIELDS: [(usize, &str); 12] = [
    (0x00, "bg_block_bitmap_lo"),
    (0x04, "bg_inode_bitmap_lo"),
    (0x08, "bg_inode_table_lo"),
    (0x0c, "bg_free_blocks_count_lo"),
    (0x0e, "bg_free_inodes_count_lo"),
    (0x10, "bg_used_dirs_count_lo"),
    (0x12, "bg_flags"),
    (0x14, "bg_exclude_bitmap_lo"),
    (0x18, "bg_block_bitmap_csum_lo"),
    (0x1a, "bg_inode_bitmap_csum_lo"),
    (0x1c, "bg_itable_unused_lo"),
    (0x1e, "bg_checksum"),
];

fn fail(group: u32, what: String) -> ReadError {
    ReadError::Group { group, what }
}

/// Bits of a bitmap that is one block.
type Bitmap = [u8; BLOCK];

/// Sets the bits `from..to`, whole bytes at once.
fn set(bitmap: &mut Bitmap, from: u32, to: u32) {
    let (first, end) = (from.next_multiple_of(8).min(to), (to - to % 8).max(from));
    if first < end {
        bitmap[first as usize / 8..end as usize / 8].fill(0xff);
    }
    for bit in (from..first).chain(end.max(first)..to) {
        bitmap[bit as usize / 8] |= 1 << (bit % 8);
    }
}

impl Upper<'_> {
    /// Checks everything that is fixed in each group.
    pub(super) fn groups(&self) -> Result<()> {
        let table = self.descriptors(0)?;
        let dirs = self.dirs();
        let mut free = 0u64;
        for group in 0..self.geometry.groups {
            let wanted = self.group(group, dirs[group as usize])?;
            free += u64::from(wanted.free_blocks_count);
            let at = group as usize * DESC_SIZE;
            let wanted = wanted.encode(self.seed, group);
            same_record(&table[at..at + DESC_SIZE], &wanted, |at, byte| {
                let (field, wanted) = (field(&FIELDS, at), wanted[at]);
                let text = format!(
                    "{field} is not what the tree makes it: byte {at:#x} is {byte:#04x}, not {wanted:#04x}"
                );
                fail(group, text)
            })?;
        }
        if table[self.geometry.groups as usize * DESC_SIZE..].iter().any(|byte| *byte != 0) {
            return Err(ReadError::Superblock(
                "there are more group descriptors than groups".into(),
            ));
        }
        if free != u64::from(self.superblock.free_blocks_count) {
            let told = self.superblock.free_blocks_count;
            return Err(ReadError::Superblock(format!(
                "{told} blocks are free, and there are {free}"
            )));
        }
        self.copies(&table)
    }

    /// All descriptors, as they stand in `group`.
    fn descriptors(&self, group: u32) -> Result<Vec<u8>> {
        let mut table = vec![0; self.geometry.gdt_blocks as usize * BLOCK];
        let at = u64::from(self.geometry.first_block(group)) + 1;
        self.reader.read(at * BLOCK as u64, &mut table)?;
        Ok(table)
    }

    /// How many directories each group has.
    fn dirs(&self) -> Vec<u16> {
        let mut dirs = vec![0; self.geometry.groups as usize];
        for (i, ino) in self.walked.inos.iter().enumerate() {
            let id = crate::tree::InodeId(i as u32);
            if matches!(self.walked.tree.inode(id).kind, Kind::Dir(_)) {
                // A group has fewer inodes than 2¹⁶.
                dirs[((ino - 1) / self.geometry.inodes_per_group) as usize] += 1;
            }
        }
        dirs
    }

    /// Checks the bitmaps of `group` and the end of its inode table; returns what its
    /// descriptor must be.
    fn group(&self, group: u32, dirs: u16) -> Result<GroupDesc> {
        let geometry = &self.geometry;
        let (blocks, fixed) = (geometry.blocks_in(group), geometry.fixed_blocks(group));
        let first = u64::from(geometry.first_block(group));
        let mut used = fixed;
        let claims = || self.walked.claims.within(first, first + u64::from(blocks));
        for (start, end) in claims() {
            used += (end - start) as u32;
        }
        let inodes = geometry.inodes_used(group, self.last_ino);
        let mut desc = GroupDesc {
            block_bitmap: geometry.block_bitmap(group),
            inode_bitmap: geometry.inode_bitmap(group),
            inode_table: geometry.inode_table(group),
            free_blocks_count: (blocks - used) as u16,
            free_inodes_count: (geometry.inodes_per_group - inodes) as u16,
            used_dirs_count: dirs,
            flags: INODE_ZEROED,
            block_bitmap_csum: 0,
            inode_bitmap_csum: 0,
            itable_unused: (geometry.inodes_per_group - inodes) as u16,
        };
        let is_last = group + 1 == geometry.groups;
        if !geometry.leads_flex(group) && !is_last && used == fixed {
            desc.flags |= BLOCK_UNINIT;
        } else {
            let mut wanted = [0; BLOCK];
            set(&mut wanted, 0, fixed);
            for (start, end) in claims() {
                set(&mut wanted, (start - first) as u32, (end - first) as u32);
            }
            set(&mut wanted, blocks, BLOCK as u32 * 8);
            self.bitmap(group, desc.block_bitmap, &wanted, "block")?;
            desc.block_bitmap_csum = halves(self.seed.then(&wanted).sum()).0;
        }
        if inodes == 0 {
            desc.flags |= INODE_UNINIT;
        } else {
            let mut wanted = [0; BLOCK];
            set(&mut wanted, 0, inodes);
            set(&mut wanted, geometry.inodes_per_group, BLOCK as u32 * 8);
            self.bitmap(group, desc.inode_bitmap, &wanted, "inode")?;
            let covered = &wanted[..geometry.inodes_per_group as usize / 8];
            desc.inode_bitmap_csum = halves(self.seed.then(covered).sum()).0;
            self.table_end(group, inodes)?;
        }
        Ok(desc)
    }

    /// Compares a bitmap, whose bits stand for each `what` of the group.
    fn bitmap(&self, group: u32, block: u32, wanted: &Bitmap, what: &str) -> Result<()> {
        let mut found = [0; BLOCK];
        self.reader.read(u64::from(block) * BLOCK as u64, &mut found)?;
        same_record(&found, wanted, |at, byte| {
            let bit = (byte ^ wanted[at]).trailing_zeros();
            let (nth, marked) = (at * 8 + bit as usize, byte >> bit & 1 == 1);
            let text = if marked {
                format!("{what} {nth} of it is marked as used, but nothing uses it")
            } else {
                format!("{what} {nth} of it is used, but marked as free")
            };
            fail(group, text)
        })
    }

    /// The last block of the inode table that is in use ends in zeros.
    fn table_end(&self, group: u32, inodes: u32) -> Result<()> {
        let used = u64::from(inodes) * INODE_SIZE as u64;
        let mut rest = vec![0; (used.next_multiple_of(BLOCK as u64) - used) as usize];
        let table = u64::from(self.geometry.inode_table(group)) * BLOCK as u64;
        self.reader.read(table + used, &mut rest)?;
        if rest.iter().any(|byte| *byte != 0) {
            return Err(fail(
                group,
                "its inode table holds something behind the last inode".into(),
            ));
        }
        Ok(())
    }

    /// Compares the copies of superblock and descriptors with the first ones.
    fn copies(&self, table: &[u8]) -> Result<()> {
        let groups = (1..self.geometry.groups).filter(|group| self.geometry.has_super(*group));
        for group in groups {
            let mut found = [0; BLOCK];
            let at = u64::from(self.geometry.first_block(group)) * BLOCK as u64;
            self.reader.read(at, &mut found)?;
            let mut wanted = [0; BLOCK];
            wanted[..crate::ext4::disk::SUPER_SIZE].copy_from_slice(&self.superblock.encode(group));
            same_record(&found, &wanted, |at, _| {
                fail(group, format!("its copy of the superblock differs at byte {at:#x}"))
            })?;
            same_record(&self.descriptors(group)?, table, |at, _| {
                fail(group, format!("its copy of the descriptors differs at byte {at:#x}"))
            })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_range_of_bits_is_set_and_no_other() {
        for from in 0..40 {
            for to in from..80 {
                let mut bitmap = [0; BLOCK];
                set(&mut bitmap, from, to);
                let found = (0..96).filter(|bit| bitmap[bit / 8] >> (bit % 8) & 1 == 1);
                assert!(found.eq(from as usize..to as usize), "{from}..{to}");
            }
        }
    }
}
