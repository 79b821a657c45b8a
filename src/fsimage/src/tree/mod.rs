//! A file tree in memory: an arena of inodes, and directories that name them.
//!
//! One type serves a layer (which may hold whiteouts, opaque and implied
//! directories and links into lower layers), the merged image, and the upper.

pub(super) mod arena;
mod error;
pub mod extents;
pub(super) mod file_type;
pub(super) mod inode;
pub mod journal;
pub mod merge;
pub(super) mod name;
mod notes;
mod replay;
pub mod resolve;
pub mod walk;
pub mod weight;
pub(super) mod xattrs;

pub use self::arena::{DirId, TooManyInodes, Tree};
pub use self::error::MergeError;
pub use self::file_type::FileType;
pub use self::inode::{Dir, Inode, InodeId, Kind, Rdev, Stat, Timestamp};
pub use self::name::{BadName, GuestPath, Name, shown};
pub use self::xattrs::{DROPPED_XATTRS, PRIVATE_XATTRS, Xattr, Xattrs};
