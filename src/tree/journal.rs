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

use std::collections::HashMap;

use super::{Dir, GuestPath, Inode, InodeId, Kind, Name, Stat, TooManyInodes, Tree, Xattrs};

/// The journal's name in the root of a layer.
const JOURNAL: &[u8] = b".wh..wh.rootfs-compile";

/// In a journal: the path that the tar gives an entry.
const PATH: &[u8] = b"trusted.rootfs-compile.path";

/// Where aufs kept files that have hard links elsewhere, by inode number.
pub const PLINKS: &[u8] = b".wh..wh.plnk";

/// An entry of a tar. What hides lower content is a [`Kind::Whiteout`], or a
/// directory that is opaque and has no description; a hard link is a
/// [`Kind::LowerLink`].
pub struct Entry<C> {
    pub path: GuestPath,
    pub inode: Inode<C>,
}

/// The entries of one layer, in the order of its tar.
pub struct Journal(Vec<InodeId>);

impl Journal {
    /// The journal of a layer whose `tree` says all so far. `whiteouts` are not in
    /// the tree yet, and `plinks` never will be: files that aufs kept.
    pub fn begin<C: Clone>(
        tree: &mut Tree<C>,
        whiteouts: impl Iterator<Item = (InodeId, Name)>,
        plinks: impl Iterator<Item = (GuestPath, InodeId)>,
    ) -> Result<Self, TooManyInodes> {
        let mut entries = Vec::new();
        // The first path of each inode; its other names are hard links to it.
        let mut paths: HashMap<InodeId, GuestPath> = HashMap::new();
        let mut plinks: Vec<(GuestPath, InodeId)> = plinks.collect();
        plinks.sort();
        for (path, id) in plinks {
            entries.push((path.clone(), tree.inode(id).clone()));
            paths.insert(id, path);
        }
        let mut dirs = vec![(InodeId::ROOT, GuestPath::default())];
        while let Some((id, path)) = dirs.pop() {
            let inode = tree.inode(id);
            let Kind::Dir(dir) = &inode.kind else {
                continue;
            };
            if !dir.implied {
                let kind = Kind::Dir(Dir::default());
                let (stat, xattrs) = (inode.stat, inode.xattrs.clone());
                entries.push((path.clone(), Inode { stat, xattrs, kind }));
            }
            if dir.opaque {
                entries.push((path.clone(), Self::opaque()));
            }
            for (name, child) in &dir.entries {
                let path = path.join(name);
                if tree.dir(*child).is_some() {
                    dirs.push((*child, path.clone()));
                } else if let Some(first) = paths.get(child) {
                    entries.push((path.clone(), Self::link(first.clone())));
                } else {
                    entries.push((path.clone(), tree.inode(*child).clone()));
                }
                paths.entry(*child).or_insert(path);
            }
            paths.entry(id).or_insert(path);
        }
        for (dir, name) in whiteouts {
            if let Some(path) = paths.get(&dir) {
                entries.push((path.join(&name), Self::whiteout()));
            }
        }
        let mut journal = Self(Vec::new());
        for (path, inode) in entries {
            journal.add(tree, &path, inode)?;
        }
        Ok(journal)
    }

    /// The next entry of the tar.
    pub fn add<C>(
        &mut self,
        tree: &mut Tree<C>,
        path: &GuestPath,
        mut inode: Inode<C>,
    ) -> Result<(), TooManyInodes> {
        inode.xattrs.set(PATH, path.to_bytes());
        self.0.push(tree.push(inode)?);
        Ok(())
    }

    pub fn whiteout<C>() -> Inode<C> {
        Self::mark(Kind::Whiteout)
    }

    pub fn opaque<C>() -> Inode<C> {
        Self::mark(Kind::Dir(Dir { opaque: true, implied: true, ..Dir::default() }))
    }

    pub fn link<C>(target: GuestPath) -> Inode<C> {
        Self::mark(Kind::LowerLink(target))
    }

    fn mark<C>(kind: Kind<C>) -> Inode<C> {
        Inode { stat: Stat::IMPLIED_DIR, xattrs: Xattrs::default(), kind }
    }

    /// Puts the journal into the tree, so that the layer's object has it.
    pub fn store<C>(self, tree: &mut Tree<C>) -> Result<(), TooManyInodes> {
        let name = |place: usize| Name::new(format!("{place:08x}").as_bytes());
        let entries = self.0.into_iter().enumerate();
        let entries = entries.filter_map(|(place, id)| Some((name(place).ok()?, id)));
        let dir = Dir { entries: entries.collect(), ..Dir::default() };
        let id = tree.push(Self::mark(Kind::Dir(dir)))?;
        if let (Ok(name), Some(root)) = (Name::new(JOURNAL), tree.dir_mut(InodeId::ROOT)) {
            root.entries.insert(name, id);
        }
        Ok(())
    }
}

/// A journal that no compiler wrote.
#[derive(Debug, thiserror::Error)]
#[error("the journal of its entries is damaged")]
pub struct Damaged;

/// Takes the entries of `layer` out of it, if it has a journal.
///
/// # Errors
/// When the object was not written by this compiler, or was changed since.
pub fn take<C>(layer: &mut Tree<C>) -> Result<Option<Vec<Entry<C>>>, Damaged> {
    let root = layer.dir_mut(InodeId::ROOT).ok_or(Damaged)?;
    let Some(journal) = root.entries.remove(JOURNAL) else {
        return Ok(None);
    };
    let names = std::mem::take(&mut layer.dir_mut(journal).ok_or(Damaged)?.entries);
    let entry = |id: InodeId| {
        let mut inode = layer.take(id);
        let path = inode.xattrs.remove(PATH).ok_or(Damaged)?;
        Ok(Entry { path: GuestPath::parse(&path).map_err(|_| Damaged)?, inode })
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
        let mut journal =
            Journal::begin(&mut layer, std::iter::empty(), std::iter::empty()).unwrap();
        let path = GuestPath::parse(b"a/b").unwrap();
        journal.add(&mut layer, &path, Journal::whiteout()).unwrap();
        journal.store(&mut layer).unwrap();
        let mut damaged = layer.clone();
        damaged.inodes_mut().for_each(|inode| inode.xattrs = Xattrs::default());
        assert!(take(&mut damaged).is_err());
        let entries = take(&mut layer).unwrap().unwrap();
        // The root itself is described, as it is in this tree.
        assert_eq!(entries.last().map(|entry| &entry.path), Some(&path));
        assert!(take(&mut layer).unwrap().is_none());
    }
}
