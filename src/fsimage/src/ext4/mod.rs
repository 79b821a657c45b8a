//! ext4: the writable upper, written front to back without mkfs.
//!
//! A [`Layout`] has a number for each inode (`nodes`) and blocks for its content
//! (`layout`). To write it, `plan` fixes all records, and `encode` emits them in
//! the order of their addresses; only then is a file's content asked for its
//! bytes, and it may stream them. What is zero becomes a hole, so an upper costs
//! what is in it, whatever its size.
//!
//! [`read`] goes the other way, and shares only the records with the writer; but
//! `read::check` encodes again, to see that nothing else could have been written.

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
use self::layout::Blocks;
pub use self::limits::{MAX_FILE, MAX_SIZE, MIN_SIZE};
use self::nodes::Nodes;
use self::plan::Plan;
use crate::io::sink::Sink;
use crate::tree::arena::Tree;
use crate::tree::xattrs::Xattrs;

/// A tree that is laid out in a file system: its inodes have numbers, and its contents have
/// blocks. Whiteouts become character devices 0:0, opaque directories get overlayfs's xattr, as
/// overlayfs itself leaves them.
#[derive(Debug)]
pub struct Layout<'t, C> {
    tree: &'t Tree<C>,
    nodes: Nodes,
    blocks: Blocks,
    size: u64,
}

impl<'t, C: Content> Layout<'t, C> {
    /// Lays `tree` out in `size` bytes.
    ///
    /// # Errors
    /// When `size` is not a size of [`MIN_SIZE`] to [`MAX_SIZE`] in whole blocks, ext4 cannot
    /// hold `tree` or the size is too small for it ([`Error::Full`]), or where a file's data are
    /// cannot be found out.
    pub fn at(tree: &'t Tree<C>, size: u64) -> Result<Self, Error> {
        Self::of(tree, Nodes::new(tree)?, size)
    }

    fn of(tree: &'t Tree<C>, nodes: Nodes, size: u64) -> Result<Self, Error> {
        if !(MIN_SIZE..=MAX_SIZE).contains(&size) || !size.is_multiple_of(disk::BLOCK as u64) {
            return Err(Error::Size(size));
        }
        let Ok(blocks) = Blocks::new(&nodes, size) else {
            let (least, _) = layout::least(&nodes, size, 0)?;
            return Err(Error::Full { size, least });
        };
        Ok(Self { tree, nodes, blocks, size })
    }

    /// Lays `tree` out in a size, in whole MiB, that leaves at least `free` bytes of blocks to
    /// the guest.
    ///
    /// # Errors
    /// When ext4 cannot hold `tree` whatever the size, a size of 16 TiB is too small, or where a
    /// file's data are cannot be found out.
    pub fn leaving(tree: &'t Tree<C>, free: u64) -> Result<Self, Error> {
        let nodes = Nodes::new(tree)?;
        let (size, blocks) = layout::least(&nodes, MIN_SIZE, free)?;
        Ok(Self { tree, nodes, blocks, size })
    }

    /// The same tree in a file system of at least `size` bytes.
    ///
    /// # Errors
    /// As [`Layout::at`].
    pub fn at_least(self, size: u64) -> Result<Self, Error> {
        if size <= self.size { Ok(self) } else { Self::of(self.tree, self.nodes, size) }
    }

    /// Bytes of the file system.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Writes the file system into `sink`, from its start. UUID and hash seed come from `seed`,
    /// which should come from the content. A [`FileSink`](crate::io::sink::FileSink) has all of it
    /// only when it is finished, with an empty head.
    ///
    /// # Errors
    /// When a file's content cannot be read or is not what [`Content`] promises, or `sink` does
    /// not take the image.
    pub fn write(&self, seed: &[u8; 32], sink: &mut dyn Sink) -> Result<(), Error> {
        let plan = Plan::new(self.tree, &self.nodes, &self.blocks, (self.size, seed));
        encode::image(&plan, self.tree, self.size, sink)
    }
}

/// Whether ext4 has room for `xattrs`, and name spaces for their names.
///
/// # Errors
/// When they need more room than ext4 has, a name has a prefix that ext4 does not know, or an
/// ACL is not as Linux has them.
pub fn check_xattrs(xattrs: &Xattrs) -> Result<(), Error> {
    xattr::place(xattrs).map(drop).map_err(|error| error.of("the file"))
}
