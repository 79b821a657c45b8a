//! `chmod`: permissions.

use anyhow::Result;
use bundle::boot::lenient::Flag;
use fsimage::tree::Kind;
use schemars::JsonSchema;
use serde::Deserialize;

use super::operation::{Operation, guest_glob};
use crate::patch::change::ChangeKind;
use crate::patch::mode::Mode;
use crate::patch::work::Work;

/// Sets permissions.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Chmod {
    /// A path, or a glob as of `remove`. Symbolic links are followed.
    pub path: String,
    /// The permissions to set.
    pub mode: Mode,
    /// Everything below a directory too; symbolic links there are passed over.
    #[serde(default)]
    pub recursive: Flag,
}

impl Operation for Chmod {
    fn title(&self) -> (&'static str, String) {
        ("chmod", self.path.clone())
    }

    fn check(&self) -> Result<()> {
        guest_glob(&self.path)
    }

    fn apply(&self, work: &mut Work<'_>) -> Result<()> {
        work.each_target(&self.path, self.recursive.0, &mut |work, id, path| {
            let inode = work.tree.inode(id);
            // Linux has no other mode for symbolic links.
            if matches!(inode.kind, Kind::Symlink(_)) {
                return Ok(());
            }
            let mut stat = inode.stat;
            stat.mode = self.mode.apply(stat.mode, matches!(inode.kind, Kind::Dir(_)));
            if work.set_stat(id, stat)? {
                work.note(ChangeKind::Changed, path)?;
            }
            Ok(())
        })
    }
}
