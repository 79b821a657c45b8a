//! The one definition of a sound bundle, for everything that reads bundles.
//!
//! The index is what [`super::seal`] writes, and obeys `rules`. Each of its files is a regular
//! file in the bundle's directory, reached through no link, with the size and the hash that
//! the index has. bundle.vmdk is, to the byte, what follows from the index. fsmeta and the
//! layers are EROFS of which every inode and entry can be read, on the devices that the index
//! has. The upper is an ext4 without a fault. Nothing else lies in the directory but a
//! signature of minisign, or the temporary file of one that is or was being written; whether
//! the signature is good, [`super::signature`] checks.
//!
//! [`verify`] lists all faults; all other readers fail at the first one. Some readers do not
//! read everything, see [`Depth`]; they do not differ otherwise.

use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::ffi::OsStrExt as _;

use anyhow::{Context as _, Result, bail, ensure};
use fsimage::budget::Budget;
use fsimage::erofs::plan::Form;
use fsimage::erofs::read::Reader;
use fsimage::ext4;
use fsimage::io::{mmap, regular, temporary};
use fsimage::units::BLOCK_SIZE;
use rustix::fs::{AtFlags, FileType};
use rustix::io::Errno;

use super::index::{FileEntry, Index};
use super::signature::{self, Key};
use super::vmdk;
use crate::names::{FSMETA, INDEX, LAYERS, SIGNATURE, UPPER, VMDK};
use crate::opened::{OpenFile, Place};

/// How much of a bundle is read to know that it is sound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// The index, the sizes of all files, the descriptor and superblocks: for the program that
    /// wrote the bundle a moment ago, and hashed what it wrote.
    Written,
    /// As [`Depth::Written`], and the hashes of fsmeta and upper, which a machine reads first.
    /// Layers are checked by size and superblock.
    Boot,
    /// As [`Depth::Boot`], and every inode and entry: for a program that received the bundle
    /// from elsewhere, and hashed the layers as they came.
    Received,
    /// Everything, with the hashes of all files.
    Full,
}

impl Depth {
    /// Whether the file at `path` is hashed. (The descriptor is compared in any case.)
    fn hashes(self, path: &str) -> bool {
        match self {
            Self::Written => false,
            Self::Boot | Self::Received => path == FSMETA || path == UPPER,
            Self::Full => true,
        }
    }

    /// Whether every inode and entry is read, and not only the superblock.
    fn reads_trees(self) -> bool {
        matches!(self, Self::Received | Self::Full)
    }
}

/// What is wrong with one file of a bundle.
#[derive(Debug)]
pub struct Problem {
    /// The file's path, relative to the bundle.
    pub path: String,
    /// Why the bundle is not sound.
    pub error: anyhow::Error,
}

/// Checks all of the bundle at `place`, and returns what is wrong with it. If there are
/// `keys`, it must be signed by one of them.
pub fn verify(place: &Place, keys: &[Key]) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut problem = |path: &str, result: Result<()>| {
        if let Err(error) = result {
            problems.push(Problem { path: path.to_owned(), error });
        }
    };
    match place.index() {
        Err(error) => problem(INDEX, Err(error)),
        Ok((json, index)) => {
            let signed = place.signature().and_then(|text| match keys {
                [] => Ok(()),
                // Checked against the bytes that were read above: the file may have changed.
                keys => signature::check(&json, text.as_deref(), keys),
            });
            problem(SIGNATURE, signed);
            for entry in &index.files {
                problem(&entry.path, file(place, &index, entry, Depth::Full).map(drop));
            }
            problem(INDEX, nothing_else(place, &index, Depth::Full));
        }
    }
    problems
}

/// Checks the bundle at `place`, and keeps nothing of it open.
///
/// # Errors
/// With the first thing that keeps the bundle from being sound, as far as `depth` looks.
pub fn check(place: &Place, depth: Depth) -> Result<()> {
    let (_, index) = place.index().context(INDEX)?;
    for entry in &index.files {
        file(place, &index, entry, depth).with_context(|| entry.path.clone())?;
    }
    nothing_else(place, &index, depth)?;
    is_signature(place, depth).context(SIGNATURE)
}

/// Refuses a file in the signature's place that is not a signature. Whether it is by the right
/// key is checked elsewhere, if a user named one.
pub(super) fn is_signature(place: &Place, depth: Depth) -> Result<()> {
    if depth == Depth::Full {
        place.signature()?;
    }
    Ok(())
}

/// Opens the file `entry` of the index, and checks it as far as `depth` says.
pub(super) fn file(
    place: &Place,
    index: &Index,
    entry: &FileEntry,
    depth: Depth,
) -> Result<OpenFile> {
    let file = place.open(&entry.path)?;
    ensure!(file.size == entry.size, "it has {} bytes, not {}", file.size, entry.size);
    match &*entry.path {
        VMDK => descriptor(&file, index)?,
        path => {
            if depth.hashes(path) {
                let holes = entry.content.holes(&file.file)?;
                ensure!(
                    place.holes.take(holes).is_ok(),
                    "its holes, with those of the files before it, have more than {} bytes; all of \
                     them are hashed, and no build writes so many",
                    place.holes.limit()
                );
                entry.content.check_file(&file.file)?;
            }
            match path {
                FSMETA => merged(&file, place, index, depth)?,
                UPPER if depth.reads_trees() => {
                    ext4::read::check(&file.file, &Budget::new(place.metadata_bytes))?;
                }
                UPPER => {}
                _ => layer(&file, place, depth)?,
            }
        }
    }
    Ok(file)
}

/// Checks that the descriptor is what a build writes.
fn descriptor(file: &OpenFile, index: &Index) -> Result<()> {
    let found = regular::bytes(&file.file, file.size)?;
    ensure!(
        found == vmdk::of(index)?.as_bytes(),
        "it is not what a build writes for the disk of {INDEX}; other programs might read it \
         otherwise"
    );
    Ok(())
}

/// Checks that fsmeta can be read, and has the layers as its devices.
fn merged(file: &OpenFile, place: &Place, index: &Index, depth: Depth) -> Result<()> {
    let bytes = mmap::file(&file.file)?;
    let reader = Reader::new(&bytes)?;
    let (devices, layers) = (reader.devices(), &index.layers);
    let (found, told) = (devices.len(), layers.len());
    ensure!(found == told, "it has {found} devices, and there are {told} layers");
    let extents = index.disk.iter().skip(1);
    for (i, ((slot, layer), extent)) in devices.iter().zip(layers).zip(extents).enumerate() {
        let (bytes, size) = (u64::from(slot.blocks) * BLOCK_SIZE, extent.size);
        ensure!(bytes == size, "its device {} has {bytes} bytes, the layer {size}", i + 1);
        let tag = layer.diff_id.hex();
        ensure!(slot.tag == *tag.as_bytes(), "its device {} is another layer", i + 1);
    }
    if depth.reads_trees() {
        reader.tree(Form::Image, &Budget::new(place.metadata_bytes))?;
    }
    Ok(())
}

/// Checks that a layer can be read.
fn layer(file: &OpenFile, place: &Place, depth: Depth) -> Result<()> {
    let bytes = mmap::file(&file.file)?;
    let reader = Reader::new(&bytes)?;
    if depth.reads_trees() {
        reader.tree(Form::Object, &Budget::new(place.metadata_bytes))?;
    }
    Ok(())
}

/// Whether `name` in a bundle's directory is the temporary file of a signature.
fn is_unfinished(dir: &File, name: &OsStr) -> bool {
    let stat = || rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW);
    let is_file = || stat().map(|stat| FileType::from_raw_mode(stat.st_mode).is_file());
    // It may have been renamed to its final name in the meantime.
    temporary::is_name(name) && matches!(is_file(), Ok(true) | Err(Errno::NOENT))
}

/// Refuses files that the index does not name. Only [`Depth::Full`] looks for them, because
/// they never reach a machine.
pub(super) fn nothing_else(place: &Place, index: &Index, depth: Depth) -> Result<()> {
    if depth != Depth::Full {
        return Ok(());
    }
    let known = |path: &str| index.files.binary_search_by(|f| (*f.path).cmp(path)).is_ok();
    let look = |dir: &File, prefix: &str| -> Result<()> {
        for entry in rustix::fs::Dir::read_from(dir)? {
            let entry = entry?;
            let name = String::from_utf8_lossy(entry.file_name().to_bytes()).into_owned();
            let path = format!("{prefix}{name}");
            let fine = matches!(&*name, "." | "..") || known(&path);
            let fine = fine || matches!(&*path, INDEX | LAYERS | SIGNATURE);
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            let fine = fine || prefix.is_empty() && is_unfinished(dir, name);
            ensure!(fine, "{path:?} is in the directory, but not in the index");
        }
        Ok(())
    };
    look(&place.at, "")?;
    match &place.layers {
        Ok(layers) => look(layers, &format!("{LAYERS}/")),
        // An image without layers needs no such directory.
        Err(Errno::NOENT) => Ok(()),
        Err(error) => bail!("{LAYERS} is not a directory of the bundle: {error}"),
    }
}
