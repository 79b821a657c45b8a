//! Unified diffs.

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use diffy::patch_set::{FileOperation, ParseOptions, PatchKind, PatchSet};

use super::content::Content;
use super::edit::{MAX_EDIT, source};
use super::resolve::{Last, Parents};
use super::work::{Work, kind_name, shown};
use super::{Change, What};
use crate::manifest::patch::Diff;
use crate::tree::{InodeId, Kind};

impl Work<'_> {
    pub fn diff(&mut self, op: &Diff) -> Result<()> {
        let part = source(op.content.as_ref(), op.from.as_deref())?;
        let content = Content::of(part);
        ensure!(content.size() <= MAX_EDIT, "the diff has {} bytes", content.size());
        let bytes = with_dev_null(&content.read(&self.disks)?);
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
                // A diff may have more than one section on a file.
                let change = Change { what: What::Changed, path: super::work::shown(&found.path) };
                if !self.changes.contains(&change) {
                    self.changes.push(change);
                }
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

/// `diff -N` tells of a file that is not there by the time 0 in its header; this
/// puts `/dev/null` there, as other tools write it.
fn with_dev_null(diff: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(diff.len());
    // Lines of the present hunk that are still to come, old and new.
    let mut hunk = (0u64, 0u64);
    for line in diff.split_inclusive(|b| *b == b'\n') {
        let (old, new) = match line.first() {
            Some(b'-') => (1, 0),
            Some(b'+') => (0, 1),
            Some(b'\\') => (0, 0),
            _ => (1, 1),
        };
        if hunk != (0, 0) {
            hunk = (hunk.0.saturating_sub(old), hunk.1.saturating_sub(new));
        } else if line.starts_with(b"@@ ") {
            hunk = hunk_lines(line).unwrap_or_default();
        } else if let Some(sign) = [&b"--- "[..], b"+++ "].into_iter().find(|s| line.starts_with(s))
            && is_time_zero(line)
        {
            out.extend_from_slice(sign);
            out.extend_from_slice(b"/dev/null\n");
            continue;
        }
        out.extend_from_slice(line);
    }
    out
}

/// How many old and new lines follow `@@ -A,B +C,D @@`.
fn hunk_lines(line: &[u8]) -> Option<(u64, u64)> {
    let mut words = std::str::from_utf8(line).ok()?.split(' ').skip(1);
    let mut count = |sign| {
        let range = words.next()?.strip_prefix(sign)?;
        range.split_once(',').map_or(Some(1), |(_, count)| count.parse().ok())
    };
    Some((count('-')?, count('+')?))
}

/// Whether a header ends in the time at which 1970 began.
fn is_time_zero(header: &[u8]) -> bool {
    let time = header.split(|b| *b == b'\t').nth(1).and_then(|text| std::str::from_utf8(text).ok());
    let time = time
        .and_then(|text| jiff::Timestamp::strptime("%Y-%m-%d %H:%M:%S%.f %z", text.trim()).ok());
    time == Some(jiff::Timestamp::UNIX_EPOCH)
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
    Ok([op.path.trim_end_matches('/').as_bytes(), b"/", rest].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_that_are_missing_are_known_by_their_time() {
        let diff =
            b"--- a/x\t1970-01-01 01:00:00.000000000 +0100\n+++ b/x\t2024-01-01 00:00:00.5 +0000\n\
            @@ -0,0 +1 @@\n+++ y\t1970-01-01 00:00:00 +0000\n--- b\t1970-01-01 00:00:01 +0000\n";
        let expected = b"--- /dev/null\n+++ b/x\t2024-01-01 00:00:00.5 +0000\n\
            @@ -0,0 +1 @@\n+++ y\t1970-01-01 00:00:00 +0000\n--- b\t1970-01-01 00:00:01 +0000\n";
        assert_eq!(
            with_dev_null(diff).escape_ascii().to_string(),
            expected.escape_ascii().to_string()
        );
    }
}
