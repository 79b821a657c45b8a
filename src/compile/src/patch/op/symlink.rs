//! `symlink`: a symbolic link.

use anyhow::{Result, ensure};
use bundle::boot::lenient::Flag;
use fsimage::tree::Kind;
use schemars::JsonSchema;
use serde::Deserialize;

use super::operation::{Operation, guest_path};
use crate::patch::owner::Owner;
use crate::patch::resolve::{Last, Parents};
use crate::patch::work::Work;

/// Makes a symbolic link.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Symlink {
    /// The link: a guest path.
    pub path: String,
    /// Where it leads, as it will be written.
    pub target: String,
    /// Default: 0:0.
    pub owner: Option<Owner>,
    /// Take the place of what is there, unless it is a directory.
    #[serde(default)]
    pub force: Flag,
    /// Make directories that are missing above it, as 0755 and 0:0.
    #[serde(default)]
    pub parents: Flag,
}

impl Operation for Symlink {
    fn title(&self) -> (&'static str, String) {
        ("symlink", self.path.clone())
    }

    fn check(&self) -> Result<()> {
        guest_path(&self.path)?;
        ensure!(!self.target.contains('\0'), "the target holds a NUL");
        let len = self.target.len();
        ensure!((1..4096).contains(&len), "the target has {len} bytes; Linux allows 1 to 4095");
        Ok(())
    }

    fn apply(&self, work: &mut Work<'_>) -> Result<()> {
        let found = work.find(self.path.as_bytes(), Last::Keep, Parents::of(self.parents))?;
        let target: Box<[u8]> = self.target.as_bytes().into();
        if let Some(id) = found.id
            && work.tree.inode(id).kind == Kind::Symlink(target.clone())
        {
            let stat = work.tree.inode(id).stat;
            if work.owner_of(id, self.owner.as_ref())? == (stat.uid, stat.gid) {
                return Ok(());
            }
        }
        let kind = work.free(&found, self.force.0)?;
        let owner = work.owner(self.owner.as_ref(), (0, 0))?;
        let inode = work.fresh(0o777, owner, Kind::Symlink(target));
        work.make_at(&found, kind, inode)?;
        Ok(())
    }
}
