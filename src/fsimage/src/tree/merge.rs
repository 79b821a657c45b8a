//! One tree of many layers: the link step.
//!
//! Each layer costs what it has itself, never what lies below: two directories
//! are walked side by side only where the layer has one. A layer with a
//! [`journal`] is replayed instead.

use std::collections::HashMap;

use super::error::MergeError;
use super::extents::Extents;
use super::journal;
pub use super::notes::Notes;
use super::replay::Replay;
use super::weight::Weigh;
use crate::budget::Bounds;
use crate::tree::arena::{TooManyInodes, Tree};
use crate::tree::inode::{Inode, InodeId, Kind, Stat};
use crate::tree::name::GuestPath;
use crate::tree::xattrs::DROPPED_XATTRS;
use crate::units::DeviceId;

/// The tree of all layers so far.
pub struct Merger<'b, C> {
    tree: Tree<C>,
    bounds: Bounds<'b>,
    /// Those of the topmost layer, empty, but for what they count.
    notes: Notes,
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

impl<'b, C: Weigh> Merger<'b, C> {
    /// Begins with an empty directory. What the merge makes and walks is taken from
    /// `bounds`; the caller has taken what the layers hold themselves.
    pub fn new(bounds: Bounds<'b>) -> Self {
        Self::over(Tree::new(Stat::IMPLIED_DIR), bounds)
    }

    /// As [`Merger::new`], but begins with what is merged already.
    pub fn over(tree: Tree<C>, bounds: Bounds<'b>) -> Self {
        Self { tree, bounds, notes: Notes::default() }
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
    ///
    /// # Errors
    /// When the layer's journal is damaged, an entry of it cannot be placed, or a bound of the
    /// merge is reached; the merged tree may have a part of the layer then.
    pub fn add(&mut self, layer: Tree<C>) -> Result<Notes, MergeError> {
        self.add_watched(layer, &mut |_, _| {})
    }

    /// As [`Merger::add`]; `before` sees every directory that it is about to
    /// change, or may change, as it still is.
    ///
    /// # Errors
    /// Those of [`Merger::add`].
    pub fn add_watched(
        &mut self,
        mut layer: Tree<C>,
        before: &mut dyn FnMut(InodeId, &Inode<C>),
    ) -> Result<Notes, MergeError> {
        let mut notes = Notes::above(&self.notes);
        if let Some(entries) = journal::take(&mut layer)? {
            let notes = Replay::new(&mut self.tree, before, self.bounds, notes)?.run(entries)?;
            self.notes = notes.counts();
            return Ok(notes);
        }
        take_dropped_xattrs(&mut layer, &mut notes);
        self.notes = notes.counts();
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

/// Takes what is noted of xattrs that the layer lost out of its tree.
fn take_dropped_xattrs<C>(layer: &mut Tree<C>, notes: &mut Notes) {
    let mut dropped = HashMap::new();
    for (id, inode) in (0..).zip(layer.inodes_mut()) {
        if let Some(names) = inode.xattrs.remove(DROPPED_XATTRS) {
            dropped.insert(InodeId(id), names);
        }
    }
    if dropped.is_empty() {
        return;
    }
    if let Some(names) = dropped.get(&InodeId::ROOT) {
        notes.dropped_xattrs(&GuestPath::default(), names);
    }
    let mut path = GuestPath::default();
    let mut dirs = vec![(0, None, InodeId::ROOT)];
    while let Some((depth, name, id)) = dirs.pop() {
        path.0.truncate(depth);
        path.0.extend(name);
        let depth = path.0.len();
        for (name, child) in layer.dir(id).into_iter().flat_map(|dir| &dir.entries) {
            if let Some(names) = dropped.get(child) {
                path.0.push(name.clone());
                notes.dropped_xattrs(&path, names);
                path.0.truncate(depth);
            }
            if layer.dir(*child).is_some() {
                dirs.push((depth, Some(name.clone()), *child));
            }
        }
    }
    notes.sort();
}

#[cfg(test)]
mod tests;
