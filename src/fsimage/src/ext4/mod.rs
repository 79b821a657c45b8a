//! ext4: the writable upper, written front to back without mkfs.
//!
//! `nodes` numbers inodes, `layout` gives them blocks, `plan` fixes all
//! records, and `encode` emits them in the order of their addresses; only
//! then is a file's content asked for its bytes, and it may stream them. What
//! is zero becomes a hole, so an upper costs what is in it, whatever its size.
//!
//! [`read`] goes the other way, and shares only the records with the writer.

mod content;
mod dirent;
mod disk;
mod encode;
mod error;
mod extent;
mod geometry;
mod journal;
mod layout;
mod limits;
mod nodes;
mod plan;
pub mod read;
mod xattr;

pub use content::Content;

pub use self::error::Error;
pub use self::limits::{MAX_FILE, MAX_SIZE, MIN_SIZE, Options};
use crate::io::sink::Sink;
use crate::tree::arena::Tree;
use crate::tree::xattrs::Xattrs;

/// Writes `tree` as a file system of `options.size` bytes into `sink`.
/// Whiteouts become character devices 0:0, opaque directories get overlayfs's
/// xattr, as overlayfs itself leaves them.
///
/// # Errors
/// When `options.size` is not a size of [`MIN_SIZE`] to [`MAX_SIZE`] in whole blocks, ext4
/// cannot hold `tree` or the size is too small for it, a file's content cannot be read, or
/// `sink` does not take the image.
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
///
/// # Errors
/// When ext4 cannot hold `tree` whatever the size, or where a file's data are cannot be found
/// out.
pub fn fits<C: Content>(tree: &Tree<C>, size: u64) -> Result<bool, Error> {
    Ok(layout::Layout::new(&nodes::Nodes::new(tree)?, size).is_ok())
}

/// Whether ext4 has room for `xattrs`, and name spaces for their names.
///
/// # Errors
/// When they need more room than ext4 has, a name has a prefix that ext4 does not know, or an
/// ACL is not as Linux has them.
pub fn check_xattrs(xattrs: &Xattrs) -> Result<(), Error> {
    xattr::place(xattrs).map(drop).map_err(|error| error.of("the file"))
}

/// A size, in whole MiB, at which `tree` fits and leaves at least `free`
/// bytes of blocks to the guest.
///
/// # Errors
/// When ext4 cannot hold `tree` whatever the size, or a size of 16 TiB is too small.
pub fn least_size<C: Content>(tree: &Tree<C>, free: u64) -> Result<u64, Error> {
    layout::least_size(&nodes::Nodes::new(tree)?, MIN_SIZE, free)
}
