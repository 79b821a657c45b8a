//! The superblock, and the geometry that follows from it.

use crate::ext4::disk::{self, BLOCK, FIRST_INO, I_BLOCK, SUPER_OFFSET, SUPER_SIZE};
use crate::ext4::geometry::Geometry;
use crate::ext4::limits::{MAX_SIZE, MIN_SIZE};
use crate::ext4::read::check::upper::{field, same_record};
use crate::ext4::read::error::{ReadError, Result};
use crate::ext4::read::reader::Reader;
use crate::fields::Fields;

/// Fields of `struct ext4_super_block` by their offsets, for messages.
const FIELDS: [(usize, &str); 46] = [
    (0x00, "s_inodes_count"),
    (0x04, "s_blocks_count_lo"),
    (0x08, "s_r_blocks_count_lo"),
    (0x0c, "s_free_blocks_count_lo"),
    (0x10, "s_free_inodes_count"),
    (0x14, "s_first_data_block"),
    (0x18, "s_log_block_size"),
    (0x1c, "s_log_cluster_size"),
    (0x20, "s_blocks_per_group"),
    (0x24, "s_clusters_per_group"),
    (0x28, "s_inodes_per_group"),
    (0x2c, "s_mtime"),
    (0x30, "s_wtime"),
    (0x34, "s_mnt_count"),
    (0x36, "s_max_mnt_count"),
    (0x38, "s_magic"),
    (0x3a, "s_state"),
    (0x3c, "s_errors"),
    (0x3e, "s_minor_rev_level"),
    (0x40, "s_lastcheck"),
    (0x44, "s_checkinterval"),
    (0x48, "s_creator_os"),
    (0x4c, "s_rev_level"),
    (0x50, "s_def_resuid"),
    (0x54, "s_first_ino"),
    (0x58, "s_inode_size"),
    (0x5a, "s_block_group_nr"),
    (0x5c, "s_feature_compat"),
    (0x60, "s_feature_incompat"),
    (0x64, "s_feature_ro_compat"),
    (0x68, "s_uuid"),
    (0x78, "s_volume_name"),
    (0xc8, "s_algorithm_usage_bitmap"),
    (0xe0, "s_journal_inum"),
    (0xe4, "s_journal_dev"),
    (0xe8, "s_last_orphan"),
    (0xec, "s_hash_seed"),
    (0xfc, "s_def_hash_version"),
    (0xfd, "s_jnl_backup_type"),
    (0xfe, "s_desc_size"),
    (0x100, "s_default_mount_opts"),
    (0x10c, "s_jnl_blocks"),
    (0x150, "the fields from s_blocks_count_hi on"),
    (0x174, "s_log_groups_per_flex"),
    (0x176, "the fields behind s_checksum_type"),
    (0x3fc, "s_checksum"),
];

fn fail(what: String) -> ReadError {
    ReadError::Superblock(what)
}

/// The superblock and the geometry of an upper of the file's size.
pub(super) fn profile(reader: &Reader<'_>) -> Result<(disk::Superblock, Geometry)> {
    let size = reader.file.metadata()?.len();
    if !(MIN_SIZE..=MAX_SIZE).contains(&size) || !size.is_multiple_of(BLOCK as u64) {
        return Err(fail(format!("the file has {size} bytes; no upper has so many")));
    }
    let mut block = [0; BLOCK];
    reader.read(0, &mut block)?;
    let found: &[u8; SUPER_SIZE] = block[SUPER_OFFSET..].first_chunk().expect("a block is longer");
    let superblock = decode(found);
    let wanted = superblock.encode(0);
    same_record(found, &wanted, |at, byte| {
        let (field, wanted) = (field(&FIELDS, at), wanted[at]);
        fail(format!(
            "{field} is not as a build writes it: byte {at:#x} is {byte:#04x}, not {wanted:#04x}"
        ))
    })?;
    let behind = SUPER_OFFSET + SUPER_SIZE;
    if block[..SUPER_OFFSET].iter().chain(&block[behind..]).any(|byte| *byte != 0) {
        return Err(fail("its block holds something else too".into()));
    }
    let last_ino = superblock.inodes_count.checked_sub(superblock.free_inodes_count);
    let last_ino = last_ino.filter(|last| *last >= FIRST_INO).ok_or_else(|| {
        let (free, all) = (superblock.free_inodes_count, superblock.inodes_count);
        fail(format!("{free} of {all} inodes are free"))
    })?;
    let geometry = Geometry::new(size, last_ino);
    let geometry = geometry.filter(|geometry| {
        geometry.blocks == superblock.blocks_count
            && geometry.inodes() == superblock.inodes_count
            && geometry.inodes_per_group == superblock.inodes_per_group
    });
    let geometry = geometry.ok_or_else(|| {
        let (blocks, inodes) = (superblock.blocks_count, superblock.inodes_count);
        fail(format!("no build makes {blocks} blocks and {inodes} inodes of {size} bytes"))
    })?;
    Ok((superblock, geometry))
}

/// The fields that differ between uppers; all others are checked by encoding.
fn decode(bytes: &[u8; SUPER_SIZE]) -> disk::Superblock {
    let f = Fields(bytes);
    let mut uuid = [0; 16];
    uuid.copy_from_slice(&bytes[0x68..0x78]);
    let mut hash_seed = [0; 16];
    hash_seed.copy_from_slice(&bytes[0xec..0xfc]);
    let mut journal_i_block = [0; I_BLOCK];
    journal_i_block.copy_from_slice(&bytes[0x10c..0x10c + I_BLOCK]);
    disk::Superblock {
        inodes_count: f.u32(0x00),
        blocks_count: f.u32(0x04),
        free_blocks_count: f.u32(0x0c),
        free_inodes_count: f.u32(0x10),
        blocks_per_group: crate::ext4::geometry::BLOCKS_PER_GROUP,
        inodes_per_group: f.u32(0x28),
        uuid,
        hash_seed,
        journal_i_block,
        journal_size: f.u64(0x14c, 0x148),
    }
}
