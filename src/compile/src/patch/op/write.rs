//! `write`: a file with this content.

use std::path::PathBuf;

use anyhow::{Result, bail, ensure};
use bundle::boot::lenient::Flag;
use fsimage::tree::Kind;
use schemars::JsonSchema;
use serde::Deserialize;

use super::operation::{Operation, guest_path, one_source};
use crate::patch::change::ChangeKind;
use crate::patch::content::Content;
use crate::patch::mode::Mode;
use crate::patch::owner::Owner;
use crate::patch::resolve::{Last, Parents};
use crate::patch::shown::{kind_name, shown};
use crate::patch::work::Work;

/// Makes a file, or gives a file other content; mode, owner and xattrs of a
/// file that is there stay unless they are given, but not its capabilities.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Write {
    /// The file: a guest path.
    pub path: String,
    /// The content itself.
    #[serde(default)]
    pub content: Option<String>,
    /// A file of the host that holds the content.
    #[serde(default)]
    pub from: Option<PathBuf>,
    /// Default: 0644 for a new file.
    pub mode: Option<Mode>,
    /// Default: 0:0 for a new file.
    pub owner: Option<Owner>,
    /// Make directories that are missing above it, as 0755 and 0:0.
    #[serde(default)]
    pub parents: Flag,
}

impl Operation for Write {
    fn title(&self) -> (&'static str, String) {
        ("write", self.path.clone())
    }

    fn check(&self) -> Result<()> {
        guest_path(&self.path)?;
        let is_dir = self.path.ends_with('/');
        ensure!(!is_dir, "the path ends in a slash, as that of a directory does");
        one_source(self.content.as_ref(), self.from.as_ref())
    }

    fn apply(&self, work: &mut Work<'_>) -> Result<()> {
        let content = work.source(self.content.as_ref(), self.from.as_deref())?;
        let found = work.find(self.path.as_bytes(), Last::Follow, Parents::of(self.parents))?;
        let Some(id) = found.id else {
            let owner = work.owner(self.owner.as_ref(), (0, 0))?;
            let mode = self.mode.as_ref().map_or(0o644, |mode| mode.apply(0o644, false));
            let inode = work.fresh(mode, owner, Kind::File(Content::bytes([])));
            let id = work.make_at(&found, ChangeKind::Made, inode)?;
            return work.set_content(id, content);
        };
        // Looked up first: the content may be that of /etc/passwd, which names owners.
        let owner = work.owner_of(id, self.owner.as_ref())?;
        let mut changes = match &work.tree.inode(id).kind {
            Kind::File(old) => !old.same(&content, &work.disks)?,
            other => bail!("{} is {}, not a file", shown(&found.path), kind_name(other)),
        };
        if changes {
            work.set_content(id, content)?;
        }
        changes |= work.describe(id, self.mode.as_ref(), owner)?;
        if changes {
            work.note(ChangeKind::Changed, &found.path)?;
        }
        Ok(())
    }
}
