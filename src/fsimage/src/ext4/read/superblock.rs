//! `struct ext4_super_block`, of whatever made it.

use super::error::{ReadError, Result};
use crate::ext4::disk::{SUPER_SIZE, Seed};
use crate::fields::Fields;

pub(super) const COMPAT_SPARSE_SUPER2: u32 = 0x200;
const COMPAT_FAST_COMMIT: u32 = 0x400;

const INCOMPAT_RECOVER: u32 = 0x4;
pub(super) const INCOMPAT_META_BG: u32 = 0x10;
pub(super) const INCOMPAT_64BIT: u32 = 0x80;
pub(super) const INCOMPAT_CSUM_SEED: u32 = 0x2000;
pub(super) const INCOMPAT_INLINE_DATA: u32 = 0x8000;

/// filetype, recover, meta_bg, extent, 64bit, mmp, flex_bg, ea_inode,
/// metadata_csum_seed, large_dir, inline_data, casefold.
const INCOMPAT_READ: u32 =
    0x2 | 0x4 | 0x10 | 0x40 | 0x80 | 0x100 | 0x200 | 0x400 | 0x2000 | 0x4000 | 0x8000 | 0x2_0000;

const RO_COMPAT_SPARSE_SUPER: u32 = 0x1;
const RO_COMPAT_GDT_CSUM: u32 = 0x10;
const RO_COMPAT_METADATA_CSUM: u32 = 0x400;
/// Files that share blocks, which this reader takes for damage.
const RO_COMPAT_SHARED_BLOCKS: u32 = 0x4000;

/// What of a superblock tells how to read the rest.
#[derive(Clone, Debug, Default)]
pub struct Superblock {
    /// How many inodes there are, used or not (`s_inodes_count`).
    pub inodes_count: u32,
    /// How many blocks of `block_size` bytes there are (`s_blocks_count`).
    pub blocks_count: u64,
    /// The block of the primary superblock, where group 0 begins.
    pub first_data_block: u32,
    /// Bytes.
    pub block_size: usize,
    /// Blocks in each group but the last, which may have fewer.
    pub blocks_per_group: u32,
    /// Inodes in each group.
    pub inodes_per_group: u32,
    /// How many block groups there are.
    pub groups: u32,
    /// Bytes of an inode's record.
    pub inode_size: usize,
    /// Bytes of a group's descriptor.
    pub desc_size: usize,
    /// Features that a reader or writer may ignore (`s_feature_compat`).
    pub compat: u32,
    /// Features that a reader must know (`s_feature_incompat`).
    pub incompat: u32,
    /// Features that a writer must know (`s_feature_ro_compat`).
    pub ro_compat: u32,
    /// UUID of the file system.
    pub uuid: [u8; 16],
    /// The first block of descriptors that lies in its own meta block group.
    pub first_meta_bg: u32,
    /// The two groups with copies of the superblock under `sparse_super2`.
    pub backup_groups: [u32; 2],
    /// The inode of the journal, or 0.
    pub journal_ino: u32,
    /// What the sums of `metadata_csum` go on from.
    pub(super) seed: Seed,
}

impl Superblock {
    pub(super) fn decode(bytes: &[u8; SUPER_SIZE]) -> Result<Self> {
        let f = Fields(bytes);
        if f.u16(0x38) != 0xef53 {
            return Err(bad("there is none: this is not an ext4 file system"));
        }
        let (compat, incompat, ro_compat) = (f.u32(0x5c), f.u32(0x60), f.u32(0x64));
        let first_rev = f.u32(0x4c) == 0;
        if !first_rev {
            features(bytes, incompat, ro_compat)?;
        }
        let log_block_size = f.u32(0x18);
        if log_block_size > 6 {
            return Err(bad(format!("s_log_block_size is {log_block_size}")));
        }
        let block_size = 1024usize << log_block_size;
        let wide = incompat & INCOMPAT_64BIT != 0;
        let blocks_count = if wide { f.u64(0x4, 0x150) } else { f.u32(0x4).into() };
        let mut uuid = [0; 16];
        uuid.copy_from_slice(&bytes[0x68..0x78]);
        let seed = match incompat & INCOMPAT_CSUM_SEED {
            0 => Seed::of_file_system(&uuid),
            _ => Seed::from_sum(f.u32(0x270)),
        };
        let mut superblock = Self {
            inodes_count: f.u32(0x0),
            blocks_count,
            first_data_block: f.u32(0x14),
            block_size,
            blocks_per_group: f.u32(0x20),
            inodes_per_group: f.u32(0x28),
            groups: 0,
            inode_size: if first_rev { 128 } else { f.u16(0x58).into() },
            desc_size: if wide { f.u16(0xfe).into() } else { 32 },
            compat,
            incompat,
            ro_compat,
            uuid,
            first_meta_bg: f.u32(0x104),
            backup_groups: [f.u32(0x24c), f.u32(0x250)],
            journal_ino: f.u32(0xe0),
            seed,
        };
        superblock.geometry()?;
        Ok(superblock)
    }

    /// Checks the numbers that everything else is computed from; counts groups.
    fn geometry(&mut self) -> Result<()> {
        let bits = self.block_size as u32 * 8;
        // With bigalloc, a bit of the bitmap is a whole cluster.
        let most_blocks = if self.ro_compat & 0x200 != 0 { u32::MAX } else { bits };
        let sound = |value: u32, most: u32| value > 0 && value <= most;
        if !sound(self.blocks_per_group, most_blocks) {
            return Err(bad(format!("s_blocks_per_group is {}", self.blocks_per_group)));
        }
        if !sound(self.inodes_per_group, bits) {
            return Err(bad(format!("s_inodes_per_group is {}", self.inodes_per_group)));
        }
        let inode_size = self.inode_size;
        if !inode_size.is_power_of_two() || !(128..=self.block_size).contains(&inode_size) {
            return Err(bad(format!("s_inode_size is {inode_size}")));
        }
        let desc_size = self.desc_size;
        let least = if self.incompat & INCOMPAT_64BIT != 0 { 64 } else { 32 };
        if !desc_size.is_power_of_two() || !(least..=1024).contains(&desc_size) {
            return Err(bad(format!("s_desc_size is {desc_size}")));
        }
        let first = u64::from(self.first_data_block);
        if first != u64::from(self.block_size == 1024) && self.ro_compat & 0x200 == 0 {
            return Err(bad(format!("s_first_data_block is {first}")));
        }
        let groups = self.blocks_count.saturating_sub(first).div_ceil(self.blocks_per_group.into());
        let inodes = groups.checked_mul(self.inodes_per_group.into());
        if groups == 0 || inodes != Some(self.inodes_count.into()) {
            let (inodes, blocks) = (self.inodes_count, self.blocks_count);
            return Err(bad(format!(
                "{inodes} inodes and {blocks} blocks do not make groups of {} and {}",
                self.inodes_per_group, self.blocks_per_group
            )));
        }
        // No more than inodes, of which there are fewer than 2³².
        self.groups = groups as u32;
        Ok(())
    }

    /// Whether the journal may hold changes.
    pub fn needs_recovery(&self) -> bool {
        self.incompat & INCOMPAT_RECOVER != 0
    }

    /// Whether metadata carry CRC32C checksums (the feature `metadata_csum`).
    pub fn has_metadata_csum(&self) -> bool {
        self.ro_compat & RO_COMPAT_METADATA_CSUM != 0
    }

    /// Whether descriptors carry a CRC-16, as before `metadata_csum`.
    pub fn has_gdt_csum(&self) -> bool {
        self.ro_compat & RO_COMPAT_GDT_CSUM != 0
    }

    /// The first block of `group`.
    pub fn first_block(&self, group: u32) -> u64 {
        u64::from(self.first_data_block) + u64::from(group) * u64::from(self.blocks_per_group)
    }

    /// Whether `group` begins with a copy of the superblock.
    pub fn has_super(&self, group: u32) -> bool {
        if self.compat & COMPAT_SPARSE_SUPER2 != 0 {
            return group == 0 || self.backup_groups.contains(&group);
        }
        let sparse = self.ro_compat & RO_COMPAT_SPARSE_SUPER != 0;
        !sparse || group <= 1 || [3, 5, 7].into_iter().any(|base| is_power(group, base))
    }
}

fn bad(what: impl Into<String>) -> ReadError {
    ReadError::Superblock(what.into())
}

fn features(bytes: &[u8; SUPER_SIZE], incompat: u32, ro_compat: u32) -> Result<()> {
    let f = Fields(bytes);
    let recover = incompat & INCOMPAT_RECOVER != 0;
    if recover && f.u32(0x5c) & COMPAT_FAST_COMMIT != 0 {
        return Err(bad("its journal may hold fast commits that were not replayed: mount it once"));
    }
    let unknown = incompat & !INCOMPAT_READ;
    if unknown != 0 {
        return Err(bad(format!("its incompatible features {unknown:#x} are not known")));
    }
    if ro_compat & RO_COMPAT_SHARED_BLOCKS != 0 {
        return Err(bad("its files share blocks"));
    }
    if ro_compat & RO_COMPAT_METADATA_CSUM != 0 {
        let (found, told) = (Seed::START.then(&bytes[..0x3fc]).sum(), f.u32(0x3fc));
        if f.u8(0x175) != 1 {
            return Err(bad(format!("s_checksum_type is {}", f.u8(0x175))));
        }
        if found != told {
            return Err(bad(format!("its checksum is {found:#010x}, but {told:#010x} is written")));
        }
    }
    Ok(())
}

fn is_power(mut value: u32, base: u32) -> bool {
    while value > 1 && value.is_multiple_of(base) {
        value /= base;
    }
    value == 1
}
