//! What is wrong with an EROFS image.

use crate::erofs::disk::BadSuperBlock;
use crate::units::Nid;

/// What is wrong with a file system.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The superblock or the device table is wrong, in the way that the text says.
    #[error("superblock: {0}")]
    SuperBlock(#[from] BadSuperBlock),
    /// An inode, its xattrs or its content is wrong, or exceeds the budget of memory.
    #[error("inode {}: {what}", nid.0)]
    Inode {
        /// The inode's number.
        nid: Nid,
        /// What is wrong with it.
        what: String,
    },
    /// An entry of a directory is wrong.
    #[error("directory {}, entry {name:?}: {what}", nid.0)]
    Dirent {
        /// The directory's number.
        nid: Nid,
        /// The entry's name, non-printable bytes escaped.
        name: String,
        /// What is wrong with the entry.
        what: String,
    },
}

pub(super) fn bad(nid: Nid, what: impl Into<String>) -> ReadError {
    ReadError::Inode { nid, what: what.into() }
}

pub(super) type Result<T, E = ReadError> = std::result::Result<T, E>;
