//! `link`: a hard link.

use anyhow::{Result, ensure};
use bundle::boot::lenient::Flag;
use schemars::JsonSchema;
use serde::Deserialize;

use super::operation::{Operation, guest_path};
use crate::patch::resolve::{Last, Parents};
use crate::patch::shown::shown;
use crate::patch::work::Work;

/// Makes a hard link: a further name for what `target` leads to.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Link {
    /// The new name: a guest path.
    pub path: String,
    /// What to name; followed if it is a symbolic link.
    pub target: String,
    /// Take the place of what is there, unless it is a directory.
    #[serde(default)]
    pub force: Flag,
    /// Make directories that are missing above it, as 0755 and 0:0.
    #[serde(default)]
    pub parents: Flag,
}

impl Operation for Link {
    fn title(&self) -> (&'static str, String) {
        ("link", self.path.clone())
    }

    fn check(&self) -> Result<()> {
        guest_path(&self.path)?;
        guest_path(&self.target)
    }

    fn apply(&self, work: &mut Work<'_>) -> Result<()> {
        let (target, id) = work.existing(&self.target)?;
        let is_dir = work.tree.dir(id).is_some();
        ensure!(!is_dir, "{} is a directory, which has one name", shown(&target.path));
        let found = work.find(self.path.as_bytes(), Last::Keep, Parents::of(self.parents))?;
        if found.id == Some(id) {
            return Ok(());
        }
        let kind = work.free(&found, self.force.0)?;
        work.note(kind, &found.path)?;
        let name = found.entry()?.clone();
        work.entries_mut(found.dir)?.insert(name, id);
        Ok(())
    }
}
