//! Operations on contents: write, append, replace.

use std::path::Path;

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use bundle::boot::lenient::Int;
use fsimage::tree::{InodeId, Kind};

use super::content::{Content, HostFile};
use super::resolve::{Last, Parents};
use super::work::Work;
use crate::manifest::check::regex;
use crate::manifest::patch::{Append, Replace, Write};
use crate::patch::change::What;
use crate::patch::shown::{kind_name, shown};

/// Bytes of a file that is edited in memory, or of a diff.
pub(super) const MAX_EDIT: u64 = 256 << 20;

/// The regular file of the host at `path`, links followed.
pub(super) fn host_file(path: &Path) -> Result<HostFile> {
    let shown = path.display();
    let metadata = std::fs::metadata(path).with_context(|| shown.to_string())?;
    ensure!(metadata.is_file(), "{shown} is not a regular file");
    Ok(HostFile::new(path, &metadata))
}

impl Work<'_> {
    /// What `content` or the host's file `from` holds; the manifest has one of
    /// them.
    pub(super) fn source(
        &mut self,
        content: Option<&String>,
        from: Option<&Path>,
    ) -> Result<Content> {
        match (content, from) {
            (Some(text), _) => Ok(Content::bytes(text.as_bytes())),
            (None, Some(path)) => {
                let file = host_file(path)?;
                Ok(self.host(file))
            }
            (None, None) => bail!("it has neither content nor from"),
        }
    }

    pub(super) fn write(&mut self, op: &Write) -> Result<()> {
        let content = self.source(op.content.as_ref(), op.from.as_deref())?;
        let found = self.find(op.path.as_bytes(), Last::Follow, Parents::of(op.parents))?;
        let Some(id) = found.id else {
            let owner = self.owner(op.owner.as_ref(), (0, 0))?;
            let mode = op.mode.as_ref().map_or(0o644, |mode| mode.apply(0o644, false));
            let inode = self.fresh(mode, owner, Kind::File(Content::bytes([])));
            self.note(What::Made, &found.path)?;
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
        changes |= self.describe(id, op.mode.as_ref(), owner)?;
        if changes {
            self.note(What::Changed, &found.path)?;
        }
        Ok(())
    }

    pub(super) fn append(&mut self, op: &Append) -> Result<()> {
        let more = self.source(op.content.as_ref(), op.from.as_deref())?;
        let (found, id) = self.file(&op.path)?;
        if more.size() == 0 {
            return Ok(());
        }
        let Kind::File(content) = &mut self.touch(id)?.kind else {
            unreachable!("only files are found");
        };
        // Taken out, it can grow in place.
        let mut content = std::mem::replace(content, Content::bytes([]));
        content.append(more);
        self.set_content(id, content)?;
        self.note(What::Changed, &found.path)?;
        Ok(())
    }

    /// All bytes of the file `id`.
    pub(super) fn text(&self, id: InodeId) -> Result<Vec<u8>> {
        let Kind::File(content) = &self.tree.inode(id).kind else {
            unreachable!("only files are edited");
        };
        let size = content.size();
        ensure!(size <= MAX_EDIT, "it has {size} bytes; files up to {MAX_EDIT} can be edited");
        // As it is, and what it becomes.
        self.hold(2 * size)?;
        Ok(content.read(&self.disks)?)
    }

    pub(super) fn replace(&mut self, op: &Replace) -> Result<()> {
        let (found, id) = self.file(&op.path)?;
        let find = regex(&op.find).map_err(|error| anyhow!(error))?;
        let text = self.text(id)?;
        let count = op.count.map(|Int(count)| count as usize);
        let least = count.unwrap_or(1);
        let matches = find.find_iter(&text).take(least).count();
        ensure!(matches > 0, "nothing matches {:?}", op.find);
        ensure!(matches >= least, "{:?} matches {matches} times, not {least}", op.find);
        let mut new = Vec::new();
        let mut done = 0;
        for found in find.captures_iter(&text).take(count.unwrap_or(usize::MAX)) {
            let whole = found.get_match();
            new.extend_from_slice(&text[done..whole.start()]);
            found.expand(op.with.as_bytes(), &mut new);
            done = whole.end();
            ensure!(new.len() as u64 <= MAX_EDIT, "it would have more than {MAX_EDIT} bytes");
        }
        new.extend_from_slice(&text[done..]);
        ensure!(new.len() as u64 <= MAX_EDIT, "it would have more than {MAX_EDIT} bytes");
        if new != text {
            self.set_edited(id, new)?;
            self.note(What::Changed, &found.path)?;
        }
        Ok(())
    }
}
