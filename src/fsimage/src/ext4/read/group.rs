//! `struct ext4_group_desc`: where a group's tables lie.

use super::superblock::{INCOMPAT_64BIT, INCOMPAT_META_BG, Superblock};
use crate::ext4::disk::{INODE_UNINIT, halves};
use crate::ext4::read::error::{ReadError, Result};
use crate::ext4::read::reader::Reader;
use crate::fields::Fields;

/// A descriptor whose checksum holds, and whose inode table lies in the file system.
#[derive(Clone, Debug)]
pub(super) struct GroupDesc {
    pub inode_table: u64,
    /// How many inodes of the table, from its start on, may be in use.
    pub inodes_used: u32,
}

impl Reader<'_> {
    pub(super) fn group(&self, group: u32) -> Result<GroupDesc> {
        let superblock = &self.superblock;
        let fail = |what: String| ReadError::Group { group, what };
        let (block, at) = place(superblock, group);
        if block >= superblock.blocks_count {
            return Err(fail(format!("its descriptor is in block {block}, past the end")));
        }
        let mut bytes = vec![0; superblock.desc_size];
        self.read(self.offset(block) + at as u64, &mut bytes)?;
        let f = Fields(&bytes);
        let told = f.u16(0x1e);
        if let Some(found) = checksum(superblock, group, &bytes)
            && found != told
        {
            let text = format!("its checksum is {found:#06x}, but {told:#06x} is written");
            return Err(fail(text));
        }
        let wide = superblock.incompat & INCOMPAT_64BIT != 0;
        let inode_table = if wide { f.u64(0x8, 0x28) } else { f.u32(0x8).into() };
        let table_bytes = u64::from(superblock.inodes_per_group) * superblock.inode_size as u64;
        let blocks = table_bytes.div_ceil(superblock.block_size as u64);
        let end = inode_table.checked_add(blocks);
        if inode_table <= superblock.first_data_block.into()
            || end.is_none_or(|end| end > superblock.blocks_count)
        {
            return Err(fail(format!("its inode table begins at block {inode_table}")));
        }
        let mut inodes_used = superblock.inodes_per_group;
        if superblock.has_metadata_csum() || superblock.has_gdt_csum() {
            let high = if wide { u32::from(f.u16(0x32)) << 16 } else { 0 };
            let unused = u32::from(f.u16(0x1c)) | high;
            inodes_used = match f.u16(0x12) & INODE_UNINIT {
                0 => inodes_used.checked_sub(unused).ok_or_else(|| {
                    fail(format!("{unused} unused inodes of {inodes_used} in all"))
                })?,
                _ => 0,
            };
        }
        Ok(GroupDesc { inode_table, inodes_used })
    }
}

/// The block of the descriptor, and its offset there.
fn place(superblock: &Superblock, group: u32) -> (u64, usize) {
    let per_block = (superblock.block_size / superblock.desc_size) as u32;
    let at = (group % per_block) as usize * superblock.desc_size;
    let nth = group / per_block;
    if superblock.incompat & INCOMPAT_META_BG == 0 || nth < superblock.first_meta_bg {
        return (u64::from(superblock.first_data_block) + 1 + u64::from(nth), at);
    }
    // A meta block group begins with the one block of descriptors of its groups.
    let leader = nth * per_block;
    (superblock.first_block(leader) + u64::from(superblock.has_super(leader)), at)
}

/// The sum that belongs into `bg_checksum`, or none if there are no sums.
fn checksum(superblock: &Superblock, group: u32, bytes: &[u8]) -> Option<u16> {
    let (before, rest) = bytes.split_at(0x1e);
    let behind = &rest[2..];
    if superblock.has_metadata_csum() {
        let seed = superblock.seed.then(&group.to_le_bytes());
        return Some(halves(seed.then(before).then(&[0; 2]).then(behind).sum()).0);
    }
    // Behind the sum, the CRC-16 goes on only in the long form.
    let behind = if superblock.incompat & INCOMPAT_64BIT != 0 { behind } else { &[] };
    let parts = [&superblock.uuid[..], &group.to_le_bytes(), before, behind];
    superblock.has_gdt_csum().then(|| parts.iter().fold(!0, |crc, part| crc16(crc, part)))
}

/// CRC-16 with the polynomial 0x8005, bits reversed.
fn crc16(crc: u16, bytes: &[u8]) -> u16 {
    bytes.iter().fold(crc, |crc, byte| {
        (0..8)
            .fold(crc ^ u16::from(*byte), |crc, _| crc >> 1 ^ if crc & 1 != 0 { 0xa001 } else { 0 })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_crc_is_that_of_arc() {
        assert_eq!(crc16(0, b"123456789"), 0xbb3d);
    }
}
