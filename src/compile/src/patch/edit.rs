//! Contents for operations: where they come from, and how one is edited.

use std::path::Path;

use anyhow::{Context as _, Result, bail, ensure};
use fsimage::tree::{InodeId, Kind};

use super::content::{Content, HostFile};
use super::work::Work;

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
}
