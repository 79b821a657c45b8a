//! What is wrong with a file system.

use std::io;

/// What is wrong with a file system.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error("superblock: {0}")]
    Superblock(String),
    #[error("block group {group}: {what}")]
    Group { group: u32, what: String },
    /// `path` is known once a directory led to the inode.
    #[error("inode {ino}{}: {what}", at(path))]
    Inode { ino: u32, path: Option<String>, what: String },
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
