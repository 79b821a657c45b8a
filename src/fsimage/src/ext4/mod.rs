//! ext4: the writable upper, written front to back without mkfs.
//!
//! [`nodes`] numbers inodes, [`layout`] gives them blocks, [`plan`] fixes all
//! records, and [`encode`] emits them in the order of their addresses; only
//! then is a file's content asked for its bytes, and it may stream them. What
//! is zero becomes a hole, so an upper costs what is in it, whatever its size.
//!
//! [`read`] goes the other way, and shares only the records with the writer.

mod content;
mod dirent;
mod disk;
mod encode;
mod extent;
mod geometry;
mod journal;
mod layout;
mod nodes;
mod plan;
pub mod read;
mod xattr;

use std::io;

pub use content::Content;

use crate::io::sink::Sink;
use crate::tree::{Tree, Xattrs};

/// The smallest file system, in bytes.
pub const MIN_SIZE: u64 = 16 << 20;
/// The largest, in bytes.
pub const MAX_SIZE: u64 = 16 << 40;
/// The largest file, in bytes: its blocks are counted in 32 bits.
pub const MAX_FILE: u64 = u32::MAX as u64 * disk::BLOCK as u64;

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

/// Writes `tree` as a file system of `options.size` bytes into `sink`.
/// Whiteouts become character devices 0:0, opaque directories get overlayfs's
/// xattr, as overlayfs itself leaves them.
pub fn write<C: Content>(
    tree: &Tree<C>,
    options: &Options,
    sink: &mut dyn Sink,
) -> Result<(), Error> {
    if !(MIN_SIZE..=MAX_SIZE).contains(&options.size)
        || !options.size.is_multiple_of(disk::BLOCK as u64)
    {
        return Err(Error::Size(options.size));
    }
    let plan = plan::Plan::new(tree, options)?;
    encode::image(&plan, tree, options.size, sink)
}

/// Whether `tree` fits into a file system of `size` bytes.
pub fn fits<C: Content>(tree: &Tree<C>, size: u64) -> Result<bool, Error> {
    Ok(layout::Layout::new(&nodes::Nodes::new(tree)?, size).is_ok())
}

/// Whether ext4 has room for `xattrs`, and name spaces for their names.
pub fn check_xattrs(xattrs: &Xattrs) -> Result<(), Error> {
    xattr::place(xattrs).map(drop).map_err(|error| error.of("the file"))
}

/// A size, in whole MiB, at which `tree` fits and leaves at least `free`
/// bytes of blocks to the guest.
pub fn least_size<C: Content>(tree: &Tree<C>, free: u64) -> Result<u64, Error> {
    layout::least_size(&nodes::Nodes::new(tree)?, MIN_SIZE, free)
}
