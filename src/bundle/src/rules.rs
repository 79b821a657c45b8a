//! The rules that every index obeys, as far as they can be checked without the bundle's files.
//!
//! Whoever writes an index and whoever reads one apply the same rules, so that no
//! build makes a bundle which a reader refuses, and readers agree with each other.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result, bail, ensure};
use fsimage::digest::Blake3;
use fsimage::units::BLOCK_SIZE;

use super::content::ContentHash;
use super::index::{FileEntry, Index};
use super::{start, vmdk};
use crate::boot::size::{ByteSize, UpperSize};
use crate::names::{FSMETA, UPPER, VMDK, layer_path};

/// The most layers: each is a device of one EROFS, which has 16 bits for their numbers.
pub(crate) const MAX_LAYERS: usize = 65_535;

/// Checks each field of `index`, and that the fields agree with each other.
pub(crate) fn check(index: &Index) -> Result<()> {
    let count = index.layers.len();
    ensure!(count <= MAX_LAYERS, "it has {count} layers; an image has at most {MAX_LAYERS}");
    for (i, layer) in index.layers.iter().enumerate() {
        let path = layer_path(layer.diff_id);
        ensure!(layer.path == path, "layer {} has the path {:?}, not {path}", i + 1, layer.path);
    }
    let files = files(index)?;
    disk(index, &files)?;
    let descriptor = vmdk::of(index)?;
    let entry = files[VMDK];
    let hash = ContentHash::Blake3(Blake3::of(descriptor.as_bytes()));
    ensure!(
        entry.size == descriptor.len() as u64 && entry.content == hash,
        "{VMDK}: its size or hash is not that of the disk's descriptor"
    );
    start::check(&index.config, &index.boot)
}

/// The files of `index` by path. Checks that they are those of a bundle, each once, sorted by
/// path.
fn files(index: &Index) -> Result<BTreeMap<&str, &FileEntry>> {
    let layers = index.layers.iter().map(|layer| &*layer.path);
    let expected: BTreeSet<&str> = layers.chain([FSMETA, UPPER, VMDK]).collect();
    let found: Vec<&str> = index.files.iter().map(|file| &*file.path).collect();
    if !found.iter().copied().eq(expected.iter().copied()) {
        let known: BTreeSet<&str> = found.iter().copied().collect();
        if let Some(path) = known.difference(&expected).next() {
            bail!("its files have {path:?}, which is not a file of this bundle");
        }
        if let Some(path) = expected.difference(&known).next() {
            bail!("its files lack {path}");
        }
        bail!("its files are not in the order of their paths, or one is there twice");
    }
    for file in &index.files {
        self::file(file).with_context(|| file.path.clone())?;
    }
    Ok(index.files.iter().map(|file| (&*file.path, file)).collect())
}

fn file(file: &FileEntry) -> Result<()> {
    let has_holes = matches!(file.content, ContentHash::Blake3NonzeroBlocks(_));
    // The upper is mostly holes, perhaps terabytes of them, which must not be hashed as data.
    ensure!(
        has_holes == (file.path == UPPER),
        "its hash is of the wrong kind: {UPPER} alone is hashed by its blocks"
    );
    match &*file.path {
        UPPER => drop(UpperSize::try_from(ByteSize(file.size))?),
        VMDK => {}
        _ => ensure!(
            file.size > 0 && file.size.is_multiple_of(BLOCK_SIZE),
            "it has {} bytes, which are not whole blocks of {BLOCK_SIZE}",
            file.size
        ),
    }
    Ok(())
}

/// Checks that the disk consists of fsmeta and the layers, one behind the other.
fn disk(index: &Index, files: &BTreeMap<&str, &FileEntry>) -> Result<()> {
    let paths = std::iter::once(FSMETA).chain(index.layers.iter().map(|layer| &*layer.path));
    let found = index.disk.iter().map(|extent| &*extent.path);
    ensure!(found.eq(paths), "the disk is not {FSMETA} and the layers in their order");
    let mut offset = 0u64;
    for extent in &index.disk {
        let size = files.get(&*extent.path).map(|file| file.size);
        ensure!(
            extent.offset == offset && Some(extent.size) == size,
            "{}: its extent of the disk has another offset or size",
            extent.path
        );
        // A disk is as long as a file may be: less than 2^63 bytes.
        let end = offset.checked_add(extent.size).filter(|end| i64::try_from(*end).is_ok());
        offset = end.context("the disk's size overflows")?;
    }
    Ok(())
}
