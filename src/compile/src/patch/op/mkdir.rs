//! `mkdir`: a directory.

use anyhow::{Result, ensure};
use bundle::boot::lenient::Flag;
use fsimage::tree::{Dir, Kind};
use schemars::JsonSchema;
use serde::Deserialize;

use super::operation::{Operation, guest_path};
use crate::patch::change::ChangeKind;
use crate::patch::mode::Mode;
use crate::patch::owner::Owner;
use crate::patch::resolve::{Last, Parents};
use crate::patch::shown::{kind_name, shown};
use crate::patch::work::Work;

/// Makes a directory.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Mkdir {
    /// The directory: a guest path.
    pub path: String,
    /// Default: 0755.
    pub mode: Option<Mode>,
    /// Default: 0:0.
    pub owner: Option<Owner>,
    /// Make directories that are missing above it, as 0755 and 0:0, and let it
    /// be there already: then it gets the mode and owner that are given.
    #[serde(default)]
    pub parents: Flag,
}

impl Operation for Mkdir {
    fn title(&self) -> (&'static str, String) {
        ("mkdir", self.path.clone())
    }

    fn check(&self) -> Result<()> {
        guest_path(&self.path)
    }

    fn apply(&self, work: &mut Work<'_>) -> Result<()> {
        let last = if self.parents.0 { Last::Follow } else { Last::Keep };
        let found = work.find(self.path.as_bytes(), last, Parents::of(self.parents))?;
        if found.is_free()? {
            let owner = work.owner(self.owner.as_ref(), (0, 0))?;
            let mode = self.mode.as_ref().map_or(0o755, |mode| mode.apply(0o755, true));
            let inode = work.fresh(mode, owner, Kind::Dir(Dir::default()));
            work.make_at(&found, ChangeKind::Made, inode)?;
            return Ok(());
        }
        let id = found.existing()?;
        let kind = &work.tree.inode(id).kind;
        let is_dir = matches!(kind, Kind::Dir(_));
        ensure!(is_dir, "{} is there and is {}", shown(&found.path), kind_name(kind));
        ensure!(self.parents.0, "{} is there (parents: true allows it)", shown(&found.path));
        let owner = work.owner_of(id, self.owner.as_ref())?;
        if work.describe(id, self.mode.as_ref(), owner)? {
            work.note(ChangeKind::Changed, &found.path)?;
        }
        Ok(())
    }
}
