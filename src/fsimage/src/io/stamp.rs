//! Whether a file is still the one that was looked at.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;

/// What stat(2) tells of a file. Whatever changes the file changes some of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    dev: u64,
    ino: u64,
    /// Bytes of the file, holes included.
    pub size: u64,
    /// Every write changes it, but the file's owner can set it back.
    mtime: (i64, i64),
    /// Nobody can set it back, but it changes as well when the file gets or loses a name.
    ctime: (i64, i64),
}

impl Stamp {
    /// The stamp of the file that has `metadata`.
    pub fn of(metadata: &Metadata) -> Self {
        Self {
            dev: metadata.dev(),
            ino: metadata.ino(),
            size: metadata.size(),
            mtime: (metadata.mtime(), metadata.mtime_nsec()),
            ctime: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    /// Whether it is the same file, and nobody wrote to it as far as mtime and size tell.
    pub fn is_unwritten_since(&self, other: &Self) -> bool {
        Self { ctime: other.ctime, ..*self } == *other
    }
}
