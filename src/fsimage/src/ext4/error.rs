//! Why a tree cannot become a file system.

use std::io;

use crate::ext4::limits::MAX_FILE;

/// Why a tree is no file system.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{0} bytes: an ext4 image has 16 MiB to 16 TiB, in blocks of 4096 bytes")]
    Size(u64),
    /// It does fit into `least`.
    #[error("the tree does not fit: {size} bytes, and it needs {least}")]
    Full { size: u64, least: u64 },
    #[error("the tree does not fit into 16 TiB, and ext4 has no more here")]
    Large,
    #[error("{path}: {size} bytes; a file of ext4 has at most {MAX_FILE}")]
    FileSize { path: String, size: u64 },
    #[error("{path}")]
    Content { path: String, source: io::Error },
    #[error("{0}: its xattrs need more than the 4096 bytes that ext4 has for them")]
    Xattrs(String),
    #[error("{path}: the xattr {name} is in a name space that ext4 does not have")]
    XattrName { path: String, name: String },
    #[error("{0}: an ACL that is not as Linux has them")]
    Acl(String),
    #[error("{path}: {links} hard links; ext4 allows 65000")]
    Links { path: String, links: u32 },
    #[error("{0}: a hard link into a layer below has no place in an upper")]
    LowerLink(String),
    #[error("{0}: a symbolic link's target must have 1 to 4095 bytes without NUL")]
    Symlink(String),
    #[error("{0}: a directory with two names")]
    DirLinked(String),
    #[error(transparent)]
    Io(#[from] io::Error),
}
