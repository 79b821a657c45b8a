//! `append`: more at the end of a file.

use std::path::PathBuf;

use anyhow::Result;
use fsimage::tree::Kind;
use schemars::JsonSchema;
use serde::Deserialize;

use super::operation::{Operation, guest_path, one_source};
use crate::patch::change::ChangeKind;
use crate::patch::content::Content;
use crate::patch::work::Work;

/// Adds to the end of a file that is there; mode, owner and xattrs stay, but not
/// its capabilities.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Append {
    /// The file: a guest path.
    pub path: String,
    /// The bytes to add.
    #[serde(default)]
    pub content: Option<String>,
    /// A file of the host that holds them.
    #[serde(default)]
    pub from: Option<PathBuf>,
}

impl Operation for Append {
    fn title(&self) -> (&'static str, String) {
        ("append", self.path.clone())
    }

    fn check(&self) -> Result<()> {
        guest_path(&self.path)?;
        one_source(self.content.as_ref(), self.from.as_ref())
    }

    fn apply(&self, work: &mut Work<'_>) -> Result<()> {
        let more = work.source(self.content.as_ref(), self.from.as_deref())?;
        let (found, id) = work.file(&self.path)?;
        if more.size() == 0 {
            return Ok(());
        }
        let Kind::File(content) = &mut work.touch(id)?.kind else {
            unreachable!("only files are found");
        };
        // Taken out, it can grow in place.
        let mut content = std::mem::replace(content, Content::bytes([]));
        content.append(more);
        work.set_content(id, content)?;
        work.note(ChangeKind::Changed, &found.path)?;
        Ok(())
    }
}
