//! What is wrong with a file system.

use std::io;

/// What is wrong with a file system.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The superblock or the journal is wrong, in the way that the text says.
    #[error("superblock: {0}")]
    Superblock(String),
    /// The descriptor of a block group is wrong, or its bitmaps, its inode table or its copy of
    /// the superblock.
    #[error("block group {group}: {what}")]
    Group {
        /// Number of the group, from 0 on.
        group: u32,
        /// What is wrong with it.
        what: String,
    },
    /// An inode, its xattrs or its content is wrong, or exceeds the budget of memory.
    /// `path` is known once a directory led to the inode.
    #[error("inode {ino}{}: {what}", at(path))]
    Inode {
        /// The inode's number, from 1 on.
        ino: u32,
        /// A path of the inode; `None` if no directory led to it yet.
        path: Option<String>,
        /// What is wrong with it.
        what: String,
    },
    /// The file that holds the file system cannot be read.
    #[error("reading the file system")]
    Io(#[from] io::Error),
}

pub(super) type Result<T, E = ReadError> = std::result::Result<T, E>;

pub(super) fn bad(ino: u32, what: impl Into<String>) -> ReadError {
    ReadError::Inode { ino, path: None, what: what.into() }
}

pub(super) fn at(path: &Option<String>) -> String {
    path.as_ref().map(|path| format!(" (/{path})")).unwrap_or_default()
}
