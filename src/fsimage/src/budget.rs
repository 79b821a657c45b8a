//! Bounds that several readers share against inputs that are made to exhaust the machine.
//!
//! A few bytes of a compressed layer can name a million directories, or give an
//! xattr of 64 KiB to each of a million files. So whatever a build keeps of its
//! layers is weighed as it comes, and the sum has one limit.

use std::sync::atomic::{AtomicU64, Ordering};

/// Zeros that the readers of bundles hash at most for files whose data lie far apart,
/// and so the most that a build can be allowed to write.
pub const MAX_SPARSE: u64 = 32 << 30;

/// How many times as long as its blob a layer may be at no cost: what gzip makes
/// of zeros is 1/1030 of them, and hardly anything else comes near.
pub const EXPANSION: u64 = 1024;

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
