//! Operations on contents: write, append, replace.

use std::path::Path;

use anyhow::{Context as _, Result, anyhow, bail, ensure};

use super::What;
use super::content::{Content, HostFile, Part};
use super::resolve::{Last, Parents};
use super::work::{Work, kind_name, shown};
use crate::manifest::patch::{Append, Replace, Write};
use crate::manifest::regex;
use crate::tree::{InodeId, Kind};

/// Bytes of a file that is edited in memory, or of a diff.
pub const MAX_EDIT: u64 = 256 << 20;

/// The regular file of the host at `path`, links followed.
pub fn host_file(path: &Path) -> Result<HostFile> {
    let shown = path.display();
    let metadata = std::fs::metadata(path).with_context(|| shown.to_string())?;
    ensure!(metadata.is_file(), "{shown} is no regular file");
    Ok(HostFile::new(path, &metadata))
}

/// What `content` or the host's file `from` holds; the manifest has one of them.
pub fn source(content: Option<&String>, from: Option<&Path>) -> Result<Part> {
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
        // Before what is written may be the file that names owners.
        let owner = self.owner_of(id, op.owner.as_ref())?;
        let mut changes = match &self.tree.inode(id).kind {
            Kind::File(old) => !old.same(&content, &self.disks)?,
            other => bail!("{} is {}, not a file", shown(&found.path), kind_name(other)),
        };
        if changes {
            self.set_content(id, content)?;
        }
        changes |= self.describe(id, op.mode.as_ref(), owner);
        if changes {
            self.note(What::Changed, &found.path);
        }
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
    pub fn text(&self, id: InodeId) -> Result<Vec<u8>> {
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
}
