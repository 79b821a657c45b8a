//! Patches: the image's tree and what a manifest changes in it, to the tree of
//! the upper.
//!
//! Each operation changes a tree that begins as the merged image ([`work`]).
//! What was changed is kept as it was, so that in the end [`upper`] can tell
//! what overlayfs needs: nothing where nothing changed, copies of what did,
//! whiteouts, opaque directories.

mod accounts;
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
mod unified;
mod upper;
mod user;
mod work;

use std::collections::BTreeMap;
use std::fs::File;

use anyhow::{Context as _, Result};
use fsimage::tree::extents::Extents;
use fsimage::tree::{GuestPath, InodeId, Timestamp, Tree, Xattrs};

use self::content::{Content, Disks};
use self::work::Work;
use crate::layer::{Budgets, Limits};
use crate::manifest::Patch;
use crate::manifest::patch::Op;

/// What patches are applied with.
pub struct Environment<'e> {
    /// The time of what they make and rewrite.
    pub time: Timestamp,
    pub limits: &'e Limits,
    /// Of the build: archives, and what patches keep, take from what its layers leave.
    pub budgets: &'e Budgets,
    /// Directories that the build itself is making, by device and inode: no copy
    /// of what is around them takes them.
    pub own: &'e [(u64, u64)],
    /// Whether a file of the upper can have these xattrs.
    pub check_xattrs: &'e dyn Fn(&Xattrs) -> Result<()>,
    /// A new file that is gone with the process; archives are taken apart into
    /// one.
    pub scratch: &'e dyn Fn() -> Result<File>,
    /// Whether what each patch changes is told.
    pub tells: bool,
}

/// What became of the image's tree.
pub struct Patched {
    /// What the upper's `/upper` is to hold.
    pub upper: Tree<Content>,
    /// Where contents of the upper lie, if not on the host: the layers, then
    /// what archives held.
    pub disks: Disks,
    /// A hash of the upper: of names, metadata and contents.
    pub fingerprint: blake3::Hash,
    /// For each patch, if they are told.
    pub changes: Vec<Vec<Change>>,
    pub warnings: Vec<String>,
}

/// What a patch does to a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    pub what: What,
    pub path: GuestPath,
}

impl Change {
    /// The path from the root, printable.
    pub fn shown(&self) -> String {
        work::shown(&self.path)
    }
}

/// Kinds of [`Change`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    Made,
    Changed,
    Removed,
}

/// Applies `patches` to `tree`, whose contents lie on `disks`.
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
