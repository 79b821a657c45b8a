//! Where the bytes of a regular file lie on disks.

use crate::units::{BlockAddr, DeviceId};

/// Blocks of one device that hold neighbouring blocks of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Extent {
    /// Which block of the file comes first.
    pub file_block: u64,
    pub device: DeviceId,
    pub start: BlockAddr,
    /// How many blocks; never 0.
    pub len: u32,
}

/// A file's content: ascending extents, and holes between and behind them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Extents {
    /// Bytes, holes included.
    pub size: u64,
    pub runs: Box<[Extent]>,
}

impl Extents {
    /// A file of `size` bytes in one run of blocks (or none if it is empty).
    pub fn contiguous(size: u64, device: DeviceId, start: BlockAddr, len: u32) -> Self {
        let run = Extent { file_block: 0, device, start, len };
        let runs = if len == 0 { Box::default() } else { Box::new([run]) as Box<[_]> };
        Self { size, runs }
    }
}
