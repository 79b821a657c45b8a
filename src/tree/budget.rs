//! What trees may take of the memory.
//!
//! A few bytes of a compressed layer can name a million directories, or give an
//! xattr of 64 KiB to each of a million files. So whatever a build keeps of its
//! layers is weighed as it comes, and the sum has one limit. Weights are no less
//! than the memory that is taken while the tree is read, merged and written.

use std::sync::atomic::{AtomicU64, Ordering};

use super::{GuestPath, Inode, Kind, Name, Tree, Xattrs};

/// Bytes that are kept in memory, of all layers of a build together.
///
/// Nothing is ever given back, so that threads use up the same sum in any order.
#[derive(Debug)]
pub struct Budget {
    limit: u64,
    used: AtomicU64,
}

impl Default for Budget {
    fn default() -> Self {
        Self::new(Self::DEFAULT)
    }
}

/// More metadata than the limit allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "its names, links, xattrs and file extents, with those of the other layers, take more than {0} \
     bytes of memory (raise --max-metadata-bytes to allow it)"
)]
pub struct Exhausted(pub u64);

impl Budget {
    /// Bytes that a build, or a reader of a bundle, allows by default.
    pub const DEFAULT: u64 = 1280 << 20;

    pub const fn new(limit: u64) -> Self {
        Self { limit, used: AtomicU64::new(0) }
    }

    /// Takes `bytes`.
    ///
    /// # Errors
    /// When they are more than what is left.
    pub fn take(&self, bytes: u64) -> Result<(), Exhausted> {
        let used = self.used.fetch_add(bytes, Ordering::Relaxed);
        match used.checked_add(bytes).is_some_and(|sum| sum <= self.limit) {
            true => Ok(()),
            false => {
                // Stays used up, and far from an overflow of the sum.
                self.used.fetch_max(self.limit, Ordering::Relaxed);
                Err(Exhausted(self.limit))
            }
        }
    }

    /// Bytes that it has in all.
    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// Bytes taken so far.
    pub fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }
}

/// Bytes of an inode in the arena and in the plan of a file system.
const INODE: u64 = 240;

/// Bytes of a directory beyond its inode: its map begins with room for eleven entries.
const DIR: u64 = 280;

/// Bytes of an entry in its directory's map.
const ENTRY: u64 = 64;

/// Bytes of an xattr beyond its name and value.
const XATTR: u64 = 112;

/// Content that an inode of a file keeps in memory.
pub trait Weigh {
    /// Bytes beyond the inode's own.
    fn weight(&self) -> u64 {
        0
    }
}

impl Weigh for () {}

impl Weigh for Name {
    /// Of an entry with this name.
    fn weight(&self) -> u64 {
        ENTRY + self.heap_bytes()
    }
}

impl Weigh for GuestPath {
    fn weight(&self) -> u64 {
        let names = self.0.iter().map(|name| size_of::<Name>() as u64 + name.heap_bytes());
        names.sum::<u64>() + ENTRY
    }
}

impl Weigh for Xattrs {
    fn weight(&self) -> u64 {
        // The writer holds a second copy of those that several inodes share.
        self.iter().map(|x| XATTR + 2 * (x.name.len() + x.value.len()) as u64).sum()
    }
}

impl<C: Weigh> Weigh for Inode<C> {
    fn weight(&self) -> u64 {
        let kind = match &self.kind {
            Kind::File(content) => content.weight(),
            Kind::Dir(_) => DIR,
            Kind::Symlink(target) => target.len() as u64,
            Kind::LowerLink(target) => target.weight(),
            _ => 0,
        };
        INODE + self.xattrs.weight() + kind
    }
}

impl<C: Weigh> Weigh for Tree<C> {
    fn weight(&self) -> u64 {
        let names = |inode: &Inode<C>| match &inode.kind {
            Kind::Dir(dir) => dir.entries.keys().map(Weigh::weight).sum(),
            _ => 0,
        };
        self.inodes.iter().map(|inode| inode.weight() + names(inode)).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_used_up_stays_so() {
        let budget = Budget::new(100);
        assert_eq!((budget.take(60), budget.take(40)), (Ok(()), Ok(())));
        for _ in 0..3 {
            assert_eq!(budget.take(u64::MAX), Err(Exhausted(100)));
        }
        assert_eq!(budget.take(1), Err(Exhausted(100)));
    }
}
