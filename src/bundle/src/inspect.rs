//! A report of what a bundle holds, for a person or a program.

use anyhow::{Context as _, Result};
use fsimage::budget::Budget;
use fsimage::digest::DiffId;
use fsimage::erofs::plan::Form;
use fsimage::erofs::read::Reader;
use fsimage::io::mmap;
use fsimage::tree::extents::Extents;
use fsimage::tree::{InodeId, Kind, Name, Tree};
use serde::Serialize;

use super::index::{Index, Layer};
use super::sound::{self, Depth};
use crate::names::{FSMETA, INDEX, LAYERS};
use crate::opened::Place;

/// The output of `inspect`.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Where the image came from.
    pub image: super::index::Image,
    /// How the image is to be run, by its own config.
    pub config: super::index::Config,
    /// The manifest's patches. The numbers of the report are of the image without them.
    pub patches: Vec<String>,
    /// The image's layers, the lowest first.
    pub layers: Vec<LayerReport>,
    /// Sums over the image.
    pub totals: Totals,
    /// Paths of one directory whose names differ only by case, together.
    pub case_conflicts: Vec<Vec<String>>,
    /// How many more groups of such paths there are.
    #[serde(skip_serializing_if = "is_none")]
    pub more_case_conflicts: u64,
}

fn is_none(count: &u64) -> bool {
    *count == 0
}

/// The most paths that are listed as differing only by case.
const MAX_CONFLICTS: usize = 10_000;

/// The most bytes of these paths. Bytes that are not text take four times as many in the
/// report.
const MAX_CONFLICT_BYTES: usize = 4 << 20;

/// A layer in the report.
#[derive(Debug, Serialize)]
pub struct LayerReport {
    /// The layer, as the index has it.
    #[serde(flatten)]
    pub layer: Layer,
    /// Bytes of its file.
    pub size: u64,
    /// Whether the cache has the layer now.
    pub cached: bool,
}

/// Sums over the image.
#[derive(Debug, Default, Serialize)]
pub struct Totals {
    /// Inodes of the image: the sum of the next four.
    pub inodes: u64,
    /// Directories, the root included.
    pub directories: u64,
    /// Regular files, each inode once.
    pub files: u64,
    /// Symbolic links.
    pub symlinks: u64,
    /// Devices, FIFOs and sockets.
    pub devices_and_others: u64,
    /// Bytes of regular files, holes included, each inode once.
    pub file_bytes: u64,
    /// Bytes of the layers' blobs.
    pub compressed: u64,
    /// Bytes of the layers' tar streams.
    pub uncompressed: u64,
    /// Bytes of fsmeta and of each layer's file once.
    pub disk: u64,
}

/// Reads the bundle at `place`. `is_cached` says whether the cache has a layer.
///
/// # Errors
/// When the index is not sound, or fsmeta does not have the size and the hash that the index
/// has, or is not an EROFS that can be read.
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
    // The sizes of blobs in an index are not checked, and may be any number.
    for layer in &index.layers {
        totals.compressed = totals.compressed.saturating_add(layer.compressed);
        totals.uncompressed = totals.uncompressed.saturating_add(layer.uncompressed);
    }
    totals
}

/// Paths of one directory whose names differ only by case, and the number of the groups that
/// are left out to keep the report small.
fn case_conflicts(tree: &Tree<Extents>) -> (Vec<Vec<String>>, u64) {
    let (mut conflicts, mut left_out) = (Vec::new(), 0);
    let (mut names_left, mut bytes_left) = (MAX_CONFLICTS, MAX_CONFLICT_BYTES);
    let mut walk = tree.walk();
    while let Some(dir) = walk.next() {
        let path = &walk.path;
        for names in alike(tree[dir].entries.keys()) {
            let own: usize = names.iter().map(|name| name.as_bytes().len()).sum();
            let above: usize = path.0.iter().map(|name| name.as_bytes().len() + 1).sum();
            let bytes = own.saturating_add(above.saturating_mul(names.len()));
            let left = names_left.checked_sub(names.len()).zip(bytes_left.checked_sub(bytes));
            let Some(left) = left else {
                left_out += 1;
                continue;
            };
            (names_left, bytes_left) = left;
            let names = names.into_iter().map(|name| path.join(name).to_string());
            conflicts.push(names.collect());
        }
    }
    conflicts.sort();
    (conflicts, left_out)
}

/// Groups those of `names` that differ only by case, each group in order.
fn alike<'t>(names: impl ExactSizeIterator<Item = &'t Name>) -> Vec<Vec<&'t Name>> {
    // A digest takes less memory than a name that is folded.
    let fold = |name: &Name| {
        let folded = String::from_utf8_lossy(name.as_bytes()).to_lowercase();
        *blake3::hash(folded.as_bytes()).as_bytes()
    };
    let mut folded: Vec<([u8; 32], &Name)> = names.map(|name| (fold(name), name)).collect();
    folded.sort_unstable();
    let groups = folded.chunk_by(|a, b| a.0 == b.0).filter(|group| group.len() > 1);
    let mut groups: Vec<Vec<&Name>> =
        groups.map(|group| group.iter().map(|(_, name)| *name).collect()).collect();
    groups.sort_unstable();
    groups
}

#[cfg(test)]
mod tests {
    use fsimage::tree::{Dir, Inode, Stat, Xattrs};

    use super::*;

    fn add(tree: &mut Tree<Extents>, dir: InodeId, name: &[u8], kind: Kind<Extents>) -> InodeId {
        let inode = Inode { stat: Stat::IMPLIED_DIR, xattrs: Xattrs::default(), kind };
        let id = tree.push(inode).unwrap();
        tree.dir_mut(dir).unwrap().entries.insert(Name::new(name).unwrap(), id);
        id
    }

    #[test]
    fn names_that_differ_by_case_are_listed_together_within_a_bound() {
        let mut tree = Tree::new(Stat::IMPLIED_DIR);
        let mut at = InodeId::ROOT;
        for name in [&b"b"[..], b"B", b"a", "\u{c4}".as_bytes(), "\u{e4}".as_bytes(), b"A", b"c"] {
            add(&mut tree, at, name, Kind::Fifo);
        }
        let texts = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let umlauts = texts(&["\\xc3\\x84", "\\xc3\\xa4"]);
        let expected: Vec<Vec<String>> = vec![texts(&["A", "a"]), texts(&["B", "b"]), umlauts];
        assert_eq!(case_conflicts(&tree), (expected, 0));

        // Long paths are fewer than short ones, and those that are left out are counted.
        for _ in 0..200 {
            at = add(&mut tree, at, &[0xff; 255], Kind::Dir(Dir::default()));
        }
        for i in 0..200 {
            add(&mut tree, at, format!("x{i}").as_bytes(), Kind::Fifo);
            add(&mut tree, at, format!("X{i}").as_bytes(), Kind::Fifo);
        }
        let (listed, left_out) = case_conflicts(&tree);
        let bytes: usize = listed.iter().flatten().map(String::len).sum();
        assert!(bytes <= 4 * MAX_CONFLICT_BYTES, "{bytes}");
        assert_eq!(listed.len() as u64 + left_out, 203);
        assert!(left_out > 100, "{left_out}");
    }
}
