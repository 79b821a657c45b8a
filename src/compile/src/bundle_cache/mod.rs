//! Bundles that were compiled to be run, kept by what was asked for.
//!
//! `bundles/<hex>/` belongs to one question: a hash of all that was typed. In it,
//! `<number>/<name>` is a bundle, `record.json` says which one is the answer and of
//! which files it was made, and `lock` is locked by whoever compiles. The answer
//! holds as long as those files are as they were.
//!
//! A new answer has a new number, so that a bundle never changes under a machine
//! that is about to open it; the answer before the last is removed. The record
//! appears by rename when its bundle is there, and its mtime is when it was last
//! used. All of it may be deleted at any time.
//!
//! A place is its user's own: whatever another user owns in it is no answer, and
//! neither used nor removed. Others may be able to rename what is above it: a place and
//! a bundle are opened once, and what was opened is what is looked at, made and started,
//! whatever its path leads to by then.

mod check;
mod input;
mod place;
mod record;
mod remove;
#[cfg(test)]
mod tests;

pub use self::check::check;
pub use self::place::{Attempt, BundleSlot, CachedBundle, Guard};
pub use crate::bundle_cache::record::Origin;
