//! What a bundle holds, for a person or a program.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use fsimage::budget::Budget;
use fsimage::digest::DiffId;
use fsimage::erofs::plan::Form;
use fsimage::erofs::read::Reader;
use fsimage::io::mmap;
use fsimage::tree::extents::Extents;
use fsimage::tree::{GuestPath, InodeId, Kind, Name, Tree};
use serde::Serialize;

use super::index::{Index, Layer};
use super::open::Place;
use super::sound::{self, Depth};
use super::{FSMETA, INDEX, LAYERS};

/// What `inspect` tells.
#[derive(Debug, Serialize)]
pub struct Report {
    pub image: super::index::Image,
    pub config: super::index::Config,
    /// What the manifest changed; the numbers are of the image without that.
    pub patches: Vec<String>,
    pub layers: Vec<LayerReport>,
    pub totals: Totals,
    /// Paths of one directory whose names differ only by case, together.
    pub case_conflicts: Vec<Vec<String>>,
    /// How many such there are beside those that are listed.
    #[serde(skip_serializing_if = "is_none")]
    pub more_case_conflicts: u64,
}

fn is_none(count: &u64) -> bool {
    *count == 0
}

/// Names that are listed because others differ from them only by case.
const MAX_CONFLICTS: usize = 10_000;

/// A layer, and what was noted of it.
#[derive(Debug, Serialize)]
pub struct LayerReport {
    #[serde(flatten)]
    pub layer: Layer,
    /// Bytes of its file.
    pub size: u64,
    /// Whether the cache has it now.
    pub cached: bool,
}

/// Sums over the image.
#[derive(Debug, Default, Serialize)]
pub struct Totals {
    pub inodes: u64,
    pub directories: u64,
    pub files: u64,
    pub symlinks: u64,
    pub devices_and_others: u64,
    /// Bytes of regular files, holes included, each inode once.
    pub file_bytes: u64,
    pub compressed: u64,
    pub uncompressed: u64,
    /// Bytes of fsmeta and of each layer's file once.
    pub disk: u64,
}

/// Reads the bundle at `place`; `is_cached` tells of a layer whether the cache has it.
pub fn inspect(place: &Place, is_cached: impl Fn(DiffId) -> bool) -> Result<Report> {
    let (_, index) = place.index().with_context(|| place.dir.join(INDEX).display().to_string())?;
    let fsmeta = index.files.iter().find(|file| file.path == FSMETA).context(FSMETA)?;
    let fsmeta = sound::file(place, &index, fsmeta, Depth::Boot).context(FSMETA)?;
    let bytes = mmap::file(&fsmeta.file)?;
    let budget = Budget::new(place.metadata_bytes);
    let tree =
        Reader::new(&bytes).and_then(|reader| reader.tree(Form::Image, &budget)).context(FSMETA)?;
    // The index has its files in the order of their paths.
    let size = |path: &str| {
        let found = index.files.binary_search_by(|file| (*file.path).cmp(path));
        found.map_or(0, |at| index.files[at].size)
    };
    let mut totals = totals(&tree, &index);
    let counted = |path: &str| path == FSMETA || path.starts_with(LAYERS);
    totals.disk = index.files.iter().filter(|f| counted(&f.path)).map(|f| f.size).sum();
    let layers = index.layers.iter().map(|layer| LayerReport {
        size: size(&layer.path),
        cached: is_cached(layer.diff_id),
        layer: layer.clone(),
    });
    let layers = layers.collect();
    let (case_conflicts, more_case_conflicts) = case_conflicts(&tree);
    let Index { image, config, patches, .. } = index;
    Ok(Report { image, config, patches, layers, totals, case_conflicts, more_case_conflicts })
}

fn totals(tree: &Tree<Extents>, index: &Index) -> Totals {
    let mut totals = Totals::default();
    for id in 0..tree.len() as u32 {
        totals.inodes += 1;
        match &tree.inode(InodeId(id)).kind {
            Kind::Dir(_) => totals.directories += 1,
            Kind::File(extents) => {
                totals.files += 1;
                totals.file_bytes = totals.file_bytes.saturating_add(extents.size);
            }
            Kind::Symlink(_) => totals.symlinks += 1,
            _ => totals.devices_and_others += 1,
        }
    }
    // Nothing bounds what an index tells of blobs.
    for layer in &index.layers {
        totals.compressed = totals.compressed.saturating_add(layer.compressed);
        totals.uncompressed = totals.uncompressed.saturating_add(layer.uncompressed);
    }
    totals
}

/// Names of one directory that differ only by case; of so many in all that a report
/// can be read.
fn case_conflicts(tree: &Tree<Extents>) -> (Vec<Vec<String>>, u64) {
    let (mut conflicts, mut names_left, mut left_out) = (Vec::new(), MAX_CONFLICTS, 0);
    let mut path = GuestPath::default();
    // With the depth of the directory that each is in.
    let mut dirs = vec![(0, None, InodeId::ROOT)];
    while let Some((depth, name, id)) = dirs.pop() {
        path.0.truncate(depth);
        path.0.extend(name);
        let depth = path.0.len();
        let entries = tree.dir(id).into_iter().flat_map(|dir| &dir.entries);
        let mut folded: BTreeMap<String, Vec<&Name>> = BTreeMap::new();
        for (name, child) in entries {
            let fold = String::from_utf8_lossy(name.as_bytes()).to_lowercase();
            folded.entry(fold).or_default().push(name);
            if tree.dir(*child).is_some() {
                dirs.push((depth, Some(name.clone()), *child));
            }
        }
        for names in folded.into_values().filter(|names| names.len() > 1) {
            match names_left.checked_sub(names.len()) {
                Some(left) => {
                    names_left = left;
                    let names = names.into_iter().map(|name| path.join(name).to_string());
                    conflicts.push(names.collect());
                }
                None => left_out += 1,
            }
        }
    }
    conflicts.sort();
    (conflicts, left_out)
}
