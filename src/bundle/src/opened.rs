//! The files of a bundle, as they were opened.

use std::fs::File;
use std::os::fd::RawFd;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use fsimage::budget::Budget;
use fsimage::io::dir::{Dir, open_dir};
use fsimage::io::regular;
use fsimage::io::stamp::Stamp;
use rustix::fs::{AtFlags, FileType, Mode, OFlags};

use crate::content::ContentHash;
use crate::index::Index;
use crate::missing::missing;
use crate::names::{INDEX, LAYERS, VMDK};
use crate::{seal, signature};

/// A file as it was when it was checked.
#[derive(Debug)]
pub struct OpenFile {
    /// The file's path, relative to the bundle.
    pub path: String,
    /// Bytes of the file.
    pub size: u64,
    /// The file itself, open for reading.
    pub file: File,
    stamp: Stamp,
}

impl OpenFile {
    /// Whether the file is the same as when it was checked. If its stamp does not tell, it is
    /// hashed and compared with `content`.
    pub(super) fn is_unchanged(&self, content: &ContentHash) -> Result<bool> {
        let mut before = Stamp::of(&self.file.metadata()?);
        if before == self.stamp {
            return Ok(true);
        }
        // The stamp must not change while the file is hashed. It does change, without a write,
        // when another bundle gets or loses a hard link to the same layer, which changes the
        // ctime; so it is tried again.
        for _ in 0..10 {
            if !before.is_unwritten_since(&self.stamp) || content.check_file(&self.file).is_err() {
                return Ok(false);
            }
            let after = Stamp::of(&self.file.metadata()?);
            if after == before {
                return Ok(true);
            }
            before = after;
        }
        Ok(false)
    }
}

/// The most bytes of holes in all files of a bundle whose hash covers holes like data: a file
/// of one block can have a hole of terabytes in front of it. A build writes fewer zeros for
/// sparse files.
pub(super) const MAX_HOLES: u64 = 2 * crate::content::MAX_HOLES;

/// A bundle by its open directories, of which nothing has been checked yet.
#[derive(Debug)]
pub struct Place {
    /// Path of the bundle's directory.
    pub dir: PathBuf,
    /// The bundle's directory, open.
    pub(super) at: File,
    /// The directory of layers, or why it cannot be opened.
    pub(super) layers: Result<File, rustix::io::Errno>,
    /// The budget for holes, see [`MAX_HOLES`].
    pub(super) holes: Budget<'static>,
    /// The most bytes of memory that the tree of one file system may take.
    pub(super) metadata_bytes: u64,
}

impl Place {
    /// Finds the bundle at `path`, its directory or its descriptor.
    ///
    /// # Errors
    /// When `path` is neither a directory that can be opened nor a file called
    /// `bundle.vmdk` in one.
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

    /// The bundle whose directory is open as `dir`, whatever its path leads to by now.
    ///
    /// # Errors
    /// When the directory cannot be opened again.
    pub fn of(dir: &Dir) -> Result<Self> {
        let at = open_dir(dir.file(), ".").with_context(|| dir.path.display().to_string())?;
        Ok(Self::at(dir.path.clone(), at))
    }

    /// The bundle whose directory this process was started with, open as the descriptor
    /// `fd`. `dir` is what it is called.
    ///
    /// # Errors
    /// When `fd` is a standard stream's, or does not lead to a directory that can be
    /// opened.
    pub fn given(dir: PathBuf, fd: RawFd) -> Result<Self> {
        ensure!(fd > 2, "the descriptor {fd} is a standard stream, and not a bundle");
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let at = rustix::fs::open(format!("/proc/self/fd/{fd}"), flags, Mode::empty());
        let at = at.with_context(|| format!("{}, as the descriptor {fd}", dir.display()))?;
        // `fd` stays open: only its number is known here, not who owns it.
        Ok(Self::at(dir, at.into()))
    }

    /// The bundle whose directory is open as `at`, and called `dir` in messages.
    pub(super) fn at(dir: PathBuf, at: File) -> Self {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let layers = rustix::fs::openat(&at, LAYERS, flags, Mode::empty());
        let (holes, metadata_bytes) = (Budget::new(MAX_HOLES), Budget::DEFAULT);
        Self { dir, at, layers: layers.map(File::from), holes, metadata_bytes }
    }

    /// The same bundle, of whose file systems each may take at most `metadata_bytes` of memory
    /// for its tree.
    pub fn within(self, metadata_bytes: u64) -> Self {
        Self { metadata_bytes, ..self }
    }

    /// Reads the index; returns its bytes, too.
    ///
    /// # Errors
    /// When the index is missing, cannot be read, or is not to the byte what a build
    /// writes.
    pub fn index(&self) -> Result<(Vec<u8>, Index)> {
        let json = regular::read_at(&self.at, INDEX, seal::MAX_INDEX).map_err(missing)?;
        let index = seal::from_json(&json)?;
        Ok((json, index))
    }

    /// The bundle's signature, if it has one.
    ///
    /// # Errors
    /// When the signature's file cannot be read, is too large, or does not hold a
    /// signature of minisign.
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

    /// Whether the file of the bundle that its index calls `path` is there with `size` bytes.
    /// Its content is not read.
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
        let stamp = Stamp::of(&file.metadata()?);
        Ok(OpenFile { path: path.to_owned(), size: stamp.size, file, stamp })
    }
}
