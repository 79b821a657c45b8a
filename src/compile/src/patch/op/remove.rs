//! `remove`: names that go.

use anyhow::{Result, bail};
use bundle::boot::lenient::Flag;
use schemars::JsonSchema;
use serde::Deserialize;

use super::operation::{Operation, guest_glob};
use crate::patch::change::ChangeKind;
use crate::patch::resolve::{Last, Nowhere, Parents};
use crate::patch::shown::{absolute, shown};
use crate::patch::work::Work;

/// Removes what a path or a glob names. A symbolic link is removed, not what it
/// leads to.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Remove {
    /// A path, or a glob: `*`, `?`, `[a-z]`, `{a,b}` within a name, `**` for any
    /// directories.
    pub path: String,
    /// Remove directories that are not empty, with all that is in them.
    #[serde(default)]
    pub recursive: Flag,
    /// Whether it may be missing. Default: error.
    #[serde(default)]
    pub missing: Missing,
}

/// What it means that something is not there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Missing {
    /// It must be there.
    #[default]
    Error,
    /// It may be missing: then nothing happens.
    Ok,
}

impl Operation for Remove {
    fn title(&self) -> (&'static str, String) {
        ("remove", self.path.clone())
    }

    fn check(&self) -> Result<()> {
        guest_glob(&self.path)
    }

    fn apply(&self, work: &mut Work<'_>) -> Result<()> {
        let all = match work.glob(&self.path, Last::Keep) {
            Ok(all) => all,
            Err(error) if !error.is::<Nowhere>() => return Err(error),
            Err(_) if self.missing == Missing::Ok => Vec::new(),
            Err(error) => bail!("{error} (missing: ok allows it)"),
        };
        for found in all {
            let name = found.entry()?.clone();
            let id = found.existing()?;
            // A glob may also name what went with a directory before.
            let still = work.find(&absolute(&found.path), Last::Keep, Parents::Need);
            if still.ok().and_then(|again| again.id) != Some(id) {
                continue;
            }
            if !self.recursive.0 && work.tree.dir(id).is_some_and(|dir| !dir.entries.is_empty()) {
                let path = shown(&found.path);
                bail!("{path} is a directory that is not empty (recursive: true removes it)");
            }
            work.entries_mut(found.dir)?.remove(&name);
            work.note(ChangeKind::Removed, &found.path)?;
        }
        Ok(())
    }
}
