//! Why a tree cannot become a file system.

use std::io;

use crate::ext4::limits::MAX_FILE;

/// Why a tree cannot become a file system.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The size asked for, in bytes, is not that of a file system that is written here.
    #[error("{0} bytes: an ext4 image has 16 MiB to 16 TiB, in blocks of 4096 bytes")]
    Size(u64),
    /// The tree does not fit into `size` bytes, but fits into `least`.
    #[error("the tree does not fit: {size} bytes, and it needs {least}")]
    Full {
        /// Bytes of the file system that was asked for.
        size: u64,
        /// Bytes of a file system that has room for the tree.
        least: u64,
    },
    /// No file system of at most 16 TiB has room for the tree.
    #[error("the tree does not fit into 16 TiB, and ext4 has no more here")]
    Large,
    /// A file is larger than [`MAX_FILE`].
    #[error("{path}: {size} bytes; a file of ext4 has at most {MAX_FILE}")]
    FileSize {
        /// A path of the file.
        path: String,
        /// Its bytes, holes included.
        size: u64,
    },
    /// A file's content cannot be read, or is not what `Content` promises.
    #[error("{path}")]
    Content {
        /// A path of the file.
        path: String,
        /// Why it cannot be read, or what is promised and not so.
        source: io::Error,
    },
    /// The xattrs of the inode at this path have no room in its record and one block.
    #[error("{0}: its xattrs need more than the 4096 bytes that ext4 has for them")]
    Xattrs(String),
    /// The name of an xattr has none of the prefixes that ext4 knows.
    #[error("{path}: the xattr {name} is in a name space that ext4 does not have")]
    XattrName {
        /// A path of the inode.
        path: String,
        /// The full name of the xattr.
        name: String,
    },
    /// The inode at this path has an ACL that Linux would not take.
    #[error("{0}: an ACL that is not as Linux has them")]
    Acl(String),
    /// A file that is not a directory has more than 65000 names.
    #[error("{path}: {links} hard links; ext4 allows 65000")]
    Links {
        /// A path of the inode.
        path: String,
        /// How many names it has.
        links: u32,
    },
    /// The tree has, at this path, a hard link to a file of a lower layer.
    #[error("{0}: a hard link into a layer below has no place in an upper")]
    LowerLink(String),
    /// The symbolic link at this path has an empty target, one of more than 4095 bytes, or one
    /// with a NUL.
    #[error("{0}: a symbolic link's target must have 1 to 4095 bytes without NUL")]
    Symlink(String),
    /// The directory at this path has a second name.
    #[error("{0}: a directory with two names")]
    DirLinked(String),
    /// The image cannot be written.
    #[error(transparent)]
    Io(#[from] io::Error),
}
