//! What is wrong with an EROFS image.

use crate::units::Nid;

/// What is wrong with a file system.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error("superblock: {0}")]
    SuperBlock(String),
    #[error("inode {}: {what}", nid.0)]
    Inode { nid: Nid, what: String },
    #[error("directory {}, entry {name:?}: {what}", nid.0)]
    Dirent { nid: Nid, name: String, what: String },
}

pub(super) fn bad(nid: Nid, what: impl Into<String>) -> ReadError {
    ReadError::Inode { nid, what: what.into() }
}

pub(super) type Result<T, E = ReadError> = std::result::Result<T, E>;
