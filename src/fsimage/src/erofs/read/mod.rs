//! Reads an EROFS, and checks all of it: an image may be hostile.
//!
//! Shares only the on-disk structures with the writers. Serves the merge from
//! cached objects, `verify`, and the tests' round trip.

mod content;
mod error;
mod inode;
mod reader;
#[cfg(test)]
mod tests;
mod walk;

pub use self::error::ReadError;
pub use self::reader::Reader;
