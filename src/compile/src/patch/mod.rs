//! Patches: the image's tree and what a manifest changes in it, to the tree of
//! the upper.
//!
//! Each operation changes a tree that begins as the merged image (`work`).
//! What was changed is kept as it was, so that in the end `upper` can tell
//! what overlayfs needs: nothing where nothing changed, copies of what did,
//! whiteouts, opaque directories.

mod accounts;
mod capability;
pub(super) mod change;
pub mod content;
mod edit;
mod glob;
mod hunks;
pub(super) mod located;
mod mode;
mod names;
pub mod op;
mod owner;
mod resolve;
mod shown;
mod targets;
mod unified;
mod upper;
mod work;

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use fsimage::tree::extents::Extents;
use fsimage::tree::{InodeId, Tree};

pub use self::change::{Change, ChangeKind, Environment, Patched};
use self::content::Disks;
pub use self::located::{Location, Patch};
pub use self::mode::{BadMode, Mode};
pub use self::owner::{BadOwner, Group, Id, Owner};
use self::work::Work;

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
        let done = patch.op.apply(&mut work).and_then(|()| work.see());
        // A glob passes over paths that lead nowhere, and those that went past the limit of
        // steps look the same to it: so the limit is asked for here.
        let done = environment.budgets.steps.check().map_err(Into::into).and(done);
        done.with_context(|| patch.to_string())?;
        changes.push(std::mem::take(&mut work.changes));
    }
    let upper = upper::upper(&work)?;
    let fingerprint = upper::fingerprint(&upper, &work.scratch_hashes)?;
    let Work { disks, warnings, .. } = work;
    Ok(Patched { upper, disks, fingerprint, changes, warnings })
}

#[cfg(test)]
mod tests;
