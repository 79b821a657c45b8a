//! Opens a bundle that somebody else may have made or changed.
//!
//! Whoever runs a disk from a descriptor follows it wherever it points. So the descriptor
//! must be, to the byte, one that this project writes; every file is opened once, below the
//! bundle's directory and through no link, and checked as [`super::sound`] says. A machine
//! gets those open files and never their names, so that a file which is exchanged after the
//! check does not reach it (TOCTOU).

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use fsimage::io::temporary::Temporary;

use super::content::ContentHash;
use super::index::Index;
use super::signature;
use super::sound::{self, Depth};
use crate::names::{INDEX, SIGNATURE, UPPER, VMDK};
use crate::opened::{OpenFile, Place};

/// A bundle whose files are open and checked against its index.
#[derive(Debug)]
pub struct OpenBundle {
    /// The bundle's directory.
    pub dir: PathBuf,
    /// The bundle's index.
    pub index: Index,
    /// The bytes of the index.
    pub json: Vec<u8>,
    /// The disk's descriptor.
    pub vmdk: Arc<OpenFile>,
    /// fsmeta and the layers, in the order of the disk. A layer that occurs twice is open
    /// once.
    pub disk: Vec<Arc<OpenFile>>,
    /// The writable upper, an ext4.
    pub upper: Arc<OpenFile>,
    /// The bundle's directory, open.
    pub(super) at: File,
}

/// Reads the index of the bundle `dir`.
///
/// # Errors
/// When there is no bundle at `dir`, or its index cannot be read or is not to the byte
/// what a build writes.
pub fn read_index(dir: &Path) -> Result<Index> {
    let index = || -> Result<Index> { Ok(Place::find(dir)?.index().context(INDEX)?.1) };
    index().with_context(|| format!("bundle {}", dir.display()))
}

impl OpenBundle {
    /// Opens the bundle at `path`, its directory or its descriptor, and checks it as far as
    /// `depth` says.
    ///
    /// # Errors
    /// With the first thing that keeps the bundle from being sound.
    pub fn open(path: &Path, depth: Depth) -> Result<Self> {
        Self::check(Place::find(path)?, depth).with_context(|| format!("bundle {}", path.display()))
    }

    /// As [`OpenBundle::open`], for a bundle whose directory is open already.
    ///
    /// # Errors
    /// With the first thing that keeps the bundle from being sound.
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

    /// Creates a temporary file in the bundle's directory, and so on the file system of the
    /// upper. It disappears with the process.
    ///
    /// # Errors
    /// When no file can be made in the bundle's directory.
    pub fn scratch(&self) -> io::Result<File> {
        Temporary::create_in(&self.at, 0o600).map(Temporary::into_file)
    }

    /// Every file of the index, once, with the hash of its content.
    pub fn files(&self) -> Vec<(&str, &File, &ContentHash)> {
        let open: HashMap<&str, &OpenFile> = self.open_files().collect();
        let files = self.index.files.iter().filter_map(|entry| {
            let file = open.get(&*entry.path)?;
            Some((&*entry.path, &file.file, &entry.content))
        });
        files.collect()
    }

    /// The bundle's signature, if it has one.
    ///
    /// # Errors
    /// When the signature's file cannot be read, is too large, or does not hold a
    /// signature of minisign.
    pub fn signature(&self) -> Result<Option<Vec<u8>>> {
        signature::read(&self.at).context(SIGNATURE)
    }

    fn open_files(&self) -> impl Iterator<Item = (&str, &OpenFile)> {
        let files = self.disk.iter().chain([&self.upper, &self.vmdk]);
        files.map(|file| (&*file.path, &**file))
    }

    /// Makes sure that no file was written to since it was checked.
    ///
    /// # Errors
    /// When a file was changed since, or cannot be read to tell.
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
