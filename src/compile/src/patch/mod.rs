//! Patches: the image's tree and what a manifest changes in it, to the tree of
//! the upper.
//!
//! Each operation changes a tree that begins as the merged image (`work`).
//! What was changed is kept as it was, so that in the end `upper` can tell
//! what overlayfs needs: nothing where nothing changed, copies of what did,
//! whiteouts, opaque directories.

mod accounts;
pub(super) mod change;
pub mod content;
mod copy;
mod diff;
mod edit;
mod extract;
mod glob;
mod hunks;
mod meta;
mod names;
mod resolve;
mod shown;
mod unified;
mod upper;
mod user;
mod work;

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use fsimage::tree::extents::Extents;
use fsimage::tree::{InodeId, Tree};

pub use self::change::{Change, Environment, Patched, What};
use self::content::Disks;
use self::work::Work;
use crate::manifest::patch::Op;
use crate::manifest::types::Patch;

/// Applies `patches` to `tree`, whose contents lie on `disks`.
///
/// # Errors
/// It fails when a patch does not fit the tree, a file of the host or of `disks` cannot be
/// read, or a limit or a budget is exceeded.
pub fn apply(
    tree: Tree<Extents>,
    disks: Disks,
    patches: &[Patch],
    environment: &Environment<'_>,
) -> Result<Patched> {
    if patches.is_empty() {
        // Nothing is to be looked at, however large the image.
        let root = tree.inode(InodeId::ROOT);
        let mut upper = Tree::new(root.stat);
        upper.inode_mut(InodeId::ROOT).xattrs = root.xattrs.clone();
        let fingerprint = upper::fingerprint(&upper, &BTreeMap::new())?;
        return Ok(Patched {
            upper,
            disks,
            fingerprint,
            changes: Vec::new(),
            warnings: Vec::new(),
        });
    }
    let mut work = Work::new(tree, disks, environment);
    let mut changes = Vec::new();
    for patch in patches {
        let done = work.run(&patch.op).and_then(|()| work.see());
        // A glob passes over what leads nowhere, and does not tell this from the limit.
        let done = environment.budgets.steps.check().map_err(Into::into).and(done);
        done.with_context(|| patch.to_string())?;
        changes.push(std::mem::take(&mut work.changes));
    }
    let upper = upper::upper(&work)?;
    let fingerprint = upper::fingerprint(&upper, &work.scratch_hashes)?;
    let Work { disks, warnings, .. } = work;
    Ok(Patched { upper, disks, fingerprint, changes, warnings })
}

impl Work<'_> {
    fn run(&mut self, op: &Op) -> Result<()> {
        match op {
            Op::Write(op) => self.write(op),
            Op::Append(op) => self.append(op),
            Op::Copy(op) => self.copy(op),
            Op::Extract(op) => self.extract(op),
            Op::Diff(op) => self.diff(op),
            Op::Replace(op) => self.replace(op),
            Op::Mkdir(op) => self.mkdir(op),
            Op::Symlink(op) => self.symlink(op),
            Op::Link(op) => self.link(op),
            Op::Remove(op) => self.remove(op),
            Op::Rename(op) => self.rename(op),
            Op::Chmod(op) => self.chmod(op),
            Op::Chown(op) => self.chown(op),
            Op::Xattr(op) => self.xattr(op),
            Op::Mknod(op) => self.mknod(op),
            Op::User(op) => self.user(op),
            // The manifest has put what it includes in its place.
            Op::Include(_) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
