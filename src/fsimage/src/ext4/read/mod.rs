//! Reads an ext4 and believes nothing.
//!
//! Shares only the on-disk structures with the writer. [`Reader`] takes any ext4: the
//! upper of a bundle, one that a guest has written to, unmounted or not, and what
//! mke2fs makes, with block maps, inline data, xattrs in inodes of their own and
//! hashed directories. [`check`] is stricter: it accepts
//! only the upper of a bundle, as a build of this project would have written it.
//!
//! Invariant: what is read is bounded by what the file really holds. Metadata that
//! lie in a hole are an error, every block belongs to one inode, and every
//! directory has one name; so a walk ends, and its tree is no larger than a small
//! multiple of the file's data.

mod check;
mod claims;
mod content;
mod dir;
mod error;
mod group;
mod inode;
mod journal;
mod mapping;
mod open;
mod overlay;
mod reader;
mod superblock;
mod tree;
mod xattr;

pub use self::check::check;
pub use self::content::{FileData, OnDisk};
pub use self::error::ReadError;
pub use self::mapping::Run;
pub use self::reader::Reader;
pub use self::superblock::Superblock;
pub use self::tree::with_marks;
