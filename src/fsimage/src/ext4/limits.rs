//! What sizes a file system may have, and what it is made to be.

use crate::ext4::disk;

/// The smallest file system, in bytes.
pub const MIN_SIZE: u64 = 16 << 20;
/// The largest, in bytes.
pub const MAX_SIZE: u64 = 16 << 40;
/// The largest file, in bytes: its blocks are counted in 32 bits.
pub const MAX_FILE: u64 = u32::MAX as u64 * disk::BLOCK as u64;

/// What a file system is made to be, besides its tree.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Bytes of the image: [`MIN_SIZE`] to [`MAX_SIZE`], whole blocks.
    pub size: u64,
    /// UUID and hash seed come from this, so it should come from the content.
    pub seed: [u8; 32],
}
