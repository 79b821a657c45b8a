//! Numbers that must not be mixed up.

/// Bytes in a block of every EROFS that the compiler writes.
///
/// Linux takes blocks below a page since 6.4. A file is padded to a block: with
/// pages, images of many small files would be larger than their tars.
pub const BLOCK_SIZE: u64 = 1024;

/// log2 of [`BLOCK_SIZE`].
pub const BLOCK_BITS: u8 = 10;

/// Bytes of a page, and of a block of the upper's ext4. Holes in files are whole
/// pages.
pub const PAGE_SIZE: u64 = 4096;

/// A block's address on its device, in units of [`BLOCK_SIZE`].
///
/// EROFS stores 32 bits, so a device ends at 4 TiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlockAddr(pub u32);

impl BlockAddr {
    /// The block that holds byte `offset`, which must be a block's first.
    ///
    /// `None` when it is not, or lies beyond 32 bits of blocks.
    pub fn from_offset(offset: u64) -> Option<Self> {
        if !offset.is_multiple_of(BLOCK_SIZE) {
            return None;
        }
        u32::try_from(offset / BLOCK_SIZE).ok().map(Self)
    }

    /// The offset of the block's first byte.
    pub fn offset(self) -> u64 {
        u64::from(self.0) * BLOCK_SIZE
    }
}

/// Number of an EROFS inode: its offset behind `meta_blkaddr` in units of 32 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Nid(pub u64);

/// Which disk of an image a block lies on: 0 is the one that holds the
/// superblock, n the n-th slot of its device table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeviceId(pub u16);

impl DeviceId {
    /// The disk that holds the superblock.
    pub const PRIMARY: DeviceId = DeviceId(0);
}

/// `value` rounded up to a multiple of `align`, or `None` past `u64::MAX`.
pub fn align_up(value: u64, align: u64) -> Option<u64> {
    value.checked_next_multiple_of(align)
}

/// Blocks that `bytes` fill, the last one perhaps in part.
pub fn blocks_of(bytes: u64) -> u64 {
    bytes.div_ceil(BLOCK_SIZE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_address_is_a_whole_block_below_4_tib() {
        assert_eq!(BlockAddr::from_offset(0), Some(BlockAddr(0)));
        assert_eq!(BlockAddr::from_offset(2048), Some(BlockAddr(2)));
        assert_eq!(BlockAddr::from_offset(1), None);
        assert_eq!(BlockAddr::from_offset((1 << 42) - 1024).map(|b| b.0), Some(u32::MAX));
        assert_eq!(BlockAddr::from_offset(1 << 42), None);
    }
}
