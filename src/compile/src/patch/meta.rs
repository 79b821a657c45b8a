//! Operations on metadata: permissions, owners, xattrs.

use std::ops::Bound;

use anyhow::{Result, anyhow, ensure};
use fsimage::tree::{GuestPath, InodeId, Kind, Name};
use fsimage::xattr::{CAPABILITY, Holder, acl};

use super::resolve::Last;
use super::work::Work;
use crate::manifest::patch::{Chmod, Chown, Xattr};
use crate::manifest::xattr::xattr_value;
use crate::patch::change::What;
use crate::patch::shown::kind_name;

/// What is done to an inode at a path.
type Each<'f, W> = &'f mut dyn FnMut(&mut W, InodeId, &GuestPath) -> Result<()>;

impl Work<'_> {
    pub(super) fn chmod(&mut self, op: &Chmod) -> Result<()> {
        self.each_target(&op.path, op.recursive.0, &mut |work, id, path| {
            let inode = work.tree.inode(id);
            // Linux has no other mode for symbolic links.
            if matches!(inode.kind, Kind::Symlink(_)) {
                return Ok(());
            }
            let mut stat = inode.stat;
            stat.mode = op.mode.apply(stat.mode, matches!(inode.kind, Kind::Dir(_)));
            if work.set_stat(id, stat)? {
                work.note(What::Changed, path)?;
            }
            Ok(())
        })
    }

    pub(super) fn chown(&mut self, op: &Chown) -> Result<()> {
        let (uid, gid) = self.ids(&op.owner)?;
        self.each_target(&op.path, op.recursive.0, &mut |work, id, path| {
            let mut stat = work.tree.inode(id).stat;
            let before = (stat.uid, stat.gid);
            (stat.uid, stat.gid) = (uid.unwrap_or(stat.uid), gid.unwrap_or(stat.gid));
            if before == (stat.uid, stat.gid) {
                return Ok(());
            }
            if !matches!(work.tree.inode(id).kind, Kind::Dir(_) | Kind::Symlink(_)) {
                // What was granted to the old owner's program is not the new one's.
                stat.mode &= !0o4000;
                if stat.mode & 0o010 != 0 {
                    stat.mode &= !0o2000;
                }
                work.touch(id)?.xattrs.remove(CAPABILITY.as_bytes());
            }
            work.set_stat(id, stat)?;
            work.note(What::Changed, path)
        })
    }

    /// Calls `each` with what the path or glob `pattern` names, and if asked for with all
    /// that is below it, every directory before what is in it. `each` changes no names.
    fn each_target(&mut self, pattern: &str, all: bool, each: Each<'_, Self>) -> Result<()> {
        for found in self.glob(pattern, Last::Follow)? {
            let id = found.existing()?;
            each(self, id, &found.path)?;
            if all {
                self.each_below(id, found.path, each)?;
            }
        }
        Ok(())
    }

    /// One path grows and shrinks: all of them, kept at once, could be many times as
    /// large as the tree.
    fn each_below(&mut self, id: InodeId, mut path: GuestPath, each: Each<'_, Self>) -> Result<()> {
        // The directories that the walk is in, and which name of the last was the last.
        let mut dirs = vec![id];
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

    pub(super) fn xattr(&mut self, op: &Xattr) -> Result<()> {
        for found in self.glob(&op.path, Last::Follow)? {
            let id = found.existing()?;
            let inode = self.tree.inode(id);
            let (mut stat, mut xattrs) = (inode.stat, inode.xattrs.clone());
            for (name, text) in &op.set {
                self.can_have(id, name)?;
                let value = xattr_value(name, text)?;
                if name == acl::ACCESS
                    && let Some(entries) = acl::parse(&value)
                {
                    // The mode and the ACL are two views of one thing.
                    stat.mode = stat.mode & 0o7000 | acl::mode(&entries);
                    if acl::is_plain(&entries) {
                        xattrs.remove(name.as_bytes());
                        continue;
                    }
                }
                xattrs.set(name.as_bytes(), value);
            }
            for name in &op.remove {
                let removed = xattrs.remove(name.as_bytes());
                removed.ok_or_else(|| anyhow!("it has no xattr {name}"))?;
            }
            (self.environment.check_xattrs)(&xattrs)?;
            let there = self.tree.inode(id);
            if (stat, &xattrs) != (there.stat, &there.xattrs) {
                let inode = self.touch(id)?;
                (inode.stat, inode.xattrs) = (stat, xattrs);
                self.note(What::Changed, &found.path)?;
            }
        }
        Ok(())
    }

    /// Whether Linux lets an inode of this kind have the xattr.
    fn can_have(&self, id: InodeId, name: &str) -> Result<()> {
        let kind = &self.tree.inode(id).kind;
        // Others can, and it means nothing there.
        if name == CAPABILITY {
            let file = matches!(kind, Kind::File(_));
            ensure!(file, "{} cannot have capabilities", kind_name(kind));
        }
        let can = Holder::of(kind).can_have(name.as_bytes());
        ensure!(can, "{} cannot have {name}", kind_name(kind));
        Ok(())
    }
}
