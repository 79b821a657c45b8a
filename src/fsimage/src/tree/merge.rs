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
use crate::tree::arena::{DirId, Tree};
use crate::tree::inode::{Inode, InodeId, Kind, Stat};
use crate::tree::name::GuestPath;
use crate::tree::xattrs::DROPPED_XATTRS;
use crate::units::DeviceId;

/// The tree of all layers so far.
#[derive(Debug)]
pub struct Merger<'b, C> {
    tree: Tree<C>,
    bounds: Bounds<'b>,
    /// How much the notes of all layers so far take; the notes themselves are empty.
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
        let root = self.tree.append(layer)?;
        self.overlay(root, before);
        Ok(notes)
    }

    /// The merged tree. Its arena may hold inodes that nothing leads to.
    pub fn finish(self) -> Tree<C> {
        self.tree
    }

    /// Lays a layer that describes every directory in which it has something over
    /// the tree of all below.
    ///
    /// Invariant: `pairs` has directories of the layer that are not laid yet, each with the
    /// directory below that its path leads to, or with itself where nothing is below. A pair
    /// takes everything out of the layer's directory, marks included, and merges it into the
    /// other one; so the one that is laid over itself becomes a directory without marks, with
    /// the same entries but for whiteouts. It ends because each directory of the layer has
    /// one name and so is in one pair.
    fn overlay(&mut self, layer_root: DirId, before: &mut dyn FnMut(InodeId, &Inode<C>)) {
        let mut pairs = vec![(DirId::ROOT, layer_root)];
        while let Some((base, top)) = pairs.pop() {
            before(base.inode(), self.tree.inode(base.inode()));
            let inode = self.tree.inode_mut(top.inode());
            let (stat, xattrs) = (inode.stat, std::mem::take(&mut inode.xattrs));
            let dir = std::mem::take(&mut self.tree[top]);
            if !dir.implied {
                let inode = self.tree.inode_mut(base.inode());
                (inode.stat, inode.xattrs) = (stat, xattrs);
            }
            let mut entries = std::mem::take(&mut self.tree[base].entries);
            if dir.opaque {
                entries.clear();
            }
            if entries.is_empty() {
                // Nothing is below: most directories stay the maps that they are.
                entries = dir.entries;
                entries.retain(|_, id| {
                    pairs.extend(self.tree.dir_id(*id).map(|dir| (dir, dir)));
                    !matches!(self.tree.inode(*id).kind, Kind::Whiteout)
                });
                self.tree[base].entries = entries;
                continue;
            }
            for (name, id) in dir.entries {
                if let Some(dir) = self.tree.dir_id(id) {
                    let known = entries.get(&name).and_then(|known| self.tree.dir_id(*known));
                    pairs.push((known.unwrap_or(dir), dir));
                    if known.is_some() {
                        continue;
                    }
                } else if matches!(self.tree.inode(id).kind, Kind::Whiteout) {
                    entries.remove(&name);
                    continue;
                }
                entries.insert(name, id);
            }
            self.tree[base].entries = entries;
        }
    }
}

/// Moves the names of xattrs that the layer lost from its tree to `notes`.
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
    let mut walk = layer.walk();
    while let Some(dir) = walk.next() {
        for (name, child) in &layer[dir].entries {
            if let Some(names) = dropped.get(child) {
                notes.dropped_xattrs(&walk.path.join(name), names);
            }
        }
    }
    notes.sort();
}

#[cfg(test)]
mod tests;
