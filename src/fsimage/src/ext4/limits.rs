//! What sizes a file system may have.

use crate::ext4::disk;

/// The smallest file system, in bytes.
pub const MIN_SIZE: u64 = 16 << 20;
/// The largest, in bytes.
pub const MAX_SIZE: u64 = 16 << 40;
/// The largest file, in bytes: its blocks are counted in 32 bits.
pub const MAX_FILE: u64 = u32::MAX as u64 * disk::BLOCK as u64;
