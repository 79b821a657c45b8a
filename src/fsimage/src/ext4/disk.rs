//! ext4's records as they lie on disk.
//!
//! All numbers are little-endian; offsets in the encoders are the kernel's.
//! Facts are those of Linux 6.12: `fs/ext4/ext4.h`, `ext4_extents.h` and
//! `Documentation/filesystems/ext4`. Every record carries a CRC-32C, which
//! `metadata_csum` asks for.

use crate::fields::FieldsMut;
use crate::tree::inode::Timestamp;

/// Bytes in a block.
pub(super) const BLOCK: usize = crate::units::PAGE_SIZE as usize;

/// Bytes in an inode record, in-inode attributes included.
pub(super) const INODE_SIZE: usize = 256;

/// Bytes of a group descriptor when the `64bit` feature is off.
pub(super) const DESC_SIZE: usize = 32;

/// Bytes of a superblock.
pub(super) const SUPER_SIZE: usize = 1024;

/// Where the primary superblock lies in block 0; a backup starts its block.
pub(super) const SUPER_OFFSET: usize = 1024;

/// Bytes of `i_block`: an extent root, a short link target or a device number.
pub(super) const I_BLOCK: usize = 60;

/// Where attributes begin in an inode: behind 128 fixed and 32 extra bytes.
pub(super) const I_XATTRS: usize = 128 + EXTRA_ISIZE as usize;

const EXTRA_ISIZE: u16 = 32;

/// The root directory's inode number.
pub(super) const ROOT_INO: u32 = 2;
/// The journal's inode number.
pub(super) const JOURNAL_INO: u32 = 8;
/// The first inode number that is not reserved.
pub(super) const FIRST_INO: u32 = 11;

/// log2 of the groups whose bitmaps and inode tables lie together.
pub(super) const LOG_GROUPS_PER_FLEX: u8 = 4;

/// `s_def_hash_version`: half MD4, its signed form chosen by `s_flags`.
pub(super) const HASH_HALF_MD4: u8 = 1;

const MAGIC: u16 = 0xef53;

const COMPAT_HAS_JOURNAL: u32 = 0x4;
const COMPAT_EXT_ATTR: u32 = 0x8;
const COMPAT_DIR_INDEX: u32 = 0x20;
const INCOMPAT_FILETYPE: u32 = 0x2;
const INCOMPAT_EXTENTS: u32 = 0x40;
const INCOMPAT_FLEX_BG: u32 = 0x200;
const RO_COMPAT_SPARSE_SUPER: u32 = 0x1;
const RO_COMPAT_LARGE_FILE: u32 = 0x2;
const RO_COMPAT_HUGE_FILE: u32 = 0x8;
const RO_COMPAT_DIR_NLINK: u32 = 0x20;
const RO_COMPAT_EXTRA_ISIZE: u32 = 0x40;
const RO_COMPAT_METADATA_CSUM: u32 = 0x400;

/// The low and the high half of a number that ext4 keeps in two fields.
pub(super) fn halves(value: u32) -> (u16, u16) {
    ((value & 0xffff) as u16, (value >> 16) as u16)
}

/// The state of a CRC-32C. The kernel inverts it neither at the start nor at the end: the first
/// seed is `!0`, and a sum is itself the seed of what follows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Seed(u32);

impl Seed {
    pub(super) const START: Seed = Seed(!0);

    /// The seed of every record but the superblock.
    pub(super) fn of_file_system(uuid: &[u8; 16]) -> Self {
        Self::START.then(uuid)
    }

    /// What an earlier sum goes on from.
    pub(super) fn from_sum(sum: u32) -> Self {
        Self(sum)
    }

    /// The seed of what belongs to one inode. Its generation is 0.
    pub(super) fn of_inode(self, ino: u32) -> Self {
        self.then(&ino.to_le_bytes()).then(&[0; 4])
    }

    pub(super) fn then(self, bytes: &[u8]) -> Self {
        Self(!crc32c::crc32c_append(!self.0, bytes))
    }

    pub(super) fn sum(self) -> u32 {
        self.0
    }
}

/// What of `struct ext4_super_block` differs between two of our images.
pub(super) struct Superblock {
    pub inodes_count: u32,
    pub blocks_count: u32,
    pub free_blocks_count: u32,
    pub free_inodes_count: u32,
    pub blocks_per_group: u32,
    pub inodes_per_group: u32,
    pub uuid: [u8; 16],
    pub hash_seed: [u8; 16],
    /// The journal inode's `i_block`, kept a second time for rescue.
    pub journal_i_block: [u8; I_BLOCK],
    /// Bytes.
    pub journal_size: u64,
}

impl Superblock {
    /// The copy that lies in block group `group`; 0 holds the primary one.
    pub(super) fn encode(&self, group: u32) -> [u8; SUPER_SIZE] {
        let mut out = [0; SUPER_SIZE];
        let mut f = FieldsMut(&mut out);
        f.u32(0x00, self.inodes_count);
        f.u32(0x04, self.blocks_count);
        // s_r_blocks_count stays 0: the guest's users may fill the disk.
        f.u32(0x0c, self.free_blocks_count);
        f.u32(0x10, self.free_inodes_count);
        f.u32(0x18, 2); // s_log_block_size: 1024 << 2
        f.u32(0x1c, 2); // s_log_cluster_size: the same, as bigalloc is off
        f.u32(0x20, self.blocks_per_group);
        f.u32(0x24, self.blocks_per_group); // s_clusters_per_group
        f.u32(0x28, self.inodes_per_group);
        f.u16(0x36, 0xffff); // s_max_mnt_count: -1, no check by count
        f.u16(0x38, MAGIC);
        f.u16(0x3a, 1); // s_state: cleanly unmounted
        f.u16(0x3c, 2); // s_errors: remount read-only, so that damage does not spread
        f.u32(0x4c, 1); // s_rev_level: dynamic inode size
        f.u32(0x54, FIRST_INO);
        f.u16(0x58, INODE_SIZE as u16);
        // The field has 16 bits, and groups go further; nobody reads the rest.
        f.u16(0x5a, halves(group).0);
        f.u32(0x5c, COMPAT_HAS_JOURNAL | COMPAT_EXT_ATTR | COMPAT_DIR_INDEX);
        f.u32(0x60, INCOMPAT_FILETYPE | INCOMPAT_EXTENTS | INCOMPAT_FLEX_BG);
        f.u32(
            0x64,
            RO_COMPAT_SPARSE_SUPER
                | RO_COMPAT_LARGE_FILE
                | RO_COMPAT_HUGE_FILE
                | RO_COMPAT_DIR_NLINK
                | RO_COMPAT_EXTRA_ISIZE
                | RO_COMPAT_METADATA_CSUM,
        );
        f.bytes(0x68, &self.uuid);
        f.u32(0xe0, JOURNAL_INO);
        f.bytes(0xec, &self.hash_seed);
        f.u8(0xfc, HASH_HALF_MD4);
        f.u8(0xfd, 1); // s_jnl_backup_type: s_jnl_blocks holds i_block and i_size
        f.bytes(0x10c, &self.journal_i_block);
        f.u32(0x148, (self.journal_size >> 32) as u32);
        f.u32(0x14c, self.journal_size as u32);
        f.u16(0x15c, EXTRA_ISIZE); // s_min_extra_isize
        f.u16(0x15e, EXTRA_ISIZE); // s_want_extra_isize
        f.u32(0x160, 1); // s_flags: names are hashed as signed bytes
        f.u8(0x174, LOG_GROUPS_PER_FLEX);
        f.u8(0x175, 1); // s_checksum_type: CRC-32C
        let sum = Seed::START.then(&out[..0x3fc]).sum();
        FieldsMut(&mut out).u32(0x3fc, sum);
        out
    }
}

/// `bg_flags`: the inode bitmap is not written, all is free.
pub(super) const INODE_UNINIT: u16 = 1;
/// `bg_flags`: the block bitmap is not written; what is used follows from the geometry.
pub(super) const BLOCK_UNINIT: u16 = 2;
/// `bg_flags`: the inode table's unused part is zero, so nobody need clear it.
pub(super) const INODE_ZEROED: u16 = 4;

/// `struct ext4_group_desc`, its 32-byte form.
pub(super) struct GroupDesc {
    pub block_bitmap: u32,
    pub inode_bitmap: u32,
    pub inode_table: u32,
    pub free_blocks_count: u16,
    pub free_inodes_count: u16,
    pub used_dirs_count: u16,
    pub flags: u16,
    /// Only the low half of the sum has a place.
    pub block_bitmap_csum: u16,
    pub inode_bitmap_csum: u16,
    /// Inodes at the end of the table that were never used.
    pub itable_unused: u16,
}

impl GroupDesc {
    pub(super) fn encode(&self, seed: Seed, group: u32) -> [u8; DESC_SIZE] {
        let mut out = [0; DESC_SIZE];
        let mut f = FieldsMut(&mut out);
        f.u32(0x00, self.block_bitmap);
        f.u32(0x04, self.inode_bitmap);
        f.u32(0x08, self.inode_table);
        f.u16(0x0c, self.free_blocks_count);
        f.u16(0x0e, self.free_inodes_count);
        f.u16(0x10, self.used_dirs_count);
        f.u16(0x12, self.flags);
        f.u16(0x18, self.block_bitmap_csum);
        f.u16(0x1a, self.inode_bitmap_csum);
        f.u16(0x1c, self.itable_unused);
        let sum = seed.then(&group.to_le_bytes()).then(&out).sum();
        FieldsMut(&mut out).u16(0x1e, halves(sum).0);
        out
    }
}

/// `i_flags`: `i_block` is the root of an extent tree.
pub(super) const EXTENTS_FL: u32 = 0x8_0000;

/// `struct ext4_inode`, with what of it we set.
pub(super) struct InodeRecord<'a> {
    /// Type and permissions.
    pub mode: u16,
    pub uid: u32,
    pub gid: u32,
    /// Bytes.
    pub size: u64,
    /// Used for all times of the inode: another source of a time would be a clock, and images would
    /// differ.
    pub mtime: Timestamp,
    pub links_count: u16,
    /// Blocks of the file system that hold content, extent tree and attributes.
    pub blocks: u64,
    pub flags: u32,
    pub block: [u8; I_BLOCK],
    /// The block of attributes that did not fit the inode, or 0.
    pub file_acl: u32,
    /// Attributes in the inode; as long as they are, or empty.
    pub xattrs: &'a [u8],
}

impl InodeRecord<'_> {
    /// The record, checksum included; `seed` is the inode's.
    pub(super) fn encode(&self, seed: Seed) -> [u8; INODE_SIZE] {
        let mut out = [0; INODE_SIZE];
        let mut f = FieldsMut(&mut out);
        let (uid, uid_high) = halves(self.uid);
        let (gid, gid_high) = halves(self.gid);
        let (time, time_extra) = encode_time(self.mtime);
        // Without HUGE_FILE_FL in i_flags the unit is 512 bytes.
        let sectors = self.blocks * (BLOCK as u64 / 512);
        f.u16(0x00, self.mode);
        f.u16(0x02, uid);
        f.u32(0x04, self.size as u32);
        f.u32(0x08, time); // i_atime
        f.u32(0x0c, time); // i_ctime
        f.u32(0x10, time); // i_mtime
        f.u16(0x18, gid);
        f.u16(0x1a, self.links_count);
        f.u32(0x1c, sectors as u32);
        f.u32(0x20, self.flags);
        f.bytes(0x28, &self.block);
        f.u32(0x68, self.file_acl);
        f.u32(0x6c, (self.size >> 32) as u32);
        f.u16(0x74, (sectors >> 32) as u16);
        f.u16(0x78, uid_high);
        f.u16(0x7a, gid_high);
        f.u16(0x80, EXTRA_ISIZE);
        f.u32(0x84, time_extra); // i_ctime_extra
        f.u32(0x88, time_extra); // i_mtime_extra
        f.u32(0x8c, time_extra); // i_atime_extra
        f.u32(0x90, time); // i_crtime
        f.u32(0x94, time_extra); // i_crtime_extra
        f.bytes(I_XATTRS, self.xattrs);
        let (low, high) = halves(seed.then(&out).sum());
        let mut f = FieldsMut(&mut out);
        f.u16(0x7c, low);
        f.u16(0x82, high);
        out
    }
}

/// The first and the last second that an inode can hold: 1901 and 2446.
pub(super) const TIME_RANGE: std::ops::RangeInclusive<i64> = -(1 << 31)..=(1 << 31) - 1 + (3 << 32);

/// The 32-bit seconds, and the field that adds two bits of epoch below 30
/// bits of nanoseconds. A time out of range becomes the nearest one in it,
/// as when the kernel sets it.
fn encode_time(time: Timestamp) -> (u32, u32) {
    let sec = time.sec.clamp(*TIME_RANGE.start(), *TIME_RANGE.end());
    let nsec = if sec == time.sec { time.nsec } else { 0 };
    let low = sec as i32;
    let epoch = ((sec - i64::from(low)) >> 32) as u32;
    (low as u32, epoch | nsec << 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_reach_from_1901_to_2446() {
        let encode = |sec, nsec| encode_time(Timestamp { sec, nsec });
        assert_eq!(encode(0, 0), (0, 0));
        assert_eq!(encode(-1, 999_999_999), (0xffff_ffff, 999_999_999 << 2));
        assert_eq!(encode(-(1 << 31), 0), (0x8000_0000, 0));
        assert_eq!(encode(1 << 31, 1), (0x8000_0000, 1 << 2 | 1));
        assert_eq!(encode((1 << 32) + 5, 0), (5, 1));
        assert_eq!(encode(0x3_7fff_ffff, 0), (0x7fff_ffff, 3));
        assert_eq!(encode(i64::MAX, 7), encode(0x3_7fff_ffff, 0));
        assert_eq!(encode(i64::MIN, 7), encode(-(1 << 31), 0));
    }

    #[test]
    fn sums_are_the_kernels_crc32c() {
        // The check value of CRC-32C over "123456789" is 0xe3069283, inverted at the end.
        assert_eq!(!Seed::START.then(b"123456789").sum(), 0xe306_9283);
        assert_eq!(Seed::START.then(b"1234").then(b"56789"), Seed::START.then(b"123456789"));
    }
}
