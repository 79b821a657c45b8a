//! Reads an EROFS, and checks all of it: an image may be hostile.
//!
//! Shares the on-disk structures and the form of an image with the writers, and nothing
//! else. Serves the merge from
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
