//! `chown`: owner and group.

use anyhow::Result;
use bundle::boot::lenient::Flag;
use fsimage::tree::Kind;
use fsimage::xattr::CAPABILITY;
use schemars::JsonSchema;
use serde::Deserialize;

use super::operation::{Operation, guest_glob};
use crate::patch::change::ChangeKind;
use crate::patch::owner::Owner;
use crate::patch::work::Work;

/// Sets owner and group. A file that gets another owner loses setuid, setgid
/// and its capabilities, as Linux does it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Chown {
    /// A path, or a glob as of `remove`. Symbolic links are followed.
    pub path: String,
    /// The owner and group to set.
    pub owner: Owner,
    /// Everything below a directory too, symbolic links there themselves.
    #[serde(default)]
    pub recursive: Flag,
}

impl Operation for Chown {
    fn title(&self) -> (&'static str, String) {
        ("chown", self.path.clone())
    }

    fn check(&self) -> Result<()> {
        guest_glob(&self.path)
    }

    fn apply(&self, work: &mut Work<'_>) -> Result<()> {
        let (uid, gid) = work.ids(&self.owner)?;
        work.each_target(&self.path, self.recursive.0, &mut |work, id, path| {
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
            work.note(ChangeKind::Changed, path)
        })
    }
}
