//! What a layer's tar says, entry by entry, for layers whose tree does not say it.
//!
//! An entry in a directory that the layer does not describe, and a hard link to a
//! file that it does not have, mean what the layers below make of them: below may
//! be a symbolic link, through which the entry reaches another directory, and two
//! paths may be one. A layer with such entries keeps all of its entries in order;
//! the merge replays them, as umoci would have unpacked them.
//!
//! The journal is a directory of the layer's own root. Its name cannot be an
//! entry's, because the names that begin as it does were aufs's bookkeeping. Each
//! entry has a name that tells its place and an xattr that tells its path.

use std::collections::{HashMap, HashSet};

use super::weight::Weigh;
use crate::budget::{Budget, Exhausted};
use crate::tree::arena::{DirId, TooManyInodes, Tree};
use crate::tree::inode::{Dir, Inode, InodeId, Kind, Stat};
use crate::tree::name::{BadName, GuestPath, Name};
use crate::tree::xattrs::Xattrs;

/// The journal's name in the root of a layer.
const JOURNAL: &[u8] = b".wh..wh.rootfs-compile";

/// In a journal: the path that the tar gives an entry.
const PATH: &[u8] = b"trusted.rootfs-compile.path";

/// Where aufs kept files that have hard links elsewhere, by inode number.
pub const PLINKS: &[u8] = b".wh..wh.plnk";

/// An entry of a tar. What hides lower content is a [`Kind::Whiteout`], or a
/// directory that is opaque and has no description; a hard link is a
/// [`Kind::LowerLink`].
#[derive(Debug)]
pub struct JournalEntry<C> {
    /// As bytes: components would take several times the memory.
    path: Box<[u8]>,
    /// The file, directory, link or mark that the tar has there.
    pub inode: Inode<C>,
}

impl<C> JournalEntry<C> {
    /// The path that the tar gives the entry.
    ///
    /// # Errors
    /// When a component of the path is not a name.
    pub fn path(&self) -> Result<GuestPath, BadName> {
        GuestPath::parse(&self.path)
    }
}

/// The entries of one layer: those that its tree stood for when the journal began, in the
/// tree's order, and from then on those of the tar, in the tar's order.
#[derive(Debug)]
pub struct Journal(Vec<InodeId>);

impl Journal {
    /// The journal of a layer whose `tree` says all so far. `whiteouts` are not in
    /// the tree yet, and `plinks` never will be: files that aufs kept.
    ///
    /// # Errors
    /// When `budget` has less than the entries need, or the tree would have more than 2³²
    /// inodes.
    pub fn begin<C: Clone + Weigh>(
        tree: &mut Tree<C>,
        whiteouts: impl Iterator<Item = (DirId, Name)>,
        plinks: impl Iterator<Item = (GuestPath, InodeId)>,
        budget: &Budget,
    ) -> Result<Self, CannotKeep> {
        let whiteouts: Vec<(DirId, Name)> = whiteouts.collect();
        let mut plinks: Vec<(GuestPath, InodeId)> = plinks.collect();
        plinks.sort();
        let mut so_far = SoFar::new(tree, whiteouts.iter().map(|(dir, _)| dir.inode()), budget);
        for (path, id) in plinks {
            so_far.add(&path, Said::Inode(id))?;
            so_far.paths.insert(id, path.to_bytes().into());
        }
        so_far.tree()?;
        for (dir, name) in whiteouts {
            if let Some(dir) = so_far.paths.get(&dir.inode()) {
                let path = GuestPath::parse(dir).expect("names of the tree").join(&name);
                so_far.add(&path, Said::Whiteout)?;
            }
        }
        let SoFar { entries, .. } = so_far;
        let mut journal = Self(Vec::new());
        for (path, said) in entries {
            let inode = match said {
                Said::Inode(id) => tree.inode(id).clone(),
                Said::Dir(id) => {
                    let inode = tree.inode(id);
                    let kind = Kind::Dir(Dir::default());
                    Inode { stat: inode.stat, xattrs: inode.xattrs.clone(), kind }
                }
                Said::Opaque => Self::opaque(),
                Said::Whiteout => Self::whiteout(),
                Said::Link(first) => {
                    Self::link(GuestPath::parse(&first).expect("names of the tree"))
                }
            };
            journal.add(tree, &path, inode, budget)?;
        }
        Ok(journal)
    }

    /// The next entry of the tar, whose path is `path`.
    ///
    /// # Errors
    /// When `budget` has less than the entry needs, or the tree would have more than 2³²
    /// inodes.
    pub fn add<C: Weigh>(
        &mut self,
        tree: &mut Tree<C>,
        path: &[u8],
        mut inode: Inode<C>,
        budget: &Budget,
    ) -> Result<(), CannotKeep> {
        inode.xattrs.set(PATH, path);
        budget.take(inode.weight())?;
        self.0.push(tree.push(inode)?);
        Ok(())
    }

    /// An entry that hides what lower layers have at its path.
    pub fn whiteout<C>() -> Inode<C> {
        Self::mark(Kind::Whiteout)
    }

    /// An entry that hides all that lower layers have in the directory at its path.
    pub fn opaque<C>() -> Inode<C> {
        Self::mark(Kind::Dir(Dir { opaque: true, implied: true, ..Dir::default() }))
    }

    /// An entry that is a hard link to `target`.
    pub fn link<C>(target: GuestPath) -> Inode<C> {
        Self::mark(Kind::LowerLink(target))
    }

    fn mark<C>(kind: Kind<C>) -> Inode<C> {
        Inode { stat: Stat::IMPLIED_DIR, xattrs: Xattrs::default(), kind }
    }

    /// Puts the journal into the tree, so that the layer's object has it.
    ///
    /// # Errors
    /// When the tree holds 2³² inodes already.
    pub fn store<C>(self, tree: &mut Tree<C>) -> Result<(), TooManyInodes> {
        let name = |place: usize| Name::new(format!("{place:08x}").as_bytes());
        let entries = self.0.into_iter().enumerate();
        let entries = entries.filter_map(|(place, id)| Some((name(place).ok()?, id)));
        let dir = Dir { entries: entries.collect(), ..Dir::default() };
        let journal = Self::mark(Kind::Dir(dir));
        // A short name without a slash.
        Name::new(JOURNAL).map_or(Ok(()), |name| tree.add(DirId::ROOT, name, journal).map(drop))
    }
}

/// Why an entry cannot be kept.
#[derive(Debug, thiserror::Error)]
pub enum CannotKeep {
    /// The tree would have more than 2³² inodes.
    #[error(transparent)]
    TooMany(#[from] TooManyInodes),
    /// The budget of memory is used up.
    #[error(transparent)]
    Exhausted(#[from] Exhausted),
}

/// What an entry of the tar said, as far as the tree still tells.
enum Said {
    Inode(InodeId),
    /// A directory as it is described.
    Dir(InodeId),
    Opaque,
    Whiteout,
    /// A hard link to the file at this path.
    Link(Box<[u8]>),
}

/// The entries that a tree stands for, as its journal begins with them.
struct SoFar<'t, C> {
    tree: &'t Tree<C>,
    entries: Vec<(Box<[u8]>, Said)>,
    /// The first path of each inode that is named again: by a hard link, or by a
    /// whiteout in it.
    paths: HashMap<InodeId, Box<[u8]>>,
    named_again: HashSet<InodeId>,
    budget: &'t Budget<'t>,
}

impl<'t, C> SoFar<'t, C> {
    fn new(
        tree: &'t Tree<C>,
        dirs_of_whiteouts: impl Iterator<Item = InodeId>,
        budget: &'t Budget<'t>,
    ) -> Self {
        let mut seen = vec![false; tree.len()];
        let mut named_again: HashSet<InodeId> = dirs_of_whiteouts.collect();
        for inode in &tree.inodes {
            let Kind::Dir(dir) = &inode.kind else {
                continue;
            };
            for child in dir.entries.values() {
                if std::mem::replace(&mut seen[child.0 as usize], true) {
                    named_again.insert(*child);
                }
            }
        }
        Self { tree, entries: Vec::new(), paths: HashMap::new(), named_again, budget }
    }

    fn add(&mut self, path: &GuestPath, said: Said) -> Result<(), Exhausted> {
        let path = path.to_bytes();
        self.budget.take(path.len() as u64 + ENTRY)?;
        self.entries.push((path.into(), said));
        Ok(())
    }

    /// Adds what the tree says, directory by directory.
    fn tree(&mut self) -> Result<(), Exhausted> {
        let tree = self.tree;
        let mut walk = tree.walk();
        while let Some(id) = walk.next() {
            let (path, dir) = (&mut walk.path, &tree[id]);
            self.first_path(id.inode(), path)?;
            if !dir.implied {
                self.add(path, Said::Dir(id.inode()))?;
            }
            if dir.opaque {
                self.add(path, Said::Opaque)?;
            }
            let files = dir.entries.iter().filter(|(_, child)| tree.dir_id(**child).is_none());
            for (name, child) in files {
                path.0.push(name.clone());
                match self.paths.get(child) {
                    Some(first) => {
                        let first = first.clone();
                        self.add(path, Said::Link(first))?;
                    }
                    None => self.add(path, Said::Inode(*child))?,
                }
                self.first_path(*child, path)?;
                path.0.pop();
            }
        }
        Ok(())
    }

    fn first_path(&mut self, id: InodeId, path: &GuestPath) -> Result<(), Exhausted> {
        if self.named_again.contains(&id) && !self.paths.contains_key(&id) {
            let path = path.to_bytes();
            self.budget.take(path.len() as u64 + ENTRY)?;
            self.paths.insert(id, path.into());
        }
        Ok(())
    }
}

/// Bytes of an entry, or of the first path of an inode, beyond the path's own.
const ENTRY: u64 = 64;

/// A journal that no compiler wrote.
#[derive(Debug, thiserror::Error)]
#[error("the journal of its entries is damaged")]
pub struct Damaged;

/// Takes the entries of `layer` out of it, if it has a journal.
///
/// # Errors
/// When the object was not written by this compiler, or was changed since.
pub fn take<C>(layer: &mut Tree<C>) -> Result<Option<Vec<JournalEntry<C>>>, Damaged> {
    let Some(journal) = layer[DirId::ROOT].entries.remove(JOURNAL) else {
        return Ok(None);
    };
    let names = std::mem::take(&mut layer.dir_mut(journal).ok_or(Damaged)?.entries);
    let entry = |id: InodeId| {
        let mut inode = layer.take(id);
        let path = inode.xattrs.remove(PATH).ok_or(Damaged)?;
        Ok(JournalEntry { path, inode })
    };
    names.into_values().map(entry).collect::<Result<_, _>>().map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_journal_whose_entries_have_no_path_is_damaged() {
        let mut layer: Tree<()> = Tree::new(Stat::IMPLIED_DIR);
        assert!(take(&mut layer).unwrap().is_none());
        let budget = Budget::new(Budget::DEFAULT);
        let nothing = (std::iter::empty(), std::iter::empty());
        let mut journal = Journal::begin(&mut layer, nothing.0, nothing.1, &budget).unwrap();
        let path = GuestPath::parse(b"a/b").unwrap();
        journal.add(&mut layer, b"a/b", Journal::whiteout(), &budget).unwrap();
        journal.store(&mut layer).unwrap();
        let mut damaged = layer.clone();
        damaged.inodes_mut().for_each(|inode| inode.xattrs = Xattrs::default());
        assert!(take(&mut damaged).is_err());
        let entries = take(&mut layer).unwrap().unwrap();
        // The root itself is described, as it is in this tree.
        assert_eq!(entries.last().unwrap().path().unwrap(), path);
        assert!(take(&mut layer).unwrap().is_none());
    }
}
