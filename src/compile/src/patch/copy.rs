//! Copies: files and trees of the host.

use std::collections::HashMap;
use std::fs::{self, Metadata};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use fsimage::io::dir;
use fsimage::tree::{Dir, GuestPath, Inode, InodeId, Kind, Name, Rdev};
use globset::GlobMatcher;

use super::content::{Content, HostFile};
use super::glob::{fits, matcher};
use super::resolve::{Found, Last, Parents};
use super::work::Work;
use crate::manifest::patch::Copy;
use crate::patch::change::What;
use crate::patch::shown::{absolute, kind_name, shown};

/// A copy while it goes on.
struct Job<'o> {
    op: &'o Copy,
    owner: (u32, u32),
    exclude: Vec<Exclude>,
    /// Inodes of the host that have more than one name, and what they became.
    links: HashMap<(u64, u64), InodeId>,
}

/// What is left out.
struct Exclude {
    matcher: GlobMatcher,
    /// Whether it is about paths below the source, not about names.
    path: bool,
}

/// A directory of the host whose content is still to be copied.
struct Todo {
    from: PathBuf,
    /// Its path below the source.
    relative: Vec<u8>,
    to: InodeId,
    path: GuestPath,
}

impl Job<'_> {
    fn excludes(&self, relative: &[u8], name: &[u8]) -> bool {
        self.exclude.iter().any(|e| fits(&e.matcher, if e.path { relative } else { name }))
    }

    fn mode(&self, metadata: &Metadata) -> u16 {
        let mode = (metadata.permissions().mode() & 0o7777) as u16;
        self.op.mode.as_ref().map_or(mode, |wanted| wanted.apply(mode, metadata.is_dir()))
    }
}

impl Work<'_> {
    pub(super) fn copy(&mut self, op: &Copy) -> Result<()> {
        let from = &op.from;
        let metadata = fs::metadata(from).with_context(|| from.display().to_string())?;
        let exclude = op.exclude.iter().map(|pattern| {
            let path = pattern.trim_end_matches('/').contains('/');
            let matcher = matcher(pattern.trim_matches('/'))?;
            Ok(Exclude { matcher, path })
        });
        let exclude = exclude.collect::<Result<_>>()?;
        let owner = self.owner(op.owner.as_ref(), (0, 0))?;
        let mut job = Job { op, owner, exclude, links: HashMap::new() };
        let parents = Parents::of(op.parents);
        if metadata.is_dir() {
            let found = self.find(op.path.as_bytes(), Last::Follow, parents)?;
            let to = self.copied_dir(&job, &found, &metadata)?;
            let todo = Todo { from: from.clone(), relative: Vec::new(), to, path: found.path };
            return self.copy_tree(&mut job, todo);
        }
        ensure!(metadata.is_file(), "{} is neither a file nor a directory", from.display());
        let mut path = op.path.clone();
        if path.ends_with('/') {
            let name = from.file_name().and_then(|name| name.to_str());
            path += name.ok_or_else(|| anyhow!("{} has no name that is text", from.display()))?;
            if op.parents {
                self.find(op.path.as_bytes(), Last::Follow, parents).and_then(|found| {
                    if found.id.is_none() {
                        let name = found.entry()?.clone();
                        self.add_plain_dir(found.dir, name, &found.path)?;
                    }
                    Ok(())
                })?;
            }
        }
        let found = self.find(path.as_bytes(), Last::Follow, parents)?;
        found.is_free()?;
        if let Some(id) = found.id
            && self.tree.dir(id).is_some()
        {
            bail!(
                "{} is a directory (a slash at the end of the path puts the file into it)",
                shown(&found.path)
            );
        }
        let content = self.host(HostFile::new(from, &metadata));
        let inode = self.fresh(job.mode(&metadata), owner, Kind::File(content));
        self.put(&found, inode)?;
        Ok(())
    }

    /// The directory at `found`, made if it is missing.
    fn copied_dir(&mut self, job: &Job<'_>, found: &Found, metadata: &Metadata) -> Result<InodeId> {
        if found.is_free()? {
            let kind = Kind::Dir(Dir::default());
            let inode = self.fresh(job.mode(metadata), job.owner, kind);
            self.note(What::Made, &found.path)?;
            return self.add(found.dir, found.entry()?.clone(), inode);
        }
        let id = found.existing()?;
        let kind = &self.tree.inode(id).kind;
        let is_dir = matches!(kind, Kind::Dir(_));
        ensure!(is_dir, "{} is {}, not a directory", shown(&found.path), kind_name(kind));
        Ok(id)
    }

    fn copy_tree(&mut self, job: &mut Job<'_>, first: Todo) -> Result<()> {
        let mut todo = vec![first];
        while let Some(Todo { from, relative, to, path }) = todo.pop() {
            let named = || from.display().to_string();
            let entries = dir::names(&from).with_context(named)?;
            let mut dirs = Vec::new();
            for entry in entries {
                let bytes = entry.as_bytes();
                let relative = match &relative[..] {
                    b"" => bytes.to_vec(),
                    above => [above, b"/", bytes].concat(),
                };
                if job.excludes(&relative, bytes) {
                    continue;
                }
                let name = Name::new(bytes)?;
                let from = from.join(&entry);
                let below = path.join(&name);
                let found = Found {
                    dir: to,
                    id: self.entries(to).get(&name).copied(),
                    name: Some(name),
                    linked: false,
                    path: below,
                };
                let metadata =
                    fs::symlink_metadata(&from).with_context(|| from.display().to_string())?;
                if metadata.is_dir() {
                    if self.environment.own.contains(&(metadata.dev(), metadata.ino())) {
                        continue;
                    }
                    // A link to a directory is taken for one.
                    let found = self.find(&absolute(&found.path), Last::Follow, Parents::Need)?;
                    let to = self.copied_dir(job, &found, &metadata)?;
                    dirs.push(Todo { from, relative, to, path: found.path });
                    continue;
                }
                self.copy_entry(job, &from, &metadata, &found)?;
            }
            todo.extend(dirs.into_iter().rev());
        }
        Ok(())
    }

    /// Copies what is no directory.
    fn copy_entry(
        &mut self,
        job: &mut Job<'_>,
        from: &Path,
        metadata: &Metadata,
        found: &Found,
    ) -> Result<()> {
        let key = (metadata.dev(), metadata.ino());
        if let Some(id) = job.links.get(&key).copied() {
            if found.id != Some(id) {
                let what = self.replaced(found)?;
                self.note(what, &found.path)?;
                let name = found.entry()?.clone();
                self.entries_mut(found.dir)?.insert(name, id);
            }
            return Ok(());
        }
        let file_type = metadata.file_type();
        let rdev = || {
            let (major, minor) = fsimage::io::system::device_numbers(metadata.rdev());
            let rdev = Rdev::new(major.into(), minor.into());
            rdev.ok_or_else(|| anyhow!("{}: device {major}:{minor}", from.display()))
        };
        let kind = if file_type.is_file() {
            Kind::File(self.host(HostFile::new(from, metadata)))
        } else if file_type.is_symlink() {
            let target = fs::read_link(from).with_context(|| from.display().to_string())?;
            Kind::Symlink(target.as_os_str().as_bytes().into())
        } else if file_type.is_char_device() {
            Kind::Char(rdev()?)
        } else if file_type.is_block_device() {
            Kind::Block(rdev()?)
        } else if file_type.is_fifo() {
            Kind::Fifo
        } else {
            bail!("{} is a socket, which nothing in an image answers (exclude it)", from.display());
        };
        let whiteout = kind == Kind::Char(Rdev::decode(0));
        ensure!(!whiteout, "{}: device 0:0 is overlayfs's whiteout", from.display());
        let mode = if file_type.is_symlink() { 0o777 } else { job.mode(metadata) };
        let inode = self.fresh(mode, job.owner, kind);
        let id = self.put(found, inode)?;
        if metadata.nlink() > 1 {
            job.links.insert(key, id);
        }
        Ok(())
    }

    /// What replacing what is at `found` is; a directory cannot be.
    fn replaced(&self, found: &Found) -> Result<What> {
        let Some(id) = found.id else {
            return Ok(What::Made);
        };
        let is_dir = self.tree.dir(id).is_some();
        ensure!(!is_dir, "{} is a directory in the image", shown(&found.path));
        Ok(What::Changed)
    }

    /// Puts `inode` at `found`, unless the very same is there.
    fn put(&mut self, found: &Found, inode: Inode<Content>) -> Result<InodeId> {
        let what = self.replaced(found)?;
        let limit = self.environment.limits.file_bytes;
        if let Kind::File(content) = &inode.kind {
            let size = content.size();
            ensure!(size <= limit, "{size} bytes in one file (raise --max-file-bytes to allow it)");
        }
        if let Some(id) = found.id
            && self.is_same(id, &inode)?
        {
            return Ok(id);
        }
        self.note(what, &found.path)?;
        self.add(found.dir, found.entry()?.clone(), inode)
    }

    /// Whether `id` is what `inode` is, its time apart.
    fn is_same(&self, id: InodeId, inode: &Inode<Content>) -> Result<bool> {
        let there = self.tree.inode(id);
        let stat = |inode: &Inode<_>| (inode.stat.mode, inode.stat.uid, inode.stat.gid);
        if stat(there) != stat(inode) || there.xattrs != inode.xattrs {
            return Ok(false);
        }
        match (&there.kind, &inode.kind) {
            (Kind::File(a), Kind::File(b)) => Ok(a.same(b, &self.disks)?),
            (a, b) => Ok(a == b),
        }
    }
}
