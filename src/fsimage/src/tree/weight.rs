//! How much memory trees take.
//!
//! A weight is at least the memory that is in use while the tree is read, merged and written: see
//! [`crate::budget`].

use crate::tree::arena::Tree;
use crate::tree::inode::{Inode, Kind};
use crate::tree::name::{GuestPath, Name};
use crate::tree::xattrs::Xattrs;

/// Bytes of an inode in the arena and in the plan of a file system.
const INODE: u64 = 240;

/// Bytes of a directory beyond its inode: its map begins with room for eleven entries.
const DIR: u64 = 280;

/// Bytes of an empty directory without xattrs.
pub const EMPTY_DIR: u64 = INODE + DIR;

/// Bytes of an entry in its directory's map.
const ENTRY: u64 = 64;

/// Bytes of an xattr beyond its name and value.
const XATTR: u64 = 112;

/// Content that an inode of a file keeps in memory.
pub trait Weigh {
    /// Bytes beyond the inode's own.
    fn weight(&self) -> u64 {
        0
    }
}

impl Weigh for () {}

impl Weigh for Name {
    /// Of an entry with this name.
    fn weight(&self) -> u64 {
        ENTRY + self.heap_bytes()
    }
}

impl Weigh for GuestPath {
    fn weight(&self) -> u64 {
        let names = self.0.iter().map(|name| size_of::<Name>() as u64 + name.heap_bytes());
        names.sum::<u64>() + ENTRY
    }
}

impl Weigh for Xattrs {
    fn weight(&self) -> u64 {
        // The writer holds a second copy of those that several inodes share.
        self.iter().map(|x| xattr(x.name.len(), x.value.len())).sum()
    }
}

/// Weight of an xattr with a name of `name` bytes and a value of `value` bytes.
pub fn xattr(name: usize, value: usize) -> u64 {
    XATTR + 2 * (name + value) as u64
}

impl<C: Weigh> Weigh for Inode<C> {
    fn weight(&self) -> u64 {
        let kind = match &self.kind {
            Kind::File(content) => content.weight(),
            Kind::Dir(_) => DIR,
            Kind::Symlink(target) => target.len() as u64,
            Kind::LowerLink(target) => target.weight(),
            _ => 0,
        };
        INODE + self.xattrs.weight() + kind
    }
}

impl<C: Weigh> Weigh for Tree<C> {
    fn weight(&self) -> u64 {
        let names = |inode: &Inode<C>| match &inode.kind {
            Kind::Dir(dir) => dir.entries.keys().map(Weigh::weight).sum(),
            _ => 0,
        };
        self.inodes.iter().map(|inode| inode.weight() + names(inode)).sum()
    }
}
