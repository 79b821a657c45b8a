//! Opens a bundle that somebody else may have made or changed.
//!
//! Whoever runs a disk from a descriptor follows it wherever it points. So the
//! descriptor must be, to the byte, one that this project writes; every file is
//! opened once, below the bundle's directory and through no link, and checked as
//! [`super::sound`] says; and what runs gets those open files, never their names
//! again.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::fd::{FromRawFd as _, OwnedFd, RawFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use fsimage::budget::Budget;
use fsimage::io::dir::{Dir, open_dir};
use fsimage::io::regular;
use fsimage::io::temporary::Temporary;
use rustix::fs::{AtFlags, FileType, Mode, OFlags};

use super::content::Content;
use super::index::Index;
use super::sound::{self, Depth};
use super::{INDEX, LAYERS, SIGNATURE, UPPER, VMDK, seal, signature};

/// A bundle whose files are open, and are what its index says.
#[derive(Debug)]
pub struct OpenBundle {
    pub dir: PathBuf,
    pub index: Index,
    /// The bytes of the index.
    pub json: Vec<u8>,
    pub vmdk: Arc<OpenFile>,
    /// fsmeta and the layers, in the disk's order. A layer that is there twice is
    /// open once.
    pub disk: Vec<Arc<OpenFile>>,
    pub upper: Arc<OpenFile>,
    /// Its directory.
    pub(super) at: File,
}

/// A file as it was when it was checked.
#[derive(Debug)]
pub struct OpenFile {
    /// Relative to the bundle.
    pub path: String,
    pub size: u64,
    pub file: File,
    stamp: Stamp,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    /// Whatever writes to the file changes it, but its owner can set it back.
    mtime: (i64, i64),
    /// Nobody can set it back, but it changes as well when another bundle gets or loses
    /// the same layer.
    ctime: (i64, i64),
    size: u64,
}

impl Stamp {
    fn of(file: &File) -> Result<Self> {
        let m = file.metadata()?;
        let (mtime, ctime) = ((m.mtime(), m.mtime_nsec()), (m.ctime(), m.ctime_nsec()));
        Ok(Self { mtime, ctime, size: m.size() })
    }

    /// Whether nobody wrote to the file, as far as mtime and size tell.
    fn looks_as(&self, other: &Self) -> bool {
        (self.mtime, self.size) == (other.mtime, other.size)
    }
}

impl OpenFile {
    /// Whether the file is what it was when it was checked, and `content` if that cannot
    /// be told without hashing it.
    fn is_unchanged(&self, content: &Content) -> Result<bool> {
        let mut before = Stamp::of(&self.file)?;
        if before == self.stamp {
            return Ok(true);
        }
        // Names may come and go while it is hashed, but not for ever.
        for _ in 0..10 {
            if !before.looks_as(&self.stamp) || content.check_file(&self.file).is_err() {
                return Ok(false);
            }
            let after = Stamp::of(&self.file)?;
            if after == before {
                return Ok(true);
            }
            before = after;
        }
        Ok(false)
    }
}

/// Bytes of holes that all files of a bundle may have whose hash counts them as
/// data: a file of one block can have a hole of terabytes in front of it. A build
/// has no more zeros for sparse files.
const MAX_HOLES: u64 = 2 * super::content::MAX_HOLES;

/// The directories of a bundle.
pub struct Place {
    pub dir: PathBuf,
    pub(super) at: File,
    /// The directory of layers, or why it cannot be opened.
    pub(super) layers: Result<File, rustix::io::Errno>,
    /// Of all holes of files whose hash counts them as data.
    pub(super) holes: Budget<'static>,
    /// Bytes of memory that the tree of one file system may take.
    pub(super) metadata_bytes: u64,
}

impl Place {
    /// Finds the bundle at `path`, its directory or its descriptor.
    pub fn find(path: &Path) -> Result<Self> {
        let shown = path.display();
        let metadata = path.metadata().with_context(|| shown.to_string())?;
        let dir = if metadata.is_dir() {
            path.to_owned()
        } else {
            ensure!(
                path.file_name().is_some_and(|name| name == VMDK),
                "{shown} is not a bundle: its name is not {VMDK}"
            );
            let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
            parent.unwrap_or(Path::new(".")).to_owned()
        };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let at = rustix::fs::open(&dir, flags, Mode::empty());
        let at = at.with_context(|| dir.display().to_string())?;
        Ok(Self::at(dir, at.into()))
    }

    /// The bundle whose directory is `dir`, whatever its path leads to by now.
    pub fn of(dir: &Dir) -> Result<Self> {
        let at = open_dir(dir.file(), ".").with_context(|| dir.path.display().to_string())?;
        Ok(Self::at(dir.path.clone(), at))
    }

    /// The bundle whose directory this process was started with, open as the descriptor
    /// `fd`, which is taken. `dir` is what it is called.
    pub fn given(dir: PathBuf, fd: RawFd) -> Result<Self> {
        ensure!(fd > 2, "descriptor {fd} is not that of a bundle");
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let at = rustix::fs::open(format!("/proc/self/fd/{fd}"), flags, Mode::empty());
        let at = at.with_context(|| format!("{}, as the descriptor {fd}", dir.display()))?;
        // SAFETY: it is open, and nothing of this process has it: who started it did.
        drop(unsafe { OwnedFd::from_raw_fd(fd) });
        Ok(Self::at(dir, at.into()))
    }

    /// The bundle whose directory is open as `at`, and called `dir` in messages.
    pub(super) fn at(dir: PathBuf, at: File) -> Self {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let layers = rustix::fs::openat(&at, LAYERS, flags, Mode::empty());
        let (holes, metadata_bytes) = (Budget::new(MAX_HOLES), Budget::DEFAULT);
        Self { dir, at, layers: layers.map(File::from), holes, metadata_bytes }
    }

    /// The same, of whose file systems each tree may take so many bytes of memory.
    pub fn within(self, metadata_bytes: u64) -> Self {
        Self { metadata_bytes, ..self }
    }

    /// The index, and its bytes.
    pub fn index(&self) -> Result<(Vec<u8>, Index)> {
        let json = regular::read_at(&self.at, INDEX, seal::MAX_INDEX).map_err(missing)?;
        let index = seal::from_json(&json)?;
        Ok((json, index))
    }

    /// The bundle's signature, if it has one.
    pub fn signature(&self) -> Result<Option<Vec<u8>>> {
        signature::read(&self.at)
    }

    /// The directory of the file that the index calls `path`, and its name there.
    fn name_of<'p>(&self, path: &'p str) -> Result<(&File, &'p str)> {
        match path.split_once('/') {
            None => Ok((&self.at, path)),
            Some((LAYERS, name)) if !name.contains('/') => match &self.layers {
                Ok(layers) => Ok((layers, name)),
                Err(error) => bail!("{LAYERS} is not a directory of the bundle: {error}"),
            },
            Some(_) => bail!("the path leads out of the bundle"),
        }
    }

    /// Whether the file of the bundle that its index calls `path` is there, with `size`
    /// bytes. What is in it is not looked at.
    pub fn has(&self, path: &str, size: u64) -> bool {
        let Ok((dir, name)) = self.name_of(path) else {
            return false;
        };
        let stat = rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW);
        stat.is_ok_and(|stat| {
            let is_file = FileType::from_raw_mode(stat.st_mode).is_file();
            is_file && u64::try_from(stat.st_size) == Ok(size)
        })
    }

    /// Opens the file of the bundle that its index calls `path`.
    pub(super) fn open(&self, path: &str) -> Result<OpenFile> {
        let (dir, name) = self.name_of(path)?;
        let file = regular::open_at(dir, name).map_err(missing)?;
        let stamp = Stamp::of(&file)?;
        Ok(OpenFile { path: path.to_owned(), size: stamp.size, file, stamp })
    }
}

pub(super) fn missing(error: std::io::Error) -> anyhow::Error {
    match error.kind() {
        ErrorKind::NotFound => anyhow!("it is missing"),
        ErrorKind::InvalidInput | ErrorKind::InvalidData => anyhow!("it {error}"),
        _ => error.into(),
    }
}

/// Reads the index of the bundle `dir`.
pub fn read_index(dir: &Path) -> Result<Index> {
    let index = || -> Result<Index> { Ok(Place::find(dir)?.index().context(INDEX)?.1) };
    index().with_context(|| format!("bundle {}", dir.display()))
}

impl OpenBundle {
    /// Opens the bundle at `path`, its directory or its descriptor, of which as much
    /// is read as `depth` says.
    ///
    /// # Errors
    /// With the first thing that keeps the bundle from being sound.
    pub fn open(path: &Path, depth: Depth) -> Result<Self> {
        Self::check(Place::find(path)?, depth).with_context(|| format!("bundle {}", path.display()))
    }

    /// As [`OpenBundle::open`], the bundle that was found.
    pub fn open_found(place: Place, depth: Depth) -> Result<Self> {
        let shown = place.dir.display().to_string();
        Self::check(place, depth).with_context(|| format!("bundle {shown}"))
    }

    fn check(place: Place, depth: Depth) -> Result<Self> {
        let (json, index) = place.index().context(INDEX)?;
        let mut files = HashMap::new();
        for entry in &index.files {
            let file = sound::file(&place, &index, entry, depth);
            let file = file.with_context(|| entry.path.clone())?;
            files.insert(&*entry.path, Arc::new(file));
        }
        sound::nothing_else(&place, &index, depth)?;
        sound::is_signature(&place, depth).context(SIGNATURE)?;
        let file = |path: &str| files.get(path).cloned().context("the index has every file");
        let disk = index.disk.iter().map(|extent| file(&extent.path)).collect::<Result<_>>()?;
        let (vmdk, upper) = (file(VMDK)?, file(UPPER)?);
        Ok(Self { dir: place.dir, at: place.at, json, vmdk, disk, upper, index })
    }

    /// A new file in the bundle's directory, gone with the process, on the file system
    /// of the upper.
    pub fn scratch(&self) -> io::Result<File> {
        Temporary::create_in(&self.at, 0o600).map(Temporary::into_file)
    }

    /// Every file of the index, once, with what it holds.
    pub fn files(&self) -> Vec<(&str, &File, &Content)> {
        let open: HashMap<&str, &OpenFile> = self.open_files().collect();
        let files = self.index.files.iter().filter_map(|entry| {
            let file = open.get(&*entry.path)?;
            Some((&*entry.path, &file.file, &entry.content))
        });
        files.collect()
    }

    /// The signature, if it has one.
    pub fn signature(&self) -> Result<Option<Vec<u8>>> {
        signature::read(&self.at).context(SIGNATURE)
    }

    fn open_files(&self) -> impl Iterator<Item = (&str, &OpenFile)> {
        let files = self.disk.iter().chain([&self.upper, &self.vmdk]);
        files.map(|file| (&*file.path, &**file))
    }

    /// Whether no file was written to since it was checked.
    pub fn unchanged(&self) -> Result<()> {
        let open: HashMap<&str, &OpenFile> = self.open_files().collect();
        for entry in &self.index.files {
            let file = open.get(&*entry.path).context("every file is open")?;
            let path = self.dir.join(&entry.path);
            ensure!(
                file.is_unchanged(&entry.content)?,
                "{} was changed while it was being checked",
                path.display()
            );
        }
        Ok(())
    }
}
