//! A layer: blob in, object and tree out, in one pass.
//!
//! Three threads work at it: one inflates, one hashes what went in and what came
//! out and takes the tar apart, and one writes. What a layer costs beyond the
//! inflating is in its way as little as that allows.

mod contents;
mod entry;
mod header;
mod inflate;
pub(super) mod limits;
mod number;
mod pax;
pub mod place;
mod sparse;
mod stream;
mod xattr;

use std::fs::File;
use std::io::Read;

use anyhow::{Context as _, Result, ensure};
use fsimage::digest::{Blake3, DiffId};
use fsimage::erofs::layer::ObjectWriter;
use fsimage::io::sink::FileSink;
use fsimage::tree::extents::Extents;
use fsimage::tree::{GuestPath, Inode, Kind, Stat, Tree, shown};

use self::contents::Contents;
use self::entry::{Entry, Stored, What};
pub use self::limits::{Budgets, Limits, take_sparse};
use self::place::{Placer, Target};
pub use self::stream::BlobSeen;
use self::stream::{Allowed, Stream};

/// A layer compiled.
pub struct Compiled {
    /// The tree that the layer alone describes, with its whiteouts and opaque directories as
    /// marks.
    pub tree: Tree<Extents>,
    /// Its object, complete, not yet synced.
    pub file: File,
    /// BLAKE3 of the object.
    pub blake3: Blake3,
    /// Digest of the tar stream, all of it.
    pub diff_id: DiffId,
    /// Bytes of the tar stream.
    pub uncompressed: u64,
}

/// Compiles `blob` into `file`, which is empty. `diff_id` is what the image
/// says the layer is; the caller compares it with [`Compiled::diff_id`], and
/// [`BlobSeen`] with the manifest, before the object is used.
pub fn compile(
    blob: impl Read + Send,
    diff_id: DiffId,
    file: File,
    limits: &Limits,
    budgets: &Budgets,
    progress: &(dyn Fn(u64) + Sync),
) -> (Result<Compiled>, BlobSeen) {
    let allowed = Allowed::of(limits, budgets);
    stream::with_stream(blob, allowed, progress, |stream| {
        let mut object = ObjectWriter::new(file)?;
        let root = GuestPath::default();
        let tree = ingest(stream, object.data(), limits, budgets, &root)?;
        let (seen, uncompressed) = stream.finish()?;
        let (file, blake3) = object.finish(&tree, diff_id)?;
        Ok(Compiled { tree, file, blake3, diff_id: seen.into(), uncompressed })
    })
}

/// A tar taken apart that is no layer of an image.
pub struct Loose {
    /// The tree that the tar describes; the data of its files lie in `file`.
    pub tree: Tree<Extents>,
    /// The contents of its files, on blocks, and nothing else.
    pub file: File,
    /// BLAKE3 of `file`.
    pub blake3: Blake3,
}

/// Takes the tar `blob` (plain, gzip or zstd) apart into `file`, which is empty.
/// Its root is the directory `base` of the tree.
///
/// # Errors
/// It fails when the tar cannot be read or inflated, is malformed, or goes past a limit or a
/// budget, and when `file` cannot be written.
pub fn take_apart(
    blob: impl Read + Send,
    file: File,
    limits: &Limits,
    budgets: &Budgets,
    base: &GuestPath,
) -> Result<Loose> {
    let allowed = Allowed::of(limits, budgets);
    let (loose, seen) = stream::with_stream(blob, allowed, &|_| {}, |stream| {
        let mut data = FileSink::hashed(file);
        // The upper gets them at once.
        data.cached()?;
        let tree = ingest(stream, &mut data, limits, budgets, base)?;
        stream.finish()?;
        let (file, hash) = data.finish(&[])?;
        Ok(Loose { tree, file, blake3: hash.context("the sink hashes")? })
    });
    match seen.unread.or(seen.error) {
        Some(error) => Err(error),
        None => loose,
    }
}

/// `base` is the directory of the tree that the tar's root is.
fn ingest(
    stream: &mut Stream<'_>,
    data: &mut FileSink,
    limits: &Limits,
    budgets: &Budgets,
    base: &GuestPath,
) -> Result<Tree<Extents>> {
    let mut placer = Placer::new(limits, &budgets.metadata, &budgets.steps);
    let mut contents = Contents::new(data, &budgets.sparse)?;
    let mut entries = 0u64;
    let base = base.to_bytes();
    let below = |path: &mut Vec<u8>| {
        if !base.is_empty() {
            *path = [&base, &b"/"[..], path].concat();
        }
    };
    let mut before: Option<String> = None;
    while let Some(mut entry) =
        entry::next(stream, limits, &budgets.steps).map_err(|error| match &before {
            Some(before) => error.context(before.clone()),
            None => error,
        })?
    {
        below(&mut entry.path);
        if let What::HardLink(target) = &mut entry.what {
            below(target);
            budgets.steps.take(target.iter().filter(|b| **b == b'/').count())?;
        }
        entries += 1;
        ensure!(
            entries <= limits.entries,
            "more than {} entries (raise --max-entries to allow it)",
            limits.entries
        );
        let name = shown(&entry.path).to_string();
        before = (entry.announced > 0).then(|| {
            let bytes = entry.announced;
            format!("behind {name}, whose header announces {bytes} bytes that its type cannot have")
        });
        place(entry, &mut placer, stream, &mut contents, limits).context(name)?;
    }
    placer.finish()
}

fn place(
    entry: Entry,
    placer: &mut Placer<'_>,
    stream: &mut Stream<'_>,
    contents: &mut Contents<'_>,
    limits: &Limits,
) -> Result<()> {
    let target = Target::parse(&entry.path, limits)?;
    if let What::File(stored) = &entry.what
        && !matches!(target, Target::Entry(..) | Target::Plink(_))
    {
        stream.skip(stored.stored)?;
        stream.skip_padding(stored.padding)?;
    }
    let (parent, name) = match target {
        Target::Entry(parent, name) => (parent, name),
        Target::Plink(path) => {
            return match entry.what {
                What::File(stored) => {
                    let kind = Kind::File(write_file(stream, &stored, contents)?);
                    placer.plink(path, Inode { stat: entry.stat, xattrs: entry.xattrs, kind })
                }
                _ => Ok(()),
            };
        }
        Target::Root => {
            ensure!(matches!(entry.what, What::Dir), "the root is not a directory");
            return placer.root(entry.stat, entry.xattrs);
        }
        Target::Whiteout(parent, name) => return placer.whiteout(&parent, name),
        Target::Opaque(dir) => return placer.opaque(&dir),
        Target::Dropped => return Ok(()),
    };
    let Entry { stat, xattrs, what, .. } = entry;
    let kind = match what {
        What::Dir => return placer.dir(&parent, name, stat, xattrs),
        What::HardLink(target) => return placer.hard_link(&parent, name, &target),
        // In whatever directory of an overlay it lies, it is a whiteout.
        What::Char(rdev) if rdev.encode() == 0 => return placer.whiteout(&parent, name),
        What::File(stored) => Kind::File(write_file(stream, &stored, contents)?),
        What::Symlink(target) => Kind::Symlink(symlink_target(target)?),
        What::Char(rdev) => Kind::Char(rdev),
        What::Block(rdev) => Kind::Block(rdev),
        What::Fifo => Kind::Fifo,
    };
    // Linux has no other mode for symbolic links, whatever a tar says.
    let mode = if matches!(kind, Kind::Symlink(_)) { 0o777 } else { stat.mode };
    placer.inode(&parent, name, Inode { stat: Stat { mode, ..stat }, xattrs, kind })
}

fn symlink_target(target: Vec<u8>) -> Result<Box<[u8]>> {
    ensure!(!target.is_empty(), "a symbolic link without target");
    ensure!(!target.contains(&0), "a symbolic link's target holds a NUL");
    ensure!(
        target.len() < 4096,
        "a symbolic link's target has {} bytes; Linux allows 4095",
        target.len()
    );
    Ok(target.into())
}

/// Takes a file's bytes.
fn write_file(
    stream: &mut Stream<'_>,
    stored: &Stored,
    contents: &mut Contents<'_>,
) -> Result<Extents> {
    let extents = match &stored.map {
        None => contents.add(stream, stored.stored)?,
        Some(map) => contents.add_sparse(stream, map)?,
    };
    stream.skip_padding(stored.padding)?;
    Ok(extents)
}
