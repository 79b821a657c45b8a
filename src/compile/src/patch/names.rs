//! Names and metadata for operations: whether a name is free, and what is said of an inode.

use anyhow::{Result, bail, ensure};
use fsimage::tree::{Inode, InodeId, Kind, Stat};

use super::content::Content;
use super::resolve::Resolved;
use super::work::Work;
use crate::patch::change::ChangeKind;
use crate::patch::mode::Mode;
use crate::patch::owner::Owner;
use crate::patch::shown::{kind_name, shown};

impl Work<'_> {
    /// The owner that `owner` makes of that of `id`.
    pub(super) fn owner_of(&mut self, id: InodeId, owner: Option<&Owner>) -> Result<(u32, u32)> {
        let stat = self.tree.inode(id).stat;
        self.owner(owner, (stat.uid, stat.gid))
    }

    /// Gives what is there the mode and the owner that were said; says whether
    /// that changed anything.
    pub(super) fn describe(
        &mut self,
        id: InodeId,
        mode: Option<&Mode>,
        (uid, gid): (u32, u32),
    ) -> Result<bool> {
        let mut stat = Stat { uid, gid, ..self.tree.inode(id).stat };
        if let Some(mode) = mode {
            stat.mode = mode.apply(stat.mode, self.tree.dir(id).is_some());
        }
        self.set_stat(id, stat)
    }

    /// Puts `inode` at `found`, which is a change of this kind.
    pub(super) fn make_at(
        &mut self,
        found: &Resolved,
        kind: ChangeKind,
        inode: Inode<Content>,
    ) -> Result<InodeId> {
        self.note(kind, &found.path)?;
        self.add(found.dir, found.entry()?.clone(), inode)
    }

    /// Whether the name is free. With `force`, a non-directory may have it.
    pub(super) fn free(&self, found: &Resolved, force: bool) -> Result<ChangeKind> {
        let Some(id) = found.id else {
            return Ok(ChangeKind::Made);
        };
        let (path, kind) = (shown(&found.path), &self.tree.inode(id).kind);
        ensure!(!matches!(kind, Kind::Dir(_)), "{path} is there and is a directory");
        if !force {
            bail!("{path} is there and is {} (force: true replaces it)", kind_name(kind));
        }
        Ok(ChangeKind::Changed)
    }
}
