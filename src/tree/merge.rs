//! One tree of many layers: the link step.
//!
//! Each layer costs what it has itself, never what lies below: two directories
//! are walked side by side only where the layer has one. A layer with a
//! [`journal`] is replayed instead.

use super::extents::Extents;
use super::replay::Replay;
use super::{DROPPED_XATTRS, GuestPath, Inode, InodeId, Kind, Stat, TooManyInodes, Tree, journal};
use crate::units::DeviceId;

/// Why layers do not make a tree.
#[derive(Debug, thiserror::Error)]
pub enum MergeError {
    #[error("{0}: symbolic links lead in a circle")]
    Loop(String),
    #[error("{0}: a symbolic link on the way has a target that cannot be a path")]
    LinkTarget(String),
    #[error("{path}: a hard link to {target}, which neither this layer nor one below has")]
    LinkNowhere { path: String, target: String },
    #[error("{0}: a hard link to a directory")]
    LinkToDir(String),
    #[error("{path}: its target {target} is a hard link too, and they lead in a circle")]
    LinkLoop { path: String, target: String },
    #[error(transparent)]
    Journal(#[from] journal::Damaged),
    #[error(transparent)]
    TooMany(#[from] TooManyInodes),
}

/// What a user may want to know of a layer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Notes {
    /// Directories that the layer names through a symbolic link of a layer
    /// below, and where their entries went.
    pub through_links: Vec<(GuestPath, GuestPath)>,
    /// Directories that are one although the layer has something else with their
    /// name: another entry's path goes through it.
    pub over_files: Vec<GuestPath>,
    /// Xattrs that were not taken over: path, and names joined by NUL.
    pub dropped_xattrs: Vec<(GuestPath, Box<[u8]>)>,
}

/// The tree of all layers so far.
pub struct Merger<C> {
    tree: Tree<C>,
}

impl<C> Default for Merger<C> {
    fn default() -> Self {
        Self { tree: Tree::new(Stat::IMPLIED_DIR) }
    }
}

/// Says of all extents of `layer` that they lie on `device`.
pub fn on_device(mut layer: Tree<Extents>, device: DeviceId) -> Tree<Extents> {
    for inode in layer.inodes_mut() {
        if let Kind::File(extents) = &mut inode.kind {
            extents.runs.iter_mut().for_each(|run| run.device = device);
        }
    }
    layer
}

impl<C> Merger<C> {
    /// Begins with what is merged already.
    pub fn over(tree: Tree<C>) -> Self {
        Self { tree }
    }

    /// How many inodes the arena holds so far.
    pub fn len(&self) -> usize {
        self.tree.len()
    }

    /// Never: there is always a root.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// Puts `layer` on top.
    pub fn add(&mut self, layer: Tree<C>) -> Result<Notes, MergeError> {
        self.add_watched(layer, &mut |_, _| {})
    }

    /// As [`Merger::add`]; `before` sees every directory that it is about to
    /// change, or may change, as it still is.
    pub fn add_watched(
        &mut self,
        mut layer: Tree<C>,
        before: &mut dyn FnMut(InodeId, &Inode<C>),
    ) -> Result<Notes, MergeError> {
        if let Some(entries) = journal::take(&mut layer)? {
            return Replay::new(&mut self.tree, before)?.run(entries);
        }
        let notes = take_dropped_xattrs(&mut layer);
        // From here on, the layer's inodes live in the merged arena.
        let shift = u32::try_from(self.tree.len()).map_err(|_| TooManyInodes)?;
        for mut inode in layer.into_inodes() {
            if let Kind::Dir(dir) = &mut inode.kind {
                dir.entries.values_mut().for_each(|id| id.0 = id.0.saturating_add(shift));
            }
            self.tree.push(inode)?;
        }
        self.overlay(InodeId(shift), before);
        Ok(notes)
    }

    /// The merged tree. Its arena may hold inodes that nothing leads to.
    pub fn finish(self) -> Tree<C> {
        self.tree
    }

    /// Lays a layer that describes every directory in which it has something over
    /// the tree of all below.
    fn overlay(&mut self, layer_root: InodeId, before: &mut dyn FnMut(InodeId, &Inode<C>)) {
        let mut pairs = vec![(InodeId::ROOT, layer_root)];
        while let Some((base, top)) = pairs.pop() {
            before(base, self.tree.inode(base));
            let inode = self.tree.inode_mut(top);
            let (stat, xattrs) = (inode.stat, std::mem::take(&mut inode.xattrs));
            let dir = std::mem::take(self.tree.dir_mut(top).expect("pairs are directories"));
            if !dir.implied {
                let inode = self.tree.inode_mut(base);
                (inode.stat, inode.xattrs) = (stat, xattrs);
            }
            let mut entries = std::mem::take(
                &mut self.tree.dir_mut(base).expect("pairs are directories").entries,
            );
            if dir.opaque {
                entries.clear();
            }
            if entries.is_empty() {
                // Nothing is below: most directories stay the maps that they are.
                entries = dir.entries;
                entries.retain(|_, id| match &self.tree.inode(*id).kind {
                    Kind::Whiteout => false,
                    Kind::Dir(_) => {
                        pairs.push((*id, *id));
                        true
                    }
                    _ => true,
                });
                self.tree.dir_mut(base).expect("pairs are directories").entries = entries;
                continue;
            }
            for (name, id) in dir.entries {
                match &self.tree.inode(id).kind {
                    Kind::Whiteout => {
                        entries.remove(&name);
                    }
                    Kind::Dir(_) => match entries.get(&name) {
                        Some(known) if self.tree.dir(*known).is_some() => pairs.push((*known, id)),
                        _ => {
                            // Nothing is below: it is laid over itself, which takes its
                            // marks away.
                            entries.insert(name, id);
                            pairs.push((id, id));
                        }
                    },
                    _ => {
                        entries.insert(name, id);
                    }
                }
            }
            self.tree.dir_mut(base).expect("pairs are directories").entries = entries;
        }
    }
}

/// Takes the notes of xattrs that the layer lost out of its tree.
fn take_dropped_xattrs<C>(layer: &mut Tree<C>) -> Notes {
    let mut notes = Notes::default();
    let mut dirs = vec![(InodeId::ROOT, GuestPath::default())];
    let mut found = Vec::new();
    while let Some((id, path)) = dirs.pop() {
        for (name, child) in layer.dir(id).into_iter().flat_map(|dir| &dir.entries) {
            let inode = layer.inode(*child);
            if inode.xattrs.get(DROPPED_XATTRS).is_some() {
                found.push((*child, path.join(name)));
            }
            if let Kind::Dir(_) = inode.kind {
                dirs.push((*child, path.join(name)));
            }
        }
    }
    found.push((InodeId::ROOT, GuestPath::default()));
    let names = found.iter().filter_map(|(id, path)| {
        let names = layer.inode(*id).xattrs.get(DROPPED_XATTRS)?;
        Some((path.clone(), names.into()))
    });
    notes.dropped_xattrs = names.collect();
    notes.dropped_xattrs.sort();
    for (id, _) in found {
        layer.inode_mut(id).xattrs.remove(DROPPED_XATTRS);
    }
    notes
}

#[cfg(test)]
mod tests;
