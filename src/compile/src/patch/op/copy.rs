//! `copy`: files and trees of the host.

use std::collections::HashMap;
use std::fs::{self, Metadata};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use bundle::boot::lenient::Flag;
use fsimage::io::dir;
use fsimage::tree::{Dir, DirId, GuestPath, Inode, InodeId, Kind, Name, Rdev};
use globset::{GlobBuilder, GlobMatcher};
use schemars::JsonSchema;
use serde::Deserialize;

use super::operation::{Operation, guest_path};
use crate::patch::change::ChangeKind;
use crate::patch::content::{Content, HostFile};
use crate::patch::glob::{fits, matcher};
use crate::patch::mode::Mode;
use crate::patch::owner::Owner;
use crate::patch::resolve::{Last, Parents, Resolved};
use crate::patch::shown::{absolute, shown};
use crate::patch::work::Work;

/// Takes a file or a tree from the host: types, permissions, symbolic and hard
/// links, holes. Times, owners and xattrs are not taken.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Copy {
    /// A file or a directory of the host.
    pub from: PathBuf,
    /// The name it gets; one that ends in a slash is the directory to put a file
    /// into. A directory's content joins that of a directory that is there.
    pub path: String,
    /// Default: 0:0.
    pub owner: Option<Owner>,
    /// Default: that of the host's file.
    pub mode: Option<Mode>,
    /// Globs of what to leave out; one without a slash fits names at any depth,
    /// one with a slash paths below `from`.
    #[serde(default)]
    pub exclude: Vec<String>,
    /// Make directories that are missing above it, as 0755 and 0:0.
    #[serde(default)]
    pub parents: Flag,
}

impl Operation for Copy {
    fn title(&self) -> (&'static str, String) {
        ("copy", self.path.clone())
    }

    fn check(&self) -> Result<()> {
        guest_path(&self.path)?;
        self.exclude.iter().try_for_each(|pattern| {
            GlobBuilder::new(pattern).build()?;
            Ok(())
        })
    }

    fn apply(&self, work: &mut Work<'_>) -> Result<()> {
        let from = &self.from;
        let metadata = fs::metadata(from).with_context(|| from.display().to_string())?;
        let exclude = self.exclude.iter().map(|pattern| {
            let path = pattern.trim_end_matches('/').contains('/');
            let matcher = matcher(pattern.trim_matches('/'))?;
            Ok(Exclude { matcher, path })
        });
        let exclude = exclude.collect::<Result<_>>()?;
        let owner = work.owner(self.owner.as_ref(), (0, 0))?;
        let mut job = Job { op: self, owner, exclude, links: HashMap::new() };
        let parents = Parents::of(self.parents);
        if metadata.is_dir() {
            let found = work.find(self.path.as_bytes(), Last::Follow, parents)?;
            let to = work.copied_dir(&job, &found, &metadata)?;
            let todo = Todo { from: from.clone(), relative: Vec::new(), to, path: found.path };
            return work.copy_tree(&mut job, todo);
        }
        ensure!(metadata.is_file(), "{} is neither a file nor a directory", from.display());
        let mut path = self.path.clone();
        if path.ends_with('/') {
            let file_name = from.file_name().and_then(|name| name.to_str());
            path +=
                file_name.ok_or_else(|| anyhow!("{} has no name that is text", from.display()))?;
            if self.parents.0 {
                work.find(self.path.as_bytes(), Last::Follow, parents).and_then(|found| {
                    if found.id.is_none() {
                        let name = found.entry()?.clone();
                        work.add_plain_dir(found.dir, name, &found.path)?;
                    }
                    Ok(())
                })?;
            }
        }
        let found = work.find(path.as_bytes(), Last::Follow, parents)?;
        found.is_free()?;
        if let Some(id) = found.id
            && work.tree.dir(id).is_some()
        {
            bail!(
                "{} is a directory (a slash at the end of the path puts the file into it)",
                shown(&found.path)
            );
        }
        let content = work.host(HostFile::new(from, &metadata));
        let inode = work.fresh(job.mode(&metadata), owner, Kind::File(content));
        work.put(&found, inode)?;
        Ok(())
    }
}

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
    to: DirId,
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
    /// The directory at `found`, made if it is missing.
    fn copied_dir(
        &mut self,
        job: &Job<'_>,
        found: &Resolved,
        metadata: &Metadata,
    ) -> Result<DirId> {
        let id = if found.is_free()? {
            let kind = Kind::Dir(Dir::default());
            let inode = self.fresh(job.mode(metadata), job.owner, kind);
            self.make_at(found, ChangeKind::Made, inode)?
        } else {
            found.existing()?
        };
        self.as_dir(id, found)
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
                let found = Resolved {
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
                    let made = self.copied_dir(job, &found, &metadata)?;
                    dirs.push(Todo { from, relative, to: made, path: found.path });
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
        found: &Resolved,
    ) -> Result<()> {
        let key = (metadata.dev(), metadata.ino());
        if let Some(id) = job.links.get(&key).copied() {
            if found.id != Some(id) {
                let kind = self.replaced(found)?;
                self.note(kind, &found.path)?;
                let name = found.entry()?.clone();
                self.entries_mut(found.dir)?.insert(name, id);
            }
            return Ok(());
        }
        let file_type = metadata.file_type();
        let rdev = || {
            let (major, minor) = fsimage::io::system::device_numbers(metadata.rdev());
            let known = Rdev::new(major.into(), minor.into());
            known.ok_or_else(|| anyhow!("{}: device {major}:{minor}", from.display()))
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
    fn replaced(&self, found: &Resolved) -> Result<ChangeKind> {
        let Some(id) = found.id else {
            return Ok(ChangeKind::Made);
        };
        let is_dir = self.tree.dir(id).is_some();
        ensure!(!is_dir, "{} is a directory in the image", shown(&found.path));
        Ok(ChangeKind::Changed)
    }

    /// Puts `inode` at `found`, unless the very same is there.
    fn put(&mut self, found: &Resolved, inode: Inode<Content>) -> Result<InodeId> {
        let kind = self.replaced(found)?;
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
        self.make_at(found, kind, inode)
    }

    /// Whether `id` is what `inode` is, its time apart.
    fn is_same(&self, id: InodeId, inode: &Inode<Content>) -> Result<bool> {
        let there = self.tree.inode(id);
        let stat = |of: &Inode<_>| (of.stat.mode, of.stat.uid, of.stat.gid);
        if stat(there) != stat(inode) || there.xattrs != inode.xattrs {
            return Ok(false);
        }
        match (&there.kind, &inode.kind) {
            (Kind::File(a), Kind::File(b)) => Ok(a.same(b, &self.disks)?),
            (a, b) => Ok(a == b),
        }
    }
}
