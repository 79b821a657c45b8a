//! The arena: all inodes of a tree, and how they are reached.

use std::collections::HashMap;

use crate::tree::inode::{Dir, Inode, InodeId, Kind, Stat};
use crate::tree::name::GuestPath;
use crate::tree::xattrs::Xattrs;

/// A file tree; `C` is how a regular file's content is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tree<C> {
    pub(super) inodes: Vec<Inode<C>>,
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

    /// The inode `id` of this tree.
    pub fn inode(&self, id: InodeId) -> &Inode<C> {
        &self.inodes[id.0 as usize]
    }

    /// The inode `id` of this tree, to be changed.
    pub fn inode_mut(&mut self, id: InodeId) -> &mut Inode<C> {
        &mut self.inodes[id.0 as usize]
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

    /// A path of `id`, found by search: for messages, where it need not be fast.
    pub fn path_of(&self, id: InodeId) -> Option<GuestPath> {
        let mut path = GuestPath::default();
        // With the depth of the directory that each is in.
        let mut dirs = vec![(0, None, InodeId::ROOT)];
        while let Some((depth, name, at)) = dirs.pop() {
            path.0.truncate(depth);
            path.0.extend(name);
            if at == id {
                return Some(path);
            }
            let depth = path.0.len();
            for (name, child) in self.dir(at).into_iter().flat_map(|dir| &dir.entries) {
                if *child == id {
                    return Some(path.join(name));
                }
                if self.dir(*child).is_some() {
                    dirs.push((depth, Some(name.clone()), *child));
                }
            }
        }
        None
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
