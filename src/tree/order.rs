//! When the entries of a layer came in its tar.
//!
//! Within a layer's own tree a later entry has replaced an earlier one already.
//! The order is still needed where only the layers below tell that two paths are
//! one (a symbolic link leads from one to the other), and where a hard link's
//! target has two answers: the file as a layer below has it, and the file as this
//! layer has it later on.

use std::collections::{BTreeMap, HashMap};

use super::{InodeId, Name};

/// The places of a layer's entries in its tar. The first entry has 2, because
/// the root is there before it; in a tree that is not a layer's all have 0.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Order {
    /// By inode: the entry that made it, of a directory the one that described
    /// it last.
    inodes: Vec<u32>,
    /// Entries that are further names of an inode, by directory.
    links: HashMap<InodeId, BTreeMap<Name, u32>>,
}

/// A directory with more further names than this has none of their places: an
/// object keeps them in one xattr of the directory.
const MAX_LINKS: usize = 8_000;

impl Order {
    /// The place of the root, which no entry needs to name.
    pub const ROOT: u32 = 1;

    /// The place of the entry `name` in `dir`, which leads to `id`.
    pub fn of(&self, dir: InodeId, name: &Name, id: InodeId) -> u32 {
        let link = self.links.get(&dir).and_then(|links| links.get(name));
        link.copied().unwrap_or_else(|| self.inode(id))
    }

    /// The place of the entry that made or described `id`.
    pub fn inode(&self, id: InodeId) -> u32 {
        self.inodes.get(id.0 as usize).copied().unwrap_or(0)
    }

    pub fn set_inode(&mut self, id: InodeId, place: u32) {
        let at = id.0 as usize;
        if self.inodes.len() <= at {
            self.inodes.resize(at + 1, 0);
        }
        self.inodes[at] = place;
    }

    /// `name` in `dir` is a further name of an inode.
    pub fn set_link(&mut self, dir: InodeId, name: Name, place: u32) {
        self.links.entry(dir).or_default().insert(name, place);
    }

    /// `name` in `dir` no longer leads where it led; returns its place if it was
    /// a further name.
    pub fn take_link(&mut self, dir: InodeId, name: &Name) -> Option<u32> {
        self.links.get_mut(&dir)?.remove(name)
    }

    /// The further names in `dir`.
    pub fn links(&self, dir: InodeId) -> Option<&BTreeMap<Name, u32>> {
        self.links.get(&dir).filter(|links| !links.is_empty())
    }

    /// Forgets what an object could not keep, so that a tree from the cache is the
    /// tree that was compiled.
    pub fn forget_excess(&mut self) {
        self.links.retain(|_, links| (1..=MAX_LINKS).contains(&links.len()));
    }
}
