//! ext4: the writable upper, written front to back without mkfs.
//!
//! [`plan`] numbers inodes and places blocks, [`encode`] emits them in the
//! order of their addresses. What is zero becomes a hole, so an upper costs
//! what is in it, whatever its size.

mod dirent;
mod disk;
mod encode;
mod extent;
mod geometry;
mod journal;
mod plan;
mod xattr;

use std::io;

use crate::sink::Sink;
use crate::tree::Tree;

/// The smallest file system, in bytes.
pub const MIN_SIZE: u64 = 16 << 20;
/// The largest, in bytes.
pub const MAX_SIZE: u64 = 16 << 40;

/// What a file system is made to be, besides its tree.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Bytes of the image: [`MIN_SIZE`] to [`MAX_SIZE`], whole blocks.
    pub size: u64,
    /// UUID and hash seed come from this, so it should come from the content.
    pub seed: [u8; 32],
}

/// Why a tree is no file system.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{0} bytes: an ext4 image has 16 MiB to 16 TiB, in blocks of 4096 bytes")]
    Size(u64),
    #[error("the tree does not fit: {size} bytes, and it needs about {least}")]
    Full { size: u64, least: u64 },
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

/// Writes `tree` as a file system of `options.size` bytes into `sink`.
/// Whiteouts become character devices 0:0, opaque directories get overlayfs's
/// xattr, as overlayfs itself leaves them.
pub fn write(tree: &Tree<Vec<u8>>, options: &Options, sink: &mut dyn Sink) -> Result<(), Error> {
    if !(MIN_SIZE..=MAX_SIZE).contains(&options.size)
        || !options.size.is_multiple_of(disk::BLOCK as u64)
    {
        return Err(Error::Size(options.size));
    }
    let plan = plan::Plan::new(tree, options)?;
    encode::image(&plan, options.size, sink)?;
    Ok(())
}
