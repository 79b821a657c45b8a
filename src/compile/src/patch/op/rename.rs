//! `rename`: another name.

use anyhow::{Result, ensure};
use bundle::boot::lenient::Flag;
use fsimage::tree::Kind;
use schemars::JsonSchema;
use serde::Deserialize;

use super::operation::{Operation, guest_path};
use crate::patch::change::ChangeKind;
use crate::patch::resolve::{Last, Parents};
use crate::patch::shown::{kind_name, shown};
use crate::patch::work::Work;

/// Gives something another name; symbolic links are renamed themselves.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Rename {
    /// The present name: a guest path.
    pub from: String,
    /// The new name.
    pub path: String,
    /// Take the place of what is there, unless it is a directory that is not
    /// empty.
    #[serde(default)]
    pub force: Flag,
}

impl Operation for Rename {
    fn title(&self) -> (&'static str, String) {
        ("rename", self.from.clone())
    }

    fn check(&self) -> Result<()> {
        guest_path(&self.from)?;
        guest_path(&self.path)
    }

    fn apply(&self, work: &mut Work<'_>) -> Result<()> {
        let from = work.find(self.from.as_bytes(), Last::Keep, Parents::Need)?;
        let id = from.existing()?;
        let to = work.find(self.path.as_bytes(), Last::Keep, Parents::Need)?;
        let (old, new) = (from.entry()?.clone(), to.entry()?.clone());
        if to.path == from.path {
            return Ok(());
        }
        let is_dir = work.tree.dir(id).is_some();
        let inside = to.path.0.starts_with(&from.path.0);
        ensure!(!inside, "{} is inside of {} itself", shown(&to.path), shown(&from.path));
        if let Some(there) = to.id {
            let path = shown(&to.path);
            let kind = &work.tree.inode(there).kind;
            ensure!(
                self.force.0,
                "{path} is there and is {} (force: true replaces it)",
                kind_name(kind)
            );
            match kind {
                Kind::Dir(dir) => {
                    ensure!(is_dir, "{path} is a directory, {} is not", shown(&from.path));
                    ensure!(dir.entries.is_empty(), "{path} is a directory that is not empty");
                }
                other => ensure!(
                    !is_dir,
                    "{path} is {}, {} is a directory",
                    kind_name(other),
                    shown(&from.path)
                ),
            }
        }
        work.entries_mut(from.dir)?.remove(&old);
        work.entries_mut(to.dir)?.insert(new, id);
        work.note(ChangeKind::Removed, &from.path)?;
        work.note(if to.id.is_some() { ChangeKind::Changed } else { ChangeKind::Made }, &to.path)?;
        Ok(())
    }
}
