//! One tree of many layers: the link step.
//!
//! Each layer costs what it has itself, never what lies below: two directories
//! are walked side by side only where the layer has one.

use super::extents::Extents;
use super::graft::Graft;
use super::{GuestPath, InodeId, Kind, Stat, TooManyInodes, Tree};
use crate::units::DeviceId;

/// Why layers do not make a tree.
#[derive(Debug, thiserror::Error)]
pub enum MergeError {
    #[error("{0}: symbolic links lead in a circle")]
    Loop(String),
    #[error("{0}: a symbolic link on the way has a target that is no path")]
    LinkTarget(String),
    #[error("{path}: a hard link to {target}, which neither this layer nor one below has")]
    LinkNowhere { path: String, target: String },
    #[error("{0}: a hard link to a directory")]
    LinkToDir(String),
    #[error(transparent)]
    TooMany(#[from] TooManyInodes),
}

/// What a user may want to know of a layer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Notes {
    /// Directories that the layer names through a symbolic link of a layer
    /// below, and where their entries went.
    pub through_links: Vec<(GuestPath, GuestPath)>,
    /// Xattrs that were not taken over: path, and names joined by NUL.
    pub dropped_xattrs: Vec<(GuestPath, Box<[u8]>)>,
}

/// The tree of all layers so far.
pub struct Merger {
    tree: Tree<Extents>,
}

impl Default for Merger {
    fn default() -> Self {
        Self { tree: Tree::new(Stat::IMPLIED_DIR) }
    }
}

impl Merger {
    /// Puts `layer`, whose data lie on `device`, on top.
    pub fn add(&mut self, mut layer: Tree<Extents>, device: DeviceId) -> Result<Notes, MergeError> {
        let mut graft = Graft::new(&mut layer, &self.tree);
        graft.run()?;
        let (links, hollow, notes) = (graft.links, graft.hollow, graft.notes);

        // From here on, the layer's inodes live in the merged arena.
        let shift = u32::try_from(self.tree.len()).map_err(|_| TooManyInodes)?;
        for mut inode in layer.into_inodes() {
            match &mut inode.kind {
                Kind::Dir(dir) => {
                    dir.entries.values_mut().for_each(|id| id.0 = id.0.saturating_add(shift))
                }
                Kind::File(extents) => extents.runs.iter_mut().for_each(|run| run.device = device),
                _ => {}
            }
            self.tree.push(inode)?;
        }
        let in_layer = |id: InodeId| InodeId(id.0 - shift);
        let below = |id| links.get(&in_layer(id)).copied();
        self.overlay(InodeId(shift), &below, &|id| hollow.contains(&in_layer(id)));
        Ok(notes)
    }

    /// The merged tree. Its arena may hold inodes that nothing leads to.
    pub fn finish(self) -> Tree<Extents> {
        self.tree
    }

    fn overlay(
        &mut self,
        layer_root: InodeId,
        below: &dyn Fn(InodeId) -> Option<InodeId>,
        hollow: &dyn Fn(InodeId) -> bool,
    ) {
        let mut pairs = vec![(InodeId::ROOT, layer_root)];
        while let Some((base, top)) = pairs.pop() {
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
            for (name, id) in dir.entries {
                match &mut self.tree.inode_mut(id).kind {
                    Kind::Whiteout => {
                        entries.remove(&name);
                    }
                    Kind::LowerLink(_) => {
                        entries.insert(name, below(id).expect("the graft resolved every link"));
                    }
                    Kind::Dir(_) => match entries.get(&name) {
                        Some(known) if self.tree.dir(*known).is_some() => pairs.push((*known, id)),
                        _ if hollow(id) => {}
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

#[cfg(test)]
mod tests;
