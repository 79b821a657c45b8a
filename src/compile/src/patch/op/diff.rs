//! `diff`: files changed, made and deleted as a unified diff says.

use std::path::PathBuf;

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use bundle::boot::lenient::Int;
use fsimage::tree::{InodeId, Kind};
use schemars::JsonSchema;
use serde::Deserialize;

use super::operation::{Operation, guest_path, one_source, root};
use crate::patch::change::{Change, ChangeKind};
use crate::patch::content::Content;
use crate::patch::edit::MAX_EDIT;
use crate::patch::hunks;
use crate::patch::resolve::{Last, Parents, Resolved};
use crate::patch::shown::kind_name;
use crate::patch::unified::{self, FileDiff};
use crate::patch::work::Work;

/// Applies a unified diff, which may change, make and delete files, and say
/// permissions as git does. A hunk may have moved, but its lines must all be
/// there. Directories stay, even when nothing is left in them.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Diff {
    /// The diff itself.
    #[serde(default)]
    pub content: Option<String>,
    /// A file of the host that holds the diff.
    #[serde(default)]
    pub from: Option<PathBuf>,
    /// Components to drop from the paths in it. Default: 1.
    #[serde(default = "one")]
    pub strip: Int<u32>,
    /// The directory that the paths in it begin at.
    #[serde(default = "root")]
    pub path: String,
}

fn one() -> Int<u32> {
    Int(1)
}

impl Operation for Diff {
    fn title(&self) -> (&'static str, String) {
        ("diff", self.path.clone())
    }

    fn check(&self) -> Result<()> {
        guest_path(&self.path)?;
        one_source(self.content.as_ref(), self.from.as_ref())
    }

    fn apply(&self, work: &mut Work<'_>) -> Result<()> {
        let content = work.source(self.content.as_ref(), self.from.as_deref())?;
        let size = content.size();
        ensure!(size <= MAX_EDIT, "the diff has {size} bytes; it may have {MAX_EDIT}");
        let files = unified::parse(&content.read(&work.disks)?)?;
        ensure!(!files.is_empty(), "there is no change of a file in the diff");
        let base = work.find(self.path.as_bytes(), Last::Follow, Parents::Need)?;
        work.found_dir(&base)?;
        for file in files {
            let old = file.old.as_ref().map(|name| path_of(self, name)).transpose()?;
            let new = file.new.as_ref().map(|name| path_of(self, name)).transpose()?;
            let named = new
                .as_ref()
                .or(old.as_ref())
                .map_or_else(String::new, |path| path.escape_ascii().to_string());
            match (old, new) {
                (None, None) => bail!("the diff names no file"),
                (None, Some(new)) => work.diff_made(&new, &file),
                (Some(old), None) => work.diff_deleted(&old, &file),
                (Some(old), Some(new)) => {
                    // As patch(1) chooses: the one that is there.
                    let path = if work.is_there(&new) || !work.is_there(&old) { new } else { old };
                    work.diff_changed(&path, &file)
                }
            }
            .context(named)?;
        }
        Ok(())
    }
}

impl Work<'_> {
    fn diff_made(&mut self, path: &[u8], file: &FileDiff) -> Result<()> {
        let found = self.find(path, Last::Follow, Parents::Make)?;
        if let Some(id) = found.id {
            // As patch(1) has it: an empty file may as well not be there.
            let empty = matches!(&self.tree.inode(id).kind, Kind::File(c) if c.size() == 0);
            ensure!(empty, "the diff makes it, and it is there already");
            return self.diff_changed(path, file);
        }
        found.is_free()?;
        let new = hunks::apply(&[], &file.hunks)?;
        let kind = Kind::File(Content::bytes(new));
        let inode = self.fresh(file.mode.unwrap_or(0o644), (0, 0), kind);
        self.make_at(&found, ChangeKind::Made, inode)?;
        Ok(())
    }

    fn diff_deleted(&mut self, path: &[u8], file: &FileDiff) -> Result<()> {
        let (found, id) = self.diff_file(path)?;
        ensure!(!found.linked, "the diff deletes it, and it is a symbolic link");
        let rest = hunks::apply(&self.text(id)?, &file.hunks)?;
        ensure!(rest.is_empty(), "the diff deletes it, and there is more in it");
        let name = found.entry()?.clone();
        self.entries_mut(found.dir)?.remove(&name);
        self.note(ChangeKind::Removed, &found.path)?;
        Ok(())
    }

    fn diff_changed(&mut self, path: &[u8], file: &FileDiff) -> Result<()> {
        let (found, id) = self.diff_file(path)?;
        let old = self.text(id)?;
        let new = hunks::apply(&old, &file.hunks)?;
        let mut changes = new != old;
        if changes {
            self.set_edited(id, new)?;
        }
        if let Some(mode) = file.mode {
            let mut stat = self.tree.inode(id).stat;
            stat.mode = stat.mode & 0o7000 | mode;
            changes |= self.set_stat(id, stat)?;
        }
        // A diff may have more than one section on a file.
        let change = Change { kind: ChangeKind::Changed, path: found.path };
        if changes && !self.changes.contains(&change) {
            self.note(change.kind, &change.path)?;
        }
        Ok(())
    }

    fn is_there(&mut self, path: &[u8]) -> bool {
        self.find(path, Last::Follow, Parents::Need).is_ok_and(|found| found.id.is_some())
    }

    /// The regular file that a diff is about.
    fn diff_file(&mut self, path: &[u8]) -> Result<(Resolved, InodeId)> {
        let found = self.find(path, Last::Follow, Parents::Need)?;
        let id = found.existing()?;
        match &self.tree.inode(id).kind {
            Kind::File(_) => Ok((found, id)),
            other => bail!("it is {}, not a file", kind_name(other)),
        }
    }
}

/// The guest path of a name in a diff.
fn path_of(op: &Diff, name: &[u8]) -> Result<Vec<u8>> {
    let few = || anyhow!("{} has no {} components to strip", name.escape_ascii(), op.strip.0);
    let mut rest = name;
    for _ in 0..op.strip.0 {
        let at = rest.iter().position(|b| *b == b'/').ok_or_else(few)?;
        rest = &rest[at..];
        while let [b'/', more @ ..] = rest {
            rest = more;
        }
    }
    ensure!(!rest.is_empty(), few());
    Ok([op.path.trim_end_matches('/').as_bytes(), b"/", rest].concat())
}
