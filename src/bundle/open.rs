//! Opens a bundle that somebody else may have made or changed.
//!
//! Whoever runs a disk from a descriptor follows it wherever it points. So the
//! descriptor must be, to the byte, one that this project writes; every file is
//! opened once, below the bundle's directory and through no link, and checked;
//! and what runs gets those open files, never their names again.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::fs::{Mode, OFlags};

use super::content::Content;
use super::index::{FileEntry, Index};
use super::verify::check_devices;
use super::{FSMETA, INDEX, LAYERS, UPPER, VMDK, publish, vmdk};
use crate::erofs::read::Reader;
use crate::map;

/// Bytes of a descriptor: more extents than EROFS has devices never fit.
const MAX_DESCRIPTOR: u64 = 2 << 20;
/// Bytes of an index.
const MAX_INDEX: u64 = 256 << 20;
const MAX_EXTENTS: usize = 65_536;

/// A bundle whose files are open, and are what its index says.
#[derive(Debug)]
pub struct OpenBundle {
    pub dir: PathBuf,
    pub index: Index,
    /// The bytes of the index.
    pub json: Vec<u8>,
    pub vmdk: OpenFile,
    /// fsmeta and the layers, in the disk's order.
    pub disk: Vec<OpenFile>,
    pub upper: OpenFile,
}

/// A file as it was when it was checked.
#[derive(Debug)]
pub struct OpenFile {
    /// Relative to the bundle.
    pub path: String,
    pub size: u64,
    pub file: File,
    stamp: (i64, i64, u64),
}

impl OpenFile {
    /// Opens a regular file of the directory `dir`; nothing else, no link, and
    /// no waiting for the other end of a fifo.
    pub(super) fn open(dir: &File, path: &str) -> Result<Self> {
        let parts: Vec<&str> = path.split('/').collect();
        let plain = parts.len() <= 2 && parts.iter().all(|part| !matches!(*part, "" | "." | ".."));
        ensure!(plain, "the path leads out of the bundle");
        let at = |dir: &File, name: &str, flags: OFlags| {
            let flags = flags | OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            rustix::fs::openat(dir, name, flags | OFlags::NONBLOCK, Mode::empty())
        };
        let open = || match path.split_once('/') {
            None => at(dir, path, OFlags::empty()),
            Some((sub, name)) => {
                at(&File::from(at(dir, sub, OFlags::DIRECTORY)?), name, OFlags::empty())
            }
        };
        let file = match open() {
            Ok(fd) => File::from(fd),
            Err(rustix::io::Errno::NOENT) => bail!("it is missing"),
            Err(rustix::io::Errno::LOOP) => bail!("it is a symbolic link"),
            Err(rustix::io::Errno::NOTDIR) => bail!("{LAYERS} is no directory of the bundle"),
            Err(error) => return Err(error.into()),
        };
        let metadata = file.metadata()?;
        ensure!(metadata.is_file(), "it is no regular file");
        let stamp = stamp(&file)?;
        Ok(Self { path: path.to_owned(), size: metadata.len(), file, stamp })
    }

    pub(super) fn has_size_of(&self, entry: &FileEntry) -> Result<()> {
        ensure!(self.size == entry.size, "it has {} bytes, not {}", self.size, entry.size);
        Ok(())
    }

    pub(super) fn has_content_of(&self, entry: &FileEntry) -> Result<()> {
        entry.content.check_file(&self.file)
    }

    fn bytes(&mut self, limit: u64) -> Result<Vec<u8>> {
        ensure!(self.size <= limit, "it has {} bytes; more than {limit} is never right", self.size);
        let mut bytes = Vec::new();
        (&self.file).take(limit).read_to_end(&mut bytes)?;
        Ok(bytes)
    }
}

/// Whatever writes to the file changes it. (Its ctime changes as well when another
/// bundle gets or loses the same layer.)
fn stamp(file: &File) -> Result<(i64, i64, u64)> {
    let m = file.metadata()?;
    Ok((m.mtime(), m.mtime_nsec(), m.size()))
}

impl OpenBundle {
    /// Opens the bundle at `path`, its directory or its descriptor. fsmeta and
    /// upper are hashed; `all` hashes the layers too, which are otherwise known
    /// by size and superblock.
    pub fn open(path: &Path, all: bool) -> Result<Self> {
        let shown = path.display();
        let metadata = path.metadata().with_context(|| shown.to_string())?;
        let dir = if metadata.is_dir() {
            path.to_owned()
        } else {
            ensure!(
                path.file_name().is_some_and(|name| name == VMDK),
                "{shown} is no bundle: its name is not {VMDK}"
            );
            let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
            parent.unwrap_or(Path::new(".")).to_owned()
        };
        let at = File::open(&dir).with_context(|| dir.display().to_string())?;
        Self::check(&at, dir, all).with_context(|| format!("bundle {shown}"))
    }

    fn check(at: &File, dir: PathBuf, all: bool) -> Result<Self> {
        let json = OpenFile::open(at, INDEX).and_then(|mut file| file.bytes(MAX_INDEX));
        let json = json.context(INDEX)?;
        let index = publish::parse_index(&json).context(INDEX)?;
        let mut vmdk = OpenFile::open(at, VMDK).context(VMDK)?;
        let extents = vmdk.bytes(MAX_DESCRIPTOR);
        let extents = extents.and_then(|bytes| extents_of(bytes, &index)).context(VMDK)?;
        let mut disk = Vec::with_capacity(extents.len());
        for extent in extents {
            let open = || -> Result<OpenFile> {
                let file = OpenFile::open(at, &extent.path)?;
                let (found, told) = (file.size, extent.size);
                ensure!(found == told, "it has {found} bytes, its extent of the disk {told}");
                Ok(file)
            };
            disk.push(open().with_context(|| extent.path.clone())?);
        }
        let upper = OpenFile::open(at, UPPER).context(UPPER)?;

        let entries: HashMap<&str, &FileEntry> =
            index.files.iter().map(|entry| (&*entry.path, entry)).collect();
        for (i, file) in disk.iter().chain([&upper]).enumerate() {
            let entry = entries.get(&*file.path);
            let check = || -> Result<()> {
                let entry = entry.with_context(|| format!("{INDEX} does not know it"))?;
                file.has_size_of(entry)?;
                if all || i == 0 || file.path == UPPER {
                    file.has_content_of(entry)?;
                }
                Ok(())
            };
            check().with_context(|| file.path.clone())?;
        }
        let [fsmeta, layers @ ..] = &disk[..] else { bail!("{VMDK}: it has no extents") };
        let merged = || -> Result<()> {
            let told = index.layers.iter().map(|layer| &layer.path);
            ensure!(told.eq(layers.iter().map(|layer| &layer.path)), "the disk is not the layers");
            let bytes = map::file(&fsmeta.file)?;
            let sizes: Vec<u64> = layers.iter().map(|layer| layer.size).collect();
            check_devices(&Reader::new(&bytes)?, &index, &sizes)
        };
        merged().context(FSMETA)?;
        for layer in layers {
            let bytes = map::file(&layer.file).with_context(|| layer.path.clone())?;
            Reader::new(&bytes).with_context(|| layer.path.clone())?;
        }
        Ok(Self { dir, index, json, vmdk, disk, upper })
    }

    /// Every file of the index, once, with what it holds.
    pub fn files(&self) -> Vec<(&str, &File, &Content)> {
        let open = || self.disk.iter().chain([&self.upper, &self.vmdk]);
        let files = self.index.files.iter().filter_map(|entry| {
            let file = open().find(|file| file.path == entry.path)?;
            Some((&*entry.path, &file.file, &entry.content))
        });
        files.collect()
    }

    /// Whether no file was written to since it was checked.
    pub fn unchanged(&self) -> Result<()> {
        for file in self.disk.iter().chain([&self.upper, &self.vmdk]) {
            let path = self.dir.join(&file.path);
            ensure!(
                stamp(&file.file)? == file.stamp,
                "{} was changed while it was being checked",
                path.display()
            );
        }
        Ok(())
    }
}

/// The extents of a descriptor that is what this project writes for `index`.
fn extents_of(bytes: Vec<u8>, index: &Index) -> Result<Vec<vmdk::Extent>> {
    let text = String::from_utf8(bytes).context("it is no text")?;
    let extents = vmdk::parse(&text)?;
    ensure!(extents.len() <= MAX_EXTENTS, "it has {} extents", extents.len());
    let cid = text.lines().find_map(|line| line.strip_prefix("CID="));
    let cid = cid.and_then(|hex| u32::from_str_radix(hex, 16).ok()).context("it has no CID")?;
    ensure!(
        vmdk::descriptor(&extents, cid) == text,
        "it is not as a build writes it; other programs might read it otherwise"
    );
    let mut offset = 0u64;
    for (i, extent) in extents.iter().enumerate() {
        let plain = match extent.path.split_once('/') {
            None => i == 0 && extent.path == FSMETA,
            Some((sub, name)) => i > 0 && sub == LAYERS && plain_name(name),
        };
        ensure!(plain, "the extent {:?} is neither {FSMETA} nor a file of {LAYERS}/", extent.path);
        let end = offset.checked_add(extent.size).filter(|end| i64::try_from(*end).is_ok());
        offset = end.context("the disk's size overflows")?;
    }
    let told = index.disk.iter().map(|e| vmdk::Extent { path: e.path.clone(), size: e.size });
    ensure!(told.eq(extents.iter().cloned()), "its extents are not the disk of {INDEX}");
    Ok(extents)
}

/// A name in which no program sees anything but a file's name.
fn plain_name(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    name.starts_with(|c: char| c.is_ascii_alphanumeric()) && name.chars().all(plain)
}
