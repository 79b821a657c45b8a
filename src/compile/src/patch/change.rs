//! What patches are applied with, and what they report.

use std::fmt;
use std::fs::File;

use anyhow::Result;
use fsimage::tree::{GuestPath, Timestamp, Tree, Xattrs};

use crate::layer::limits::{Budgets, Limits};
use crate::patch::content::{Content, Disks};
use crate::patch::shown::shown;

/// What patches are applied with.
pub struct Environment<'e> {
    /// The time of what they make and rewrite.
    pub time: Timestamp,
    /// What a file or an archive may cost at most.
    pub limits: &'e Limits,
    /// The budgets of the build: archives, and what patches keep in memory, take what its
    /// layers have left.
    pub budgets: &'e Budgets,
    /// Directories that the build itself is making, by device and inode: a copy of a
    /// directory around them leaves them out.
    pub own: &'e [(u64, u64)],
    /// Whether a file of the upper can have these xattrs.
    pub check_xattrs: &'e dyn Fn(&Xattrs) -> Result<()>,
    /// A new file that is gone with the process; archives are taken apart into
    /// one.
    pub scratch: &'e dyn Fn() -> Result<File>,
    /// Whether the changes of each patch are recorded, as a dry run shows them.
    pub records_changes: bool,
}

/// Without the closures.
impl fmt::Debug for Environment<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Environment");
        shown.field("time", &self.time).field("limits", &self.limits).finish_non_exhaustive()
    }
}

/// What became of the image's tree.
#[derive(Debug)]
pub struct Patched {
    /// What the upper's `/upper` is to hold.
    pub upper: Tree<Content>,
    /// Where contents of the upper lie, if not on the host: the layers, then
    /// what archives held.
    pub disks: Disks,
    /// A hash of the upper: of names, metadata and contents.
    pub fingerprint: blake3::Hash,
    /// The changes of each patch, if they are recorded.
    pub changes: Vec<Vec<Change>>,
    /// What the user may want to know of, one text each.
    pub warnings: Vec<String>,
}

/// What a patch does to a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Whether the path was made, changed or removed.
    pub kind: ChangeKind,
    /// The path in the guest.
    pub path: GuestPath,
}

impl Change {
    /// The path from the root, printable.
    pub fn shown(&self) -> String {
        shown(&self.path)
    }
}

/// Kinds of [`Change`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeKind {
    /// The path is new.
    Made,
    /// The path was there, and has other content or metadata.
    Changed,
    /// The path is gone.
    Removed,
}
