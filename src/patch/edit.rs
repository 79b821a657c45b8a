//! Operations on contents: write, append, replace, diff.

use std::path::Path;

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use diffy::patch_set::{FileOperation, ParseOptions, PatchKind, PatchSet};

use super::What;
use super::content::{Content, HostFile, Part};
use super::resolve::{Last, Parents};
use super::work::{Work, kind_name, shown};
use crate::manifest::patch::{Append, Diff, Replace, Write};
use crate::manifest::regex;
use crate::tree::{InodeId, Kind};

/// Bytes of a file that is edited in memory, or of a diff.
const MAX_EDIT: u64 = 256 << 20;

/// The regular file of the host at `path`, links followed.
pub fn host_file(path: &Path) -> Result<HostFile> {
    let shown = path.display();
    let metadata = std::fs::metadata(path).with_context(|| shown.to_string())?;
    ensure!(metadata.is_file(), "{shown} is no regular file");
    Ok(HostFile::new(path, &metadata))
}

/// What `content` or the host's file `from` holds; the manifest has one of them.
fn source(content: Option<&String>, from: Option<&Path>) -> Result<Part> {
    match (content, from) {
        (Some(text), _) => Ok(Part::Bytes(text.as_bytes().into())),
        (None, Some(path)) => Ok(Part::Host(host_file(path)?)),
        (None, None) => bail!("it has neither content nor from"),
    }
}

impl Work<'_> {
    pub fn write(&mut self, op: &Write) -> Result<()> {
        let content = Content::of(source(op.content.as_ref(), op.from.as_deref())?);
        let found = self.find(op.path.as_bytes(), Last::Follow, Parents::of(op.parents))?;
        let Some(id) = found.id else {
            let owner = self.owner(op.owner.as_ref(), (0, 0))?;
            let mode = op.mode.as_ref().map_or(0o644, |mode| mode.apply(0o644, false));
            let inode = self.fresh(mode, owner, Kind::File(Content::bytes([])));
            self.note(What::Made, &found.path);
            let id = self.add(found.dir, found.entry()?.clone(), inode)?;
            return self.set_content(id, content);
        };
        let before = self.changes.len();
        match &self.tree.inode(id).kind {
            Kind::File(old) if old.same(&content, &self.disks)? => {}
            Kind::File(_) => {
                self.set_content(id, content)?;
                self.note(What::Changed, &found.path);
            }
            other => bail!("{} is {}, not a file", shown(&found.path), kind_name(other)),
        }
        self.describe(id, &found, op.mode.as_ref(), op.owner.as_ref())?;
        self.changes.truncate(before + 1);
        Ok(())
    }

    pub fn append(&mut self, op: &Append) -> Result<()> {
        let part = source(op.content.as_ref(), op.from.as_deref())?;
        let (found, id) = self.file(&op.path)?;
        let Kind::File(old) = &self.tree.inode(id).kind else {
            unreachable!("only files are found");
        };
        let content = old.with(part);
        if content.size() == old.size() {
            return Ok(());
        }
        self.set_content(id, content)?;
        self.note(What::Changed, &found.path);
        Ok(())
    }

    /// All bytes of the file `id`.
    fn text(&self, id: InodeId) -> Result<Vec<u8>> {
        let Kind::File(content) = &self.tree.inode(id).kind else {
            unreachable!("only files are edited");
        };
        let size = content.size();
        ensure!(size <= MAX_EDIT, "it has {size} bytes; files up to {MAX_EDIT} can be edited");
        Ok(content.read(&self.disks)?)
    }

    pub fn replace(&mut self, op: &Replace) -> Result<()> {
        let (found, id) = self.file(&op.path)?;
        let find = regex(&op.find).map_err(|error| anyhow!(error))?;
        let text = self.text(id)?;
        let least = op.count.unwrap_or(1) as usize;
        let matches = find.find_iter(&text).take(least).count();
        ensure!(matches > 0, "nothing matches {:?}", op.find);
        ensure!(matches >= least, "{:?} matches {matches} times, not {least}", op.find);
        let limit = op.count.map_or(0, |count| count as usize);
        let new = find.replacen(&text, limit, op.with.as_bytes());
        if *new != *text {
            let content = Content::bytes(new.into_owned());
            self.set_content(id, content)?;
            self.note(What::Changed, &found.path);
        }
        Ok(())
    }

    pub fn diff(&mut self, op: &Diff) -> Result<()> {
        let part = source(op.content.as_ref(), op.from.as_deref())?;
        let content = Content::of(part);
        ensure!(content.size() <= MAX_EDIT, "the diff has {} bytes", content.size());
        let bytes = content.read(&self.disks)?;
        let options =
            if is_git(&bytes) { ParseOptions::gitdiff() } else { ParseOptions::unidiff() };
        let mut files = 0;
        for file in PatchSet::parse_bytes(&bytes, options) {
            let file = file.context("the diff cannot be read")?;
            files += 1;
            let PatchKind::Text(patch) = file.patch() else {
                bail!("a change of a binary file");
            };
            self.diff_file(op, file.operation(), patch)?;
        }
        ensure!(files > 0, "there is no change of a file in the diff");
        Ok(())
    }

    fn diff_file(
        &mut self,
        op: &Diff,
        operation: &FileOperation<'_, [u8]>,
        patch: &diffy::Patch<'_, [u8]>,
    ) -> Result<()> {
        let path = |name: &[u8]| guest_path(op, name);
        match operation {
            FileOperation::Create(name) => {
                let path = path(name)?;
                let shown = path.escape_ascii().to_string();
                let found = self.find(&path, Last::Follow, Parents::Make).context(shown.clone())?;
                ensure!(found.id.is_none(), "{shown}: the diff makes it, and it is there already");
                let new = apply(&[], patch).context(shown)?;
                let inode = self.fresh(0o644, (0, 0), Kind::File(Content::bytes(new)));
                self.note(What::Made, &found.path);
                self.add(found.dir, found.entry()?.clone(), inode)?;
            }
            FileOperation::Delete(name) => {
                let path = path(name)?;
                let shown = path.escape_ascii().to_string();
                let new = self.patched(&path, patch).context(shown.clone())?.1;
                ensure!(new.is_empty(), "{shown}: the diff deletes it, and there is more in it");
                let found = self.find(&path, Last::Keep, Parents::Need)?;
                let name = found.entry()?.clone();
                self.entries_mut(found.dir).remove(&name);
                self.note(What::Removed, &found.path);
            }
            FileOperation::Modify { original, modified } => {
                let path = self.either(path(original), path(modified))?;
                let shown = path.escape_ascii().to_string();
                let (id, new) = self.patched(&path, patch).context(shown)?;
                let found = self.find(&path, Last::Follow, Parents::Need)?;
                self.set_content(id, Content::bytes(new))?;
                self.note(What::Changed, &found.path);
            }
            FileOperation::Rename { .. } | FileOperation::Copy { .. } => {
                bail!("the diff renames or copies a file; rename and copy do that")
            }
        }
        Ok(())
    }

    /// As patch(1) chooses: the name that is there, the new one first.
    fn either(&mut self, old: Result<Vec<u8>>, new: Result<Vec<u8>>) -> Result<Vec<u8>> {
        if let Ok(new) = &new
            && let Ok(found) = self.find(new, Last::Follow, Parents::Need)
            && found.id.is_some()
        {
            return Ok(new.clone());
        }
        match (old, new) {
            (Ok(old), Ok(_) | Err(_)) if self.is_there(&old) => Ok(old),
            (_, new) => new,
        }
    }

    fn is_there(&mut self, path: &[u8]) -> bool {
        self.find(path, Last::Follow, Parents::Need).is_ok_and(|found| found.id.is_some())
    }

    fn patched(
        &mut self,
        path: &[u8],
        patch: &diffy::Patch<'_, [u8]>,
    ) -> Result<(InodeId, Vec<u8>)> {
        let found = self.find(path, Last::Follow, Parents::Need)?;
        let id = found.existing()?;
        match &self.tree.inode(id).kind {
            Kind::File(_) => {}
            other => bail!("{} is {}, not a file", shown(&found.path), kind_name(other)),
        }
        Ok((id, apply(&self.text(id)?, patch)?))
    }
}

/// Whether the diff has git's own headers.
fn is_git(bytes: &[u8]) -> bool {
    bytes.split(|b| *b == b'\n').any(|line| line.starts_with(b"diff --git "))
}

fn apply(old: &[u8], patch: &diffy::Patch<'_, [u8]>) -> Result<Vec<u8>> {
    diffy::apply_bytes(old, patch).map_err(|error| {
        // "error applying hunk #1"
        let text = error.to_string();
        let hunk = text.rsplit('#').next().and_then(|number| number.parse::<usize>().ok());
        let hunk = hunk.and_then(|number| Some((number, patch.hunks().get(number - 1)?)));
        match hunk {
            Some((number, hunk)) => {
                let line = hunk.old_range().start();
                anyhow!("hunk {number} (at line {line}) does not fit: its lines are not there")
            }
            None => anyhow!(text),
        }
    })
}

/// The guest path of a name in a diff.
fn guest_path(op: &Diff, name: &[u8]) -> Result<Vec<u8>> {
    let shown = name.escape_ascii();
    let mut rest = name;
    for _ in 0..op.strip {
        let at = rest.iter().position(|b| *b == b'/');
        let at = at.ok_or_else(|| anyhow!("{shown} has no {} components to strip", op.strip))?;
        rest = &rest[at..];
        while let [b'/', more @ ..] = rest {
            rest = more;
        }
    }
    ensure!(!rest.is_empty(), "{shown} has no {} components to strip", op.strip);
    Ok([op.path.as_bytes(), b"/", rest].concat())
}
