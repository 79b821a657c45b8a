//! Where the bytes of a regular file lie on disks.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::{Deref, DerefMut};

use super::weight::Weigh;
use crate::units::{BlockAddr, DeviceId};

/// Blocks of one device that hold neighbouring blocks of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Extent {
    /// Which block of the file comes first.
    pub file_block: u64,
    /// The disk that the blocks lie on.
    pub device: DeviceId,
    /// The first of them on that disk.
    pub start: BlockAddr,
    /// How many blocks; never 0.
    pub len: u32,
}

/// A file's content: ascending extents, and holes between and behind them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Extents {
    /// Bytes, holes included.
    pub size: u64,
    /// Where the data lie, in the order of the file.
    pub runs: Runs,
}

/// Extents of one file; one of them, as of nearly every file, needs no memory of
/// its own.
#[derive(Clone)]
pub enum Runs {
    /// One extent.
    One([Extent; 1]),
    /// No extent, or several in the order of the file.
    Many(Vec<Extent>),
}

impl Extents {
    /// A file of `size` bytes in one run of blocks (or none if it is empty).
    pub fn contiguous(size: u64, device: DeviceId, start: BlockAddr, len: u32) -> Self {
        let run = Extent { file_block: 0, device, start, len };
        let runs = if len == 0 { Runs::default() } else { Runs::One([run]) };
        Self { size, runs }
    }
}

impl Weigh for Extents {
    fn weight(&self) -> u64 {
        self.runs.weight()
    }
}

impl Weigh for Runs {
    fn weight(&self) -> u64 {
        match self {
            Self::One(_) => 0,
            // A vector that grows has room for as many again.
            Self::Many(many) => 2 * size_of_val(&**many) as u64,
        }
    }
}

impl Runs {
    /// Adds what comes behind all others.
    pub fn push(&mut self, extent: Extent) {
        match self {
            Self::Many(none) if none.is_empty() => *self = Self::One([extent]),
            Self::Many(many) => many.push(extent),
            Self::One([one]) => *self = Self::Many(vec![*one, extent]),
        }
    }
}

impl Default for Runs {
    fn default() -> Self {
        Self::Many(Vec::new())
    }
}

impl From<&[Extent]> for Runs {
    fn from(runs: &[Extent]) -> Self {
        match runs {
            [one] => Self::One([*one]),
            many => Self::Many(many.into()),
        }
    }
}

impl Deref for Runs {
    type Target = [Extent];

    fn deref(&self) -> &[Extent] {
        match self {
            Self::One(one) => one,
            Self::Many(many) => many,
        }
    }
}

impl DerefMut for Runs {
    fn deref_mut(&mut self) -> &mut [Extent] {
        match self {
            Self::One(one) => one,
            Self::Many(many) => many,
        }
    }
}

impl<'a> IntoIterator for &'a Runs {
    type Item = &'a Extent;
    type IntoIter = std::slice::Iter<'a, Extent>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl fmt::Debug for Runs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

impl PartialEq for Runs {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for Runs {}

impl Hash for Runs {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (**self).hash(state);
    }
}
