//! What a layer hides of those below, and the rehearsal that tells where.

use std::collections::BTreeMap;

use super::{MergeError, Missing, Replay, Result, View, hides, path_of};
use crate::tree::arena::DirId;
use crate::tree::inode::{Dir, Inode, InodeId, Kind};
use crate::tree::journal::JournalEntry;
use crate::tree::name::{GuestPath, Name};
use crate::tree::weight::Weigh;
use crate::tree::xattrs::Xattrs;

/// What a whiteout or an opaque mark hides.
enum Hidden {
    Name(DirId, Name),
    /// All that is in a directory.
    All(DirId),
}

impl<C: Weigh> Replay<'_, C> {
    /// Takes away what the layer hides.
    pub(super) fn hide(&mut self, entries: &[JournalEntry<C>]) -> Result<()> {
        if !entries.iter().any(|entry| hides(&entry.inode)) {
            return Ok(());
        }
        let mut all = Vec::new();
        for entry in entries {
            let (path, inode) = (&path_of(entry)?, &entry.inode);
            if hides(inode) {
                all.extend(self.rehearse_hiding(path, inode)?);
                continue;
            }
            // Only what it is, and not what it holds, decides where a path leads.
            let kind = match &inode.kind {
                Kind::Dir(_) => Kind::Dir(Dir::default()),
                Kind::Symlink(target) => Kind::Symlink(target.clone()),
                Kind::LowerLink(target) => Kind::LowerLink(target.clone()),
                _ => Kind::Fifo,
            };
            let (stat, xattrs) = (inode.stat, Xattrs::default());
            // Any other error comes again when the entry itself is applied.
            let applied = self.entry(path, Inode { stat, xattrs, kind });
            if let Err(error @ (MergeError::Exhausted(_) | MergeError::Steps(_))) = applied {
                return Err(error);
            }
        }
        self.undo();
        for hidden in all {
            match hidden {
                Hidden::Name(dir, name) if self.is_below(dir) => self.set(dir, &name, None),
                Hidden::All(dir) if self.is_below(dir) => {
                    let all = self.take_all(dir);
                    self.had.insert(dir, all);
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Hides what the entry hides, and returns what that is.
    fn rehearse_hiding(&mut self, path: &GuestPath, inode: &Inode<C>) -> Result<Option<Hidden>> {
        let hidden = self.hidden_by(path, inode)?;
        match &hidden {
            Some(Hidden::Name(dir, name)) => {
                // The name is kept twice: in the result, and in `Replay::was` with what it led to.
                self.bounds.budget.take(2 * name.weight())?;
                if !self.hide_lower(self.child(View::Now, *dir, name))? {
                    self.set(*dir, name, None);
                }
            }
            Some(Hidden::All(dir)) => {
                self.empty(*dir)?;
            }
            None => {}
        }
        Ok(hidden)
    }

    /// What a whiteout or an opaque mark hides, if anything is there.
    fn hidden_by(&mut self, path: &GuestPath, inode: &Inode<C>) -> Result<Option<Hidden>> {
        let Kind::Whiteout = inode.kind else {
            let found = self.walk(&path.0, View::Now, Missing::Stop, path)?;
            let Some(found) = found.filter(|found| self.emptied.insert(found.dir)) else {
                return Ok(None);
            };
            self.announce_all(&found.path);
            return Ok(Some(Hidden::All(found.dir)));
        };
        let Some((name, parent)) = path.0.split_last() else {
            return Ok(None);
        };
        let found = self.walk(parent, View::Now, Missing::Stop, path)?;
        let Some(found) = found.filter(|found| self.child(View::Now, found.dir, name).is_some())
        else {
            return Ok(None);
        };
        self.announce_all(&found.path);
        if found.through_link {
            self.hiding_notes.through_link(path, &found.path.join(name));
        }
        Ok(Some(Hidden::Name(found.dir, name.clone())))
    }

    /// Takes away what layers below have at `id`. Returns whether something is left, which this
    /// layer put there.
    fn hide_lower(&mut self, id: Option<InodeId>) -> Result<bool> {
        let Some(id) = id else {
            return Ok(false);
        };
        if id.0 >= self.first {
            return Ok(true);
        }
        // Only directories in which the layer has something need to be looked into.
        match self.tree.dir_id(id).filter(|dir| self.touched.contains(dir)) {
            Some(dir) => Ok(!self.emptied.insert(dir) || self.empty(dir)?),
            None => Ok(false),
        }
    }

    /// Takes away what layers below have in the directory `dir`. Returns whether
    /// something is left.
    fn empty(&mut self, dir: DirId) -> Result<bool> {
        let all = self.take_all(dir);
        let mut left = BTreeMap::new();
        for (name, id) in &all {
            if self.hide_lower(Some(*id))? {
                self.bounds.budget.take(name.weight())?;
                left.insert(name.clone(), *id);
            }
        }
        let is_left = !left.is_empty();
        self.tree[dir].entries = left;
        if self.is_below(dir) {
            self.had.entry(dir).or_insert(all);
        }
        Ok(is_left)
    }

    /// Takes every name out of the directory `dir`.
    fn take_all(&mut self, dir: DirId) -> BTreeMap<Name, InodeId> {
        self.announce(dir);
        std::mem::take(&mut self.tree[dir].entries)
    }

    /// Undoes what was applied so far; the inodes stay behind, unnamed.
    fn undo(&mut self) {
        for (dir, entries) in std::mem::take(&mut self.had) {
            self.tree[dir].entries = entries;
        }
        // A change from before all entries were taken away is undone in the entries that were
        // taken.
        for ((dir, name), id) in std::mem::take(&mut self.was) {
            let entries = &mut self.tree[dir].entries;
            match id {
                Some(id) => drop(entries.insert(name, id)),
                None => drop(entries.remove(&name)),
            }
        }
        for (dir, (stat, xattrs)) in std::mem::take(&mut self.described) {
            let inode = self.tree.inode_mut(dir.inode());
            (inode.stat, inode.xattrs) = (stat, xattrs);
        }
        self.plinks.clear();
        self.pending.clear();
        self.notes.forget();
    }
}
