//! Whether a bundle is what its index says, and all of it can be read.

use std::fs::{self, File};
use std::path::Path;

use anyhow::{Context as _, Result, ensure};

use super::index::{FileEntry, Index};
use super::open::OpenFile;
use super::publish::read_index;
use super::{FSMETA, INDEX, LAYERS, VMDK, vmdk};
use crate::erofs::plan::Form;
use crate::erofs::read::Reader;
use crate::map;

/// What is wrong with the bundle `dir`: file, and what. Nothing if it is sound.
///
/// # Errors
/// When there is no index to go by.
pub fn verify(dir: &Path) -> Result<Vec<(String, String)>> {
    let index = read_index(dir)?;
    let mut problems = Vec::new();
    let mut check = |path: &str, result: Result<()>| {
        if let Err(error) = result {
            problems.push((path.to_owned(), format!("{error:#}")));
        }
    };
    for entry in &index.files {
        check(&entry.path, file(dir, entry));
    }
    check(VMDK, descriptor(dir, &index));
    check(FSMETA, merged(dir, &index));
    let mut seen = Vec::new();
    for layer in index.layers.iter().filter(|layer| layer.path.starts_with(LAYERS)) {
        if !seen.contains(&&layer.path) {
            seen.push(&layer.path);
            check(&layer.path, object(dir, &layer.path));
        }
    }
    check(INDEX, strangers(dir, &index));
    Ok(problems)
}

/// Opens a file of the bundle, and nothing outside of it.
fn open(dir: &Path, path: &str) -> Result<OpenFile> {
    OpenFile::open(&File::open(dir)?, path)
}

fn file(dir: &Path, entry: &FileEntry) -> Result<()> {
    let file = open(dir, &entry.path)?;
    file.has_size_of(entry)?;
    file.has_content_of(entry)
}

fn descriptor(dir: &Path, index: &Index) -> Result<()> {
    open(dir, VMDK)?;
    let extents = vmdk::parse(&fs::read_to_string(dir.join(VMDK))?)?;
    let disk = index.disk.iter();
    let expected: Vec<_> =
        disk.map(|e| vmdk::Extent { path: e.path.clone(), size: e.size }).collect();
    ensure!(extents == expected, "its extents are not the disk of {INDEX}");
    let mut offset = 0u64;
    for extent in &index.disk {
        ensure!(extent.offset == offset, "{} begins elsewhere on the disk", extent.path);
        let size = open(dir, &extent.path).with_context(|| extent.path.clone())?.size;
        ensure!(size == extent.size, "{} has {size} bytes", extent.path);
        offset = offset.checked_add(size).context("the disk's size overflows")?;
    }
    let first = index.disk.first().map(|extent| extent.path.as_str());
    ensure!(first == Some(FSMETA), "the disk does not begin with {FSMETA}");
    let rest = index.disk.iter().skip(1).map(|extent| &extent.path);
    ensure!(rest.eq(index.layers.iter().map(|l| &l.path)), "the disk is not the layers");
    Ok(())
}

/// Reads every inode and entry of the merged tree.
fn merged(dir: &Path, index: &Index) -> Result<()> {
    let bytes = map::file(&open(dir, FSMETA)?.file)?;
    let reader = Reader::new(&bytes)?;
    let size = |path: &str| Ok(open(dir, path)?.size);
    let sizes = index.layers.iter().map(|layer| size(&layer.path)).collect::<Result<Vec<_>>>()?;
    check_devices(&reader, index, &sizes)?;
    reader.tree(Form::Image)?;
    Ok(())
}

/// Whether the device table of fsmeta is the layers, whose files have `sizes` bytes.
pub(super) fn check_devices(reader: &Reader<'_>, index: &Index, sizes: &[u64]) -> Result<()> {
    let count = reader.devices().len();
    ensure!(count == index.layers.len(), "{count} devices for {} layers", index.layers.len());
    for (i, (slot, layer)) in reader.devices().iter().zip(&index.layers).enumerate() {
        let blocks = u64::from(slot.blocks) * crate::units::BLOCK_SIZE;
        let size = sizes.get(i).copied().unwrap_or(0);
        ensure!(blocks == size, "device {} has {blocks} bytes, its layer {size}", i + 1);
        let tag = layer.diff_id.hex();
        ensure!(slot.tag == *tag.as_bytes(), "device {} is another layer", i + 1);
    }
    Ok(())
}

fn object(dir: &Path, path: &str) -> Result<()> {
    let bytes = map::file(&open(dir, path)?.file)?;
    Reader::new(&bytes)?.tree(Form::Object)?;
    Ok(())
}

/// Files that the index does not know.
fn strangers(dir: &Path, index: &Index) -> Result<()> {
    for (sub, prefix) in [(dir.to_owned(), ""), (dir.join(LAYERS), "layers/")] {
        for entry in fs::read_dir(&sub).with_context(|| sub.display().to_string())? {
            let path = format!("{prefix}{}", entry?.file_name().to_string_lossy());
            let known =
                path == INDEX || path == LAYERS || index.files.iter().any(|f| f.path == path);
            ensure!(known, "{path} is in the directory, but not in the index");
        }
    }
    Ok(())
}
