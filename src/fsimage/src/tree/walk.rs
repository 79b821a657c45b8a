//! Ways through a tree: its directories with their paths, and every inode once.

use crate::tree::arena::{DirId, Tree};
use crate::tree::inode::InodeId;
use crate::tree::name::{GuestPath, Name};

/// The directories of a tree, each before those in it, and of those in one directory the
/// last before the first. [`DirWalk::path`] tells where the one is that came last.
///
/// One path grows and shrinks: all of them, kept at once, could be many times as large as
/// the tree.
#[derive(Debug)]
pub struct DirWalk<'t, C> {
    tree: &'t Tree<C>,
    /// The path of the directory that came last. Whoever adds names to it takes them away
    /// again before the next.
    pub path: GuestPath,
    /// What comes later: how deep the directory is that each is in, and its name there.
    due: Vec<(usize, Option<&'t Name>, DirId)>,
}

impl<C> Iterator for DirWalk<'_, C> {
    type Item = DirId;

    /// Terminates if each directory has one name, as in every tree that was read or merged.
    fn next(&mut self) -> Option<DirId> {
        let (depth, name, dir) = self.due.pop()?;
        self.path.0.truncate(depth);
        self.path.0.extend(name.cloned());
        let depth = self.path.0.len();
        for (name, child) in &self.tree[dir].entries {
            if let Some(child) = self.tree.dir_id(*child) {
                self.due.push((depth, Some(name), child));
            }
        }
        Some(dir)
    }
}

/// An inode that the root leads to.
pub(crate) struct Reached {
    pub id: InodeId,
    /// The directory that holds it (of a hard link: the first that does).
    pub parent: DirId,
    /// How many names lead to it; of a directory, 2 and one for each directory in it.
    pub nlink: u32,
}

impl<C> Tree<C> {
    /// Walks the directories.
    pub fn walk(&self) -> DirWalk<'_, C> {
        DirWalk { tree: self, path: GuestPath::default(), due: vec![(0, None, DirId::ROOT)] }
    }

    /// A path of `id`, found by search: for messages, where it need not be fast.
    pub fn path_of(&self, id: InodeId) -> Option<GuestPath> {
        let mut walk = self.walk();
        while let Some(dir) = walk.next() {
            if dir.inode() == id {
                return Some(walk.path);
            }
            if let Some((name, _)) = self[dir].entries.iter().find(|(_, child)| **child == id) {
                return Some(walk.path.join(name));
            }
        }
        None
    }

    /// Every inode that the root leads to, once: the root first, and the children of a
    /// directory together.
    ///
    /// # Errors
    /// With a directory that has two names.
    pub(crate) fn reached(&self) -> Result<Vec<Reached>, DirId> {
        let mut seen = vec![u32::MAX; self.len()];
        let mut order = vec![Reached { id: InodeId::ROOT, parent: DirId::ROOT, nlink: 2 }];
        seen[0] = 0;
        let mut dirs = vec![DirId::ROOT];
        let mut children = Vec::new();
        while let Some(parent) = dirs.pop() {
            for id in self[parent].entries.values().copied() {
                let dir = self.dir_id(id);
                let known = &mut seen[id.0 as usize];
                if *known != u32::MAX {
                    if let Some(dir) = dir {
                        return Err(dir);
                    }
                    order[*known as usize].nlink += 1;
                    continue;
                }
                *known = order.len() as u32;
                order.push(Reached { id, parent, nlink: if dir.is_some() { 2 } else { 1 } });
                if let Some(dir) = dir {
                    order[seen[parent.inode().0 as usize] as usize].nlink += 1;
                    children.push(dir);
                }
            }
            dirs.extend(children.drain(..).rev());
        }
        Ok(order)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::inode::{Inode, Kind, Stat};
    use crate::tree::xattrs::Xattrs;

    fn name(text: &str) -> Name {
        Name::new(text.as_bytes()).unwrap()
    }

    #[test]
    fn directories_come_before_those_in_them_and_inodes_once() {
        let fifo =
            || Inode { stat: Stat::IMPLIED_DIR, xattrs: Xattrs::default(), kind: Kind::Fifo };
        let mut part: Tree<()> = Tree::new(Stat::IMPLIED_DIR);
        let sub = part.add_dir(DirId::ROOT, name("sub"), Stat::IMPLIED_DIR).unwrap();
        let file = part.add(sub, name("file"), fifo()).unwrap();
        part[DirId::ROOT].entries.insert(name("again"), file);

        let mut tree: Tree<()> = Tree::new(Stat::IMPLIED_DIR);
        tree.add_dir(DirId::ROOT, name("a"), Stat::IMPLIED_DIR).unwrap();
        let b = tree.append(part).unwrap();
        tree[DirId::ROOT].entries.insert(name("b"), b.inode());
        let mut walk = tree.walk();
        let mut paths = Vec::new();
        while walk.next().is_some() {
            paths.push(walk.path.to_string());
        }
        assert_eq!(paths, ["/", "b", "b/sub", "a"]);

        let reached = tree.reached().unwrap();
        let counts: Vec<u32> = reached.iter().map(|inode| inode.nlink).collect();
        // The root, a and b in it, the file in b, the directory in b.
        assert_eq!(counts, [4, 2, 3, 2, 2]);
        assert_eq!(tree.path_of(reached[3].id).unwrap().to_string(), "b/again");
        tree[DirId::ROOT].entries.insert(name("c"), b.inode());
        assert_eq!(tree.reached().err(), Some(b));
    }
}
