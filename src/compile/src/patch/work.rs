//! The tree that patches work on, and what it was before.

use std::cell::Cell;
use std::collections::BTreeMap;

use anyhow::{Result, anyhow, ensure};
use fsimage::budget::Exhausted;
use fsimage::digest::Blake3;
use fsimage::io::threads;
use fsimage::tree::extents::Extents;
use fsimage::tree::weight::Weigh as _;
use fsimage::tree::{DirId, GuestPath, Inode, InodeId, Kind, Name, Stat, Tree, Xattrs};
use fsimage::xattr::{CAPABILITY, acl};
use rayon::iter::{IntoParallelRefIterator as _, ParallelIterator as _};

use super::content::{Content, Disks, HostFile, Part};
use crate::patch::change::{Change, ChangeKind, Environment};

/// An image's tree while it is patched.
pub(super) struct Work<'e> {
    pub tree: Tree<Content>,
    /// Inodes below this number are the image's own.
    pub lower: u32,
    /// The image's own inodes that were changed, as they were (copy-on-write).
    before: BTreeMap<InodeId, Inode<Content>>,
    pub disks: Disks,
    /// Hashes of the disks that are not layers, by their number.
    pub scratch_hashes: BTreeMap<u16, Blake3>,
    pub environment: &'e Environment<'e>,
    /// Files of the host that the present patch uses.
    hosts: Vec<HostFile>,
    /// Bytes of memory that were taken for what an operation holds while it goes on.
    held: Cell<u64>,
    /// The changes of the present patch, if they are recorded.
    pub changes: Vec<Change>,
    pub warnings: Vec<String>,
}

impl<'e> Work<'e> {
    pub(super) fn new(tree: Tree<Extents>, disks: Disks, environment: &'e Environment<'e>) -> Self {
        let tree = tree.map_files(Content::Stored);
        Self {
            lower: tree.len() as u32,
            tree,
            before: BTreeMap::new(),
            disks,
            scratch_hashes: BTreeMap::new(),
            environment,
            hosts: Vec::new(),
            held: Cell::new(0),
            changes: Vec::new(),
            warnings: Vec::new(),
        }
    }

    /// Takes `bytes` of memory, which stay until the upper is written, from what the
    /// layers have left of the build's.
    pub(super) fn take(&self, bytes: u64) -> Result<()> {
        let taken = self.environment.budgets.metadata.take(bytes);
        taken.map_err(|Exhausted(limit)| {
            anyhow!(
                "what patches keep in memory, with what is kept of the image, has more than \
                 {limit} bytes (raise --max-metadata-bytes to allow it)"
            )
        })
    }

    /// Takes memory so that the present operation may hold `bytes` in all at this moment.
    /// What one operation held, the next may hold again.
    pub(super) fn hold(&self, bytes: u64) -> Result<()> {
        let more = bytes.saturating_sub(self.held.get());
        if more > 0 {
            self.take(more)?;
            self.held.set(bytes);
        }
        Ok(())
    }

    /// The image's own inode `id` as it was before all patches; `None` if a
    /// patch made it.
    pub(super) fn original(&self, id: InodeId) -> Option<&Inode<Content>> {
        let own = id.0 < self.lower;
        own.then(|| self.before.get(&id).unwrap_or_else(|| self.tree.inode(id)))
    }

    /// Whether anything was changed at all.
    pub(super) fn is_untouched(&self) -> bool {
        self.before.is_empty()
    }

    /// Whether `id` is not what it was; for a directory, its entries apart.
    pub(super) fn differs(&self, id: InodeId) -> bool {
        let (Some(was), is) = (self.before.get(&id), self.tree.inode(id)) else {
            return id.0 >= self.lower;
        };
        let same_kind = match (&was.kind, &is.kind) {
            (Kind::Dir(_), Kind::Dir(_)) => true,
            (was, is) => was == is,
        };
        (was.stat, &was.xattrs) != (is.stat, &is.xattrs) || !same_kind
    }

    /// The inode `id`, to be changed.
    pub(super) fn touch(&mut self, id: InodeId) -> Result<&mut Inode<Content>> {
        if id.0 < self.lower && !self.before.contains_key(&id) {
            let inode = self.tree.inode(id);
            self.take(whole_weight(inode))?;
            self.before.insert(id, inode.clone());
        }
        Ok(self.tree.inode_mut(id))
    }

    /// Keeps `inode` as what `id` was, if it is the first to be kept.
    pub(super) fn keep(&mut self, id: InodeId, inode: &Inode<Content>) -> Result<()> {
        if id.0 < self.lower && !self.before.contains_key(&id) {
            self.take(whole_weight(inode))?;
            self.before.insert(id, inode.clone());
        }
        Ok(())
    }

    pub(super) fn entries(&self, dir: DirId) -> &BTreeMap<Name, InodeId> {
        &self.tree[dir].entries
    }

    /// The entries of the directory `dir`, to be changed.
    pub(super) fn entries_mut(&mut self, dir: DirId) -> Result<&mut BTreeMap<Name, InodeId>> {
        self.touch(dir.inode())?;
        Ok(&mut self.tree[dir].entries)
    }

    /// Adds an inode under `name`, in the place of what is there.
    pub(super) fn add(&mut self, dir: DirId, name: Name, inode: Inode<Content>) -> Result<InodeId> {
        self.touch(dir.inode())?;
        Ok(self.tree.add(dir, name, inode)?)
    }

    /// A new inode of the patches' own time.
    pub(super) fn fresh(
        &self,
        mode: u16,
        (uid, gid): (u32, u32),
        kind: Kind<Content>,
    ) -> Inode<Content> {
        let stat = Stat { mode, uid, gid, mtime: self.environment.time };
        Inode { stat, xattrs: Xattrs::default(), kind }
    }

    /// Adds a directory that is missing on the way, as 0755 and 0:0.
    pub(super) fn add_plain_dir(
        &mut self,
        dir: DirId,
        name: Name,
        path: &GuestPath,
    ) -> Result<DirId> {
        self.note(ChangeKind::Made, path)?;
        self.touch(dir.inode())?;
        let stat = Stat { mtime: self.environment.time, ..Stat::IMPLIED_DIR };
        Ok(self.tree.add_dir(dir, name, stat)?)
    }

    /// Sets owner and mode, and with the mode what an ACL says of it; says
    /// whether anything changed.
    pub(super) fn set_stat(&mut self, id: InodeId, stat: Stat) -> Result<bool> {
        let there = self.tree.inode(id);
        if there.stat == stat {
            return Ok(false);
        }
        let acl = there.xattrs.get(acl::ACCESS.as_bytes()).and_then(acl::parse);
        let inode = self.touch(id)?;
        if let Some(entries) = acl.filter(|_| inode.stat.mode != stat.mode) {
            let entries = acl::with_mode(&entries, stat.mode);
            inode.xattrs.set(acl::ACCESS.as_bytes(), acl::encode(&entries));
        }
        inode.stat = stat;
        Ok(true)
    }

    /// Gives the file `id` another content, and the patches' time. Its capabilities were
    /// granted to the old content, and go with it, as they do when a kernel writes.
    pub(super) fn set_content(&mut self, id: InodeId, content: Content) -> Result<()> {
        let limit = self.environment.limits.file_bytes;
        let size = content.size();
        ensure!(size <= limit, "{size} bytes in one file (raise --max-file-bytes to allow it)");
        let mtime = self.environment.time;
        let inode = self.touch(id)?;
        inode.kind = Kind::File(content);
        inode.stat.mtime = mtime;
        inode.xattrs.remove(CAPABILITY.as_bytes());
        Ok(())
    }

    /// The same with a content that was made of the image's own, and is in memory.
    pub(super) fn set_edited(&mut self, id: InodeId, new: Vec<u8>) -> Result<()> {
        let held = match &self.tree.inode(id).kind {
            Kind::File(old) => old.in_memory(),
            _ => 0,
        };
        self.take((new.len() as u64).saturating_sub(held))?;
        self.set_content(id, Content::bytes(new))
    }

    /// The content of a file of the host.
    pub(super) fn host(&mut self, file: HostFile) -> Content {
        self.hosts.push(file.clone());
        Content::of(Part::Host(file))
    }

    /// Reads the files of the host that the patch used, so that what is wrong
    /// with one is an error of this patch.
    pub(super) fn see(&mut self) -> Result<()> {
        let hosts = std::mem::take(&mut self.hosts);
        if hosts.is_empty() {
            return Ok(());
        }
        threads::pool()?;
        hosts.par_iter().try_for_each(|file| file.hash().map(drop))?;
        Ok(())
    }

    /// Records a change that the present patch makes, if changes are recorded.
    pub(super) fn note(&mut self, kind: ChangeKind, path: &GuestPath) -> Result<()> {
        if self.environment.records_changes {
            // The path is kept twice: here, and as it is printed.
            self.take(2 * path.weight())?;
            self.changes.push(Change { kind, path: path.clone() });
        }
        Ok(())
    }
}

/// Weight of an inode with its entries.
pub(super) fn whole_weight(inode: &Inode<Content>) -> u64 {
    let names = match &inode.kind {
        Kind::Dir(dir) => dir.entries.keys().map(|name| name.weight()).sum(),
        _ => 0,
    };
    inode.weight() + names
}
