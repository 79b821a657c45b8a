//! What a path or a glob names, with all that is below it.

use std::ops::Bound;

use anyhow::Result;
use fsimage::tree::{GuestPath, InodeId, Name};

use super::resolve::Last;
use super::work::Work;

/// What is done to an inode at a path.
type Each<'f, W> = &'f mut dyn FnMut(&mut W, InodeId, &GuestPath) -> Result<()>;

impl Work<'_> {
    /// Calls `each` with what the path or glob `pattern` names, and if asked for with all
    /// that is below it, every directory before what is in it. `each` changes no names.
    pub(super) fn each_target(
        &mut self,
        pattern: &str,
        all: bool,
        each: Each<'_, Self>,
    ) -> Result<()> {
        for found in self.glob(pattern, Last::Follow)? {
            let id = found.existing()?;
            each(self, id, &found.path)?;
            if all {
                self.each_below(id, found.path, each)?;
            }
        }
        Ok(())
    }

    /// Walks with one path that grows and shrinks: all paths, kept at once, could be many
    /// times as large as the tree. Terminates because each round goes on to the next name
    /// in the order of the tree, in which `each` changes no names.
    fn each_below(
        &mut self,
        top: InodeId,
        mut path: GuestPath,
        each: Each<'_, Self>,
    ) -> Result<()> {
        // The directories that the walk is in, and which name of the last was the last.
        let mut dirs = vec![top];
        let mut last: Option<Name> = None;
        while let Some(dir) = dirs.last().and_then(|dir| self.tree.dir(*dir)) {
            let behind = last.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
            let next = dir.entries.range::<Name, _>((behind, Bound::Unbounded)).next();
            let Some((name, id)) = next.map(|(name, id)| (name.clone(), *id)) else {
                dirs.pop();
                last = path.0.pop();
                continue;
            };
            path.0.push(name);
            each(self, id, &path)?;
            last = if self.tree.dir(id).is_some() {
                dirs.push(id);
                None
            } else {
                path.0.pop()
            };
        }
        Ok(())
    }
}
