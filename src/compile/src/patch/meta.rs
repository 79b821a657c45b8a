//! Operations on metadata: permissions, owners, xattrs.

use anyhow::{Result, anyhow, bail, ensure};
use fsimage::tree::{GuestPath, InodeId, Kind};
use fsimage::xattr::acl;

use super::What;
use super::resolve::Last;
use super::work::{Work, kind_name};
use crate::manifest::patch::{Chmod, Chown, Xattr};
use crate::manifest::xattr_value;

pub const CAPABILITY: &[u8] = b"security.capability";

impl Work<'_> {
    pub fn chmod(&mut self, op: &Chmod) -> Result<()> {
        for found in self.glob(&op.path, Last::Follow)? {
            for (id, path) in self.targets(found.existing()?, &found.path, op.recursive) {
                let inode = self.tree.inode(id);
                // Linux has no other mode for symbolic links.
                if matches!(inode.kind, Kind::Symlink(_)) {
                    continue;
                }
                let mut stat = inode.stat;
                stat.mode = op.mode.apply(stat.mode, matches!(inode.kind, Kind::Dir(_)));
                if self.set_stat(id, stat) {
                    self.note(What::Changed, &path);
                }
            }
        }
        Ok(())
    }

    pub fn chown(&mut self, op: &Chown) -> Result<()> {
        let (uid, gid) = self.ids(&op.owner)?;
        for found in self.glob(&op.path, Last::Follow)? {
            for (id, path) in self.targets(found.existing()?, &found.path, op.recursive) {
                let mut stat = self.tree.inode(id).stat;
                let before = (stat.uid, stat.gid);
                (stat.uid, stat.gid) = (uid.unwrap_or(stat.uid), gid.unwrap_or(stat.gid));
                if before == (stat.uid, stat.gid) {
                    continue;
                }
                if !matches!(self.tree.inode(id).kind, Kind::Dir(_) | Kind::Symlink(_)) {
                    // What was granted to the old owner's program is not the new one's.
                    stat.mode &= !0o4000;
                    if stat.mode & 0o010 != 0 {
                        stat.mode &= !0o2000;
                    }
                    self.touch(id).xattrs.remove(CAPABILITY);
                }
                self.set_stat(id, stat);
                self.note(What::Changed, &path);
            }
        }
        Ok(())
    }

    /// `id`, and if asked for all that is below it.
    fn targets(&self, id: InodeId, path: &GuestPath, all: bool) -> Vec<(InodeId, GuestPath)> {
        let mut targets = vec![(id, path.clone())];
        let mut at = 0;
        while all && at < targets.len() {
            let (id, path) = targets[at].clone();
            if let Some(dir) = self.tree.dir(id) {
                targets.extend(dir.entries.iter().map(|(name, id)| (*id, path.join(name))));
            }
            at += 1;
        }
        targets
    }

    pub fn xattr(&mut self, op: &Xattr) -> Result<()> {
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
                let inode = self.touch(id);
                (inode.stat, inode.xattrs) = (stat, xattrs);
                self.note(What::Changed, &found.path);
            }
        }
        Ok(())
    }

    /// Whether Linux lets an inode of this kind have the xattr.
    fn can_have(&self, id: InodeId, name: &str) -> Result<()> {
        let kind = &self.tree.inode(id).kind;
        let file = matches!(kind, Kind::File(_));
        let dir = matches!(kind, Kind::Dir(_));
        if name.starts_with("user.") {
            ensure!(file || dir, "{} cannot have {name}", kind_name(kind));
        }
        if name == "security.capability" {
            ensure!(file, "{} cannot have capabilities", kind_name(kind));
        }
        match name {
            acl::DEFAULT if !dir => bail!("{} has no default ACL", kind_name(kind)),
            acl::ACCESS if matches!(kind, Kind::Symlink(_)) => {
                bail!("a symbolic link has no ACL")
            }
            _ => Ok(()),
        }
    }
}
