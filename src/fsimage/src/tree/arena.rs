//! The arena: all inodes of a tree, and how they are reached.

use std::collections::HashMap;
use std::ops::{Index, IndexMut};

use crate::tree::inode::{Dir, Inode, InodeId, Kind, Stat};
use crate::tree::name::{GuestPath, Name};
use crate::tree::xattrs::Xattrs;

/// A file tree; `C` is how a regular file's content is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tree<C> {
    pub(super) inodes: Vec<Inode<C>>,
}

/// An inode that is known to be a directory: `tree[dir]` has its entries.
///
/// Invariant: an inode that is a directory stays one. So it is asked once, by
/// [`Tree::dir_id`], and its entries are there for whoever has the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DirId(InodeId);

impl DirId {
    /// The root directory, which every tree has.
    pub const ROOT: DirId = DirId(InodeId::ROOT);

    /// The directory's inode.
    pub fn inode(self) -> InodeId {
        self.0
    }
}

/// A tree would need more than 2³² inodes.
#[derive(Debug, thiserror::Error)]
#[error("more than 2^32 inodes")]
pub struct TooManyInodes;

impl<C> Tree<C> {
    /// A tree of one empty directory.
    pub fn new(root: Stat) -> Self {
        let kind = Kind::Dir(Dir::default());
        Self { inodes: vec![Inode { stat: root, xattrs: Xattrs::default(), kind }] }
    }

    /// How many inodes the arena holds, reachable or not.
    pub fn len(&self) -> usize {
        self.inodes.len()
    }

    /// Never: there is always a root.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// Adds an inode that no directory names yet.
    ///
    /// # Errors
    /// When the arena holds 2³² inodes already.
    pub fn push(&mut self, inode: Inode<C>) -> Result<InodeId, TooManyInodes> {
        let id = u32::try_from(self.inodes.len()).map_err(|_| TooManyInodes)?;
        self.inodes.push(inode);
        Ok(InodeId(id))
    }

    /// Adds an inode under `name` of the directory `dir`, in the place of what is there.
    ///
    /// # Errors
    /// When the arena holds 2³² inodes already.
    pub fn add(
        &mut self,
        dir: DirId,
        name: Name,
        inode: Inode<C>,
    ) -> Result<InodeId, TooManyInodes> {
        let id = self.push(inode)?;
        self[dir].entries.insert(name, id);
        Ok(id)
    }

    /// Adds an empty directory that no directory names yet.
    ///
    /// # Errors
    /// When the arena holds 2³² inodes already.
    pub fn push_dir(&mut self, stat: Stat) -> Result<DirId, TooManyInodes> {
        let kind = Kind::Dir(Dir::default());
        self.push(Inode { stat, xattrs: Xattrs::default(), kind }).map(DirId)
    }

    /// Adds an empty directory under `name` of the directory `dir`, in the place of what is
    /// there.
    ///
    /// # Errors
    /// When the arena holds 2³² inodes already.
    pub fn add_dir(&mut self, dir: DirId, name: Name, stat: Stat) -> Result<DirId, TooManyInodes> {
        let new = self.push_dir(stat)?;
        self[dir].entries.insert(name, new.0);
        Ok(new)
    }

    /// Adds all inodes of `other`, and returns what was its root. No directory of this tree
    /// names any of them yet.
    ///
    /// # Errors
    /// When the arena would hold more than 2³² inodes; it is as it was then.
    pub fn append(&mut self, other: Self) -> Result<DirId, TooManyInodes> {
        let shift = u32::try_from(self.inodes.len()).map_err(|_| TooManyInodes)?;
        let last = self.inodes.len() + (other.inodes.len() - 1);
        u32::try_from(last).map_err(|_| TooManyInodes)?;
        self.inodes.reserve(other.inodes.len());
        for mut inode in other.inodes {
            if let Kind::Dir(dir) = &mut inode.kind {
                dir.entries.values_mut().for_each(|id| id.0 += shift);
            }
            self.inodes.push(inode);
        }
        Ok(DirId(InodeId(shift)))
    }

    /// The inode `id` of this tree.
    pub fn inode(&self, id: InodeId) -> &Inode<C> {
        &self.inodes[id.0 as usize]
    }

    /// The inode `id` of this tree, to be changed. A directory must stay a directory.
    pub fn inode_mut(&mut self, id: InodeId) -> &mut Inode<C> {
        &mut self.inodes[id.0 as usize]
    }

    /// `id` as that of a directory, or `None` if it is something else.
    pub fn dir_id(&self, id: InodeId) -> Option<DirId> {
        matches!(self.inode(id).kind, Kind::Dir(_)).then_some(DirId(id))
    }

    /// The directory `id`, or `None` if it is something else.
    pub fn dir(&self, id: InodeId) -> Option<&Dir> {
        match &self.inode(id).kind {
            Kind::Dir(dir) => Some(dir),
            _ => None,
        }
    }

    /// The directory `id`, or `None` if it is something else.
    pub fn dir_mut(&mut self, id: InodeId) -> Option<&mut Dir> {
        match &mut self.inode_mut(id).kind {
            Kind::Dir(dir) => Some(dir),
            _ => None,
        }
    }

    /// Whether `id` is a directory that only whiteouts in it imply.
    ///
    /// `known` has what was found before, of it and of what is below: that stays
    /// true when such a directory becomes a whiteout, and when another one is
    /// described. So each directory is looked into once.
    pub fn is_hollow(&self, id: InodeId, known: &mut HashMap<InodeId, bool>) -> bool {
        // A directory comes twice: before those in it, and behind them.
        let mut dirs = vec![(id, false)];
        while let Some((id, behind)) = dirs.pop() {
            if known.contains_key(&id) {
                continue;
            }
            let hollow = |child: &InodeId| match self.inode(*child).kind {
                Kind::Whiteout => Some(true),
                Kind::Dir(_) => known.get(child).copied(),
                _ => Some(false),
            };
            let Some(dir) = self.dir(id).filter(|dir| dir.implied) else {
                known.insert(id, false);
                continue;
            };
            if behind || dir.entries.values().any(|child| hollow(child) == Some(false)) {
                let all = dir.entries.values().all(|child| hollow(child) == Some(true));
                known.insert(id, all);
                continue;
            }
            dirs.push((id, true));
            let unknown = dir.entries.values().filter(|child| hollow(child).is_none());
            dirs.extend(unknown.map(|child| (*child, false)));
        }
        known[&id]
    }

    /// The inode `id`, which no name may lead to any more.
    pub(super) fn take(&mut self, id: InodeId) -> Inode<C> {
        let none = Inode { stat: Stat::IMPLIED_DIR, xattrs: Xattrs::default(), kind: Kind::Fifo };
        std::mem::replace(self.inode_mut(id), none)
    }

    /// What `path` names, no symbolic link followed.
    pub fn lookup(&self, path: &GuestPath) -> Option<InodeId> {
        path.0.iter().try_fold(InodeId::ROOT, |at, name| self.dir(at)?.entries.get(name).copied())
    }

    /// The same tree, with contents that are known in another way.
    pub fn map_files<D>(self, mut map: impl FnMut(C) -> D) -> Tree<D> {
        let inodes = self.inodes.into_iter().map(|inode| {
            let kind = match inode.kind {
                Kind::File(content) => Kind::File(map(content)),
                Kind::Dir(dir) => Kind::Dir(dir),
                Kind::Symlink(target) => Kind::Symlink(target),
                Kind::Char(rdev) => Kind::Char(rdev),
                Kind::Block(rdev) => Kind::Block(rdev),
                Kind::Fifo => Kind::Fifo,
                Kind::Socket => Kind::Socket,
                Kind::Whiteout => Kind::Whiteout,
                Kind::LowerLink(target) => Kind::LowerLink(target),
            };
            Inode { stat: inode.stat, xattrs: inode.xattrs, kind }
        });
        Tree { inodes: inodes.collect() }
    }

    /// Every inode of the arena, reachable or not.
    pub fn ids(&self) -> impl Iterator<Item = InodeId> + use<C> {
        // There are no more: `push` sees to that.
        (0..self.inodes.len() as u32).map(InodeId)
    }

    /// Every inode of the arena, reachable or not, in the order of their ids.
    pub fn inodes_mut(&mut self) -> impl Iterator<Item = &mut Inode<C>> {
        self.inodes.iter_mut()
    }

    /// The inodes of the arena, taken apart.
    pub fn into_inodes(self) -> Vec<Inode<C>> {
        self.inodes
    }
}

impl<C> Index<DirId> for Tree<C> {
    type Output = Dir;

    fn index(&self, dir: DirId) -> &Dir {
        match &self.inode(dir.0).kind {
            Kind::Dir(dir) => dir,
            _ => unreachable!("a directory stays a directory"),
        }
    }
}

impl<C> IndexMut<DirId> for Tree<C> {
    fn index_mut(&mut self, dir: DirId) -> &mut Dir {
        match &mut self.inode_mut(dir.0).kind {
            Kind::Dir(dir) => dir,
            _ => unreachable!("a directory stays a directory"),
        }
    }
}
