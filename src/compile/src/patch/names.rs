//! Operations on names: what comes, what goes, what is called otherwise.

use anyhow::{Result, bail, ensure};
use bundle::boot::lenient::Int;
use fsimage::tree::{Dir, InodeId, Kind, Rdev, Stat};

use super::resolve::{Found, Last, Nowhere, Parents};
use super::work::Work;
use crate::manifest::mode::Mode;
use crate::manifest::owner::Owner;
use crate::manifest::patch::{Link, Missing, Mkdir, Mknod, NodeKind, Remove, Rename, Symlink};
use crate::patch::change::What;
use crate::patch::shown::{absolute, kind_name, shown};

impl Work<'_> {
    pub(super) fn mkdir(&mut self, op: &Mkdir) -> Result<()> {
        let last = if op.parents.0 { Last::Follow } else { Last::Keep };
        let found = self.find(op.path.as_bytes(), last, Parents::of(op.parents))?;
        if found.is_free()? {
            let owner = self.owner(op.owner.as_ref(), (0, 0))?;
            let mode = op.mode.as_ref().map_or(0o755, |mode| mode.apply(0o755, true));
            let inode = self.fresh(mode, owner, Kind::Dir(Dir::default()));
            self.note(What::Made, &found.path)?;
            self.add(found.dir, found.entry()?.clone(), inode)?;
            return Ok(());
        }
        let id = found.existing()?;
        let kind = &self.tree.inode(id).kind;
        let is_dir = matches!(kind, Kind::Dir(_));
        ensure!(is_dir, "{} is there and is {}", shown(&found.path), kind_name(kind));
        ensure!(op.parents.0, "{} is there (parents: true allows it)", shown(&found.path));
        let owner = self.owner_of(id, op.owner.as_ref())?;
        if self.describe(id, op.mode.as_ref(), owner)? {
            self.note(What::Changed, &found.path)?;
        }
        Ok(())
    }

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

    /// Whether the name is free. With `force`, a non-directory may have it.
    fn free(&self, found: &Found, force: bool) -> Result<What> {
        let Some(id) = found.id else {
            return Ok(What::Made);
        };
        let (path, kind) = (shown(&found.path), &self.tree.inode(id).kind);
        ensure!(!matches!(kind, Kind::Dir(_)), "{path} is there and is a directory");
        if !force {
            bail!("{path} is there and is {} (force: true replaces it)", kind_name(kind));
        }
        Ok(What::Changed)
    }

    pub(super) fn symlink(&mut self, op: &Symlink) -> Result<()> {
        let found = self.find(op.path.as_bytes(), Last::Keep, Parents::of(op.parents))?;
        let target: Box<[u8]> = op.target.as_bytes().into();
        if let Some(id) = found.id
            && self.tree.inode(id).kind == Kind::Symlink(target.clone())
        {
            let stat = self.tree.inode(id).stat;
            if self.owner_of(id, op.owner.as_ref())? == (stat.uid, stat.gid) {
                return Ok(());
            }
        }
        let what = self.free(&found, op.force.0)?;
        let owner = self.owner(op.owner.as_ref(), (0, 0))?;
        let inode = self.fresh(0o777, owner, Kind::Symlink(target));
        self.note(what, &found.path)?;
        self.add(found.dir, found.entry()?.clone(), inode)?;
        Ok(())
    }

    pub(super) fn link(&mut self, op: &Link) -> Result<()> {
        let (target, id) = self.existing(&op.target)?;
        let is_dir = self.tree.dir(id).is_some();
        ensure!(!is_dir, "{} is a directory, which has one name", shown(&target.path));
        let found = self.find(op.path.as_bytes(), Last::Keep, Parents::of(op.parents))?;
        if found.id == Some(id) {
            return Ok(());
        }
        let what = self.free(&found, op.force.0)?;
        self.note(what, &found.path)?;
        let name = found.entry()?.clone();
        self.entries_mut(found.dir)?.insert(name, id);
        Ok(())
    }

    pub(super) fn mknod(&mut self, op: &Mknod) -> Result<()> {
        let found = self.find(op.path.as_bytes(), Last::Keep, Parents::of(op.parents))?;
        if let Some(id) = found.id {
            let kind = kind_name(&self.tree.inode(id).kind);
            bail!("{} is there and is {kind}", shown(&found.path));
        }
        let rdev = || {
            let number = |field: Option<Int<u32>>| field.map_or(0, |Int(number)| number);
            let (major, minor) = (number(op.major), number(op.minor));
            Rdev::new(major.into(), minor.into())
                .ok_or_else(|| anyhow::anyhow!("Linux has no device {major}:{minor}"))
        };
        let kind = match op.kind {
            NodeKind::Char => Kind::Char(rdev()?),
            NodeKind::Block => Kind::Block(rdev()?),
            NodeKind::Fifo => Kind::Fifo,
        };
        let owner = self.owner(op.owner.as_ref(), (0, 0))?;
        let mode = op.mode.as_ref().map_or(0o644, |mode| mode.apply(0o644, false));
        let inode = self.fresh(mode, owner, kind);
        self.note(What::Made, &found.path)?;
        self.add(found.dir, found.entry()?.clone(), inode)?;
        Ok(())
    }

    pub(super) fn remove(&mut self, op: &Remove) -> Result<()> {
        let all = match self.glob(&op.path, Last::Keep) {
            Ok(all) => all,
            Err(error) if !error.is::<Nowhere>() => return Err(error),
            Err(_) if op.missing == Missing::Ok => Vec::new(),
            Err(error) => bail!("{error} (missing: ok allows it)"),
        };
        for found in all {
            let name = found.entry()?.clone();
            let id = found.existing()?;
            // A glob may also name what went with a directory before.
            let still = self.find(&absolute(&found.path), Last::Keep, Parents::Need);
            if still.ok().and_then(|found| found.id) != Some(id) {
                continue;
            }
            if !op.recursive.0 && self.tree.dir(id).is_some_and(|dir| !dir.entries.is_empty()) {
                let path = shown(&found.path);
                bail!("{path} is a directory that is not empty (recursive: true removes it)");
            }
            self.entries_mut(found.dir)?.remove(&name);
            self.note(What::Removed, &found.path)?;
        }
        Ok(())
    }

    pub(super) fn rename(&mut self, op: &Rename) -> Result<()> {
        let from = self.find(op.from.as_bytes(), Last::Keep, Parents::Need)?;
        let id = from.existing()?;
        let to = self.find(op.path.as_bytes(), Last::Keep, Parents::Need)?;
        let (old, new) = (from.entry()?.clone(), to.entry()?.clone());
        if to.path == from.path {
            return Ok(());
        }
        let is_dir = self.tree.dir(id).is_some();
        let inside = to.path.0.starts_with(&from.path.0);
        ensure!(!inside, "{} is inside of {} itself", shown(&to.path), shown(&from.path));
        if let Some(there) = to.id {
            let path = shown(&to.path);
            let kind = &self.tree.inode(there).kind;
            ensure!(
                op.force.0,
                "{path} is there and is {} (force: true replaces it)",
                kind_name(kind)
            );
            match kind {
                Kind::Dir(dir) => {
                    ensure!(is_dir, "{path} is a directory, {} is not", shown(&from.path));
                    ensure!(dir.entries.is_empty(), "{path} is a directory that is not empty");
                }
                other => ensure!(
                    !is_dir,
                    "{path} is {}, {} is a directory",
                    kind_name(other),
                    shown(&from.path)
                ),
            }
        }
        self.entries_mut(from.dir)?.remove(&old);
        self.entries_mut(to.dir)?.insert(new, id);
        self.note(What::Removed, &from.path)?;
        self.note(if to.id.is_some() { What::Changed } else { What::Made }, &to.path)?;
        Ok(())
    }
}
