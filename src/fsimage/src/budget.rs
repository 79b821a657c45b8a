//! Bounds that several readers share against inputs that are made to exhaust the machine.
//!
//! A few bytes of a compressed layer can name a million directories, or give an
//! xattr of 64 KiB to each of a million files. So whatever a build keeps of its
//! layers is weighed as it comes, and the sum has one limit.
//!
//! Errors name a limit by the option of `rootfs-compile` that raises it. For
//! `--max-metadata-bytes`, a program of one's own makes a larger [`Budget`]; for `--max-steps`,
//! larger [`Steps`]; and for `--max-depth`, it sets [`Bounds::max_depth`].

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Zeros that the readers of bundles hash at most for files whose data lie far apart,
/// and so the most that a build can be allowed to write.
pub const MAX_SPARSE: u64 = 32 << 30;

/// How many times as long as its blob a layer may be at no cost: what gzip makes
/// of zeros is 1/1030 of them, and hardly anything else comes near.
pub const EXPANSION: u64 = 1024;

/// An amount that all layers of a build share: of memory, or of what they write.
///
/// Only an attempt that fails gives back what it took. Nothing else does, so that threads use
/// up the same sum in any order.
#[derive(Debug)]
pub struct Budget<'w> {
    limit: u64,
    used: AtomicU64,
    /// What this is a part of.
    whole: Option<&'w Budget<'w>>,
}

impl Default for Budget<'_> {
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

impl Budget<'_> {
    /// Bytes that a build, or a reader of a bundle, allows by default.
    pub const DEFAULT: u64 = 1280 << 20;

    /// A budget of `limit` bytes, of which nothing is taken yet.
    pub const fn new(limit: u64) -> Self {
        Self { limit, used: AtomicU64::new(0), whole: None }
    }

    /// What `attempt` makes, and what that took of this budget, at most `limit`. It took
    /// nothing if it failed, whatever for.
    ///
    /// # Errors
    /// Those of `attempt`.
    pub fn attempt<T, E>(
        &self,
        limit: u64,
        attempt: impl FnOnce(&Budget<'_>) -> Result<T, E>,
    ) -> Result<T, E> {
        let part = Budget { limit, used: AtomicU64::new(0), whole: Some(self) };
        let made = attempt(&part);
        if made.is_err() {
            // Invariant: of the whole, at least that is in use.
            self.used.fetch_sub(part.used(), Ordering::Relaxed);
        }
        made
    }

    /// Takes `bytes`.
    ///
    /// # Errors
    /// When they are more than what is left.
    pub fn take(&self, bytes: u64) -> Result<(), Exhausted> {
        let added = self.add(bytes);
        match (self.whole, added) {
            (None, Ok(())) => Ok(()),
            (None, Err(error)) => {
                // Stays used up: whether it is enough depends on no order.
                self.used.fetch_max(self.limit, Ordering::Relaxed);
                Err(error)
            }
            (Some(_), Err(error)) => Err(error),
            (Some(whole), Ok(())) => whole.add(bytes).inspect_err(|_| {
                self.used.fetch_sub(bytes, Ordering::Relaxed);
            }),
        }
    }

    /// Takes `bytes`, if there are so many.
    fn add(&self, bytes: u64) -> Result<(), Exhausted> {
        let sum = |used: u64| used.checked_add(bytes).filter(|sum| *sum <= self.limit);
        let added = self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, sum);
        added.map(drop).map_err(|_| Exhausted(self.limit))
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

/// Weight that a [`Tally`] takes from its budget at once: a share of it that does not
/// matter, and so much that threads do not wait for each other.
const PAID_AT_ONCE: u64 = 1 << 18;

/// Takes from a budget what comes in many small pieces.
///
/// Invariant: what was counted and not yet paid is less than `PAID_AT_ONCE`, so a
/// reader that counts each piece before the next keeps no more than the budget has.
#[derive(Debug)]
pub struct Tally<'b> {
    budget: &'b Budget<'b>,
    due: Cell<u64>,
}

impl<'b> Tally<'b> {
    /// Counts for `budget`, beginning with nothing.
    pub fn new(budget: &'b Budget<'b>) -> Self {
        Self { budget, due: Cell::new(0) }
    }

    /// Counts `bytes` that are kept.
    ///
    /// # Errors
    /// When the budget has no more.
    pub fn count(&self, bytes: u64) -> Result<(), Exhausted> {
        let due = self.due.get().saturating_add(bytes);
        self.due.set(due);
        if due < PAID_AT_ONCE { Ok(()) } else { self.pay() }
    }

    /// Takes from the budget what was counted since the last time.
    ///
    /// # Errors
    /// When the budget has no more.
    pub fn pay(&self) -> Result<(), Exhausted> {
        self.budget.take(self.due.take())
    }
}

/// Work on names, of all layers and patches of a build together: components of
/// paths, of symbolic links on them, and records of extended headers.
///
/// Forty links can stand on one path, each with two thousand components, and an
/// entry with such a path costs a layer some bytes.
#[derive(Debug)]
pub struct Steps {
    left: Budget<'static>,
    refused: AtomicBool,
}

impl Default for Steps {
    fn default() -> Self {
        Self::new(Self::DEFAULT)
    }
}

/// More work on names than the limit allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "its paths, with those of the other layers and of patches, take more than {0} steps, of which \
     each component, each one of a symbolic link on the way, and each record of an extended header \
     is one (raise --max-steps to allow it)"
)]
pub struct TooManySteps(pub u64);

impl Steps {
    /// A hundred for each of five million paths.
    pub const DEFAULT: u64 = 1 << 29;

    /// An allowance of `limit` steps, of which none is taken yet.
    pub const fn new(limit: u64) -> Self {
        Self { left: Budget::new(limit), refused: AtomicBool::new(false) }
    }

    /// Takes `steps`.
    ///
    /// # Errors
    /// When they are more than what is left.
    pub fn take(&self, steps: usize) -> Result<(), TooManySteps> {
        self.left.take(steps as u64).map_err(|Exhausted(limit)| {
            self.refused.store(true, Ordering::Relaxed);
            TooManySteps(limit)
        })
    }

    /// Whether more were ever wanted than there are: for those who try a path and go
    /// on where it leads nowhere.
    ///
    /// # Errors
    /// When they were.
    pub fn check(&self) -> Result<(), TooManySteps> {
        match self.refused.load(Ordering::Relaxed) {
            true => Err(TooManySteps(self.left.limit())),
            false => Ok(()),
        }
    }
}

/// What walks over paths, of a layer or a merge, may use up.
#[derive(Clone, Copy, Debug)]
pub struct Bounds<'b> {
    /// Pays for the memory of what is kept.
    pub budget: &'b Budget<'b>,
    /// Pays for the components of paths.
    pub steps: &'b Steps,
    /// Components that a path may have when its symbolic links are followed.
    pub max_depth: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_that_were_refused_are_remembered() {
        let steps = Steps::new(10);
        assert_eq!((steps.take(10), steps.check()), (Ok(()), Ok(())));
        assert_eq!((steps.take(1), steps.check()), (Err(TooManySteps(10)), Err(TooManySteps(10))));
    }

    #[test]
    fn what_is_used_up_stays_so() {
        let budget = Budget::new(100);
        assert_eq!((budget.take(60), budget.take(40)), (Ok(()), Ok(())));
        for _ in 0..3 {
            assert_eq!(budget.take(u64::MAX), Err(Exhausted(100)));
        }
        assert_eq!(budget.take(1), Err(Exhausted(100)));
    }
    #[test]
    fn an_attempt_that_fails_takes_nothing() {
        let budget = Budget::new(100);
        budget.take(10).unwrap();
        let failed: Result<(), Exhausted> = budget.attempt(100, |part| {
            part.take(80)?;
            assert_eq!(budget.used(), 90);
            part.take(11)
        });
        assert_eq!((failed, budget.used()), (Err(Exhausted(100)), 10));
        let failed = budget.attempt(50, |part| part.take(51));
        assert_eq!((failed, budget.used()), (Err(Exhausted(50)), 10));
        assert_eq!(budget.attempt(100, |part| part.take(u64::MAX)), Err(Exhausted(100)));
        assert_eq!(budget.attempt(50, |part| part.take(50)), Ok(()));
        assert_eq!((budget.used(), budget.take(40)), (60, Ok(())));
    }
}
