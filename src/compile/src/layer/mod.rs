//! A layer: blob in, object and tree out, in one pass.
//!
//! Three threads share the work, so that inflating, which takes longest, waits for
//! nothing: one reads and inflates the blob, one hashes both streams and parses the
//! tar, and one writes the object behind them.

mod contents;
mod entry;
mod header;
mod inflate;
pub(super) mod limits;
mod number;
mod pax;
mod place;
mod role;
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
use self::entry::{Entry, EntryKind, Stored};
pub use self::limits::{Budgets, Limits, take_sparse};
use self::place::Placer;
use self::role::Role;
pub use self::stream::Outcome;
use self::stream::{Allowed, Stream};

/// A layer compiled.
#[derive(Debug)]
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

/// Compiles `blob` into `file`, which is empty. `diff_id` is what the image says the
/// layer is: it becomes the object's UUID, and the caller compares it with
/// [`Compiled::diff_id`].
pub fn compile(
    blob: impl Read + Send,
    diff_id: DiffId,
    file: File,
    limits: &Limits,
    budgets: &Budgets,
    progress: &(dyn Fn(u64) + Sync),
) -> Outcome<Compiled> {
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

/// A tar that was taken apart for a patch: its files without an object around them.
#[derive(Debug)]
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
    let outcome = stream::with_stream(blob, allowed, &|_| {}, |stream| {
        let mut data = FileSink::hashed(file);
        // They are read again at once, for the upper, so they stay in the page cache.
        data.cached()?;
        let tree = ingest(stream, &mut data, limits, budgets, base)?;
        stream.finish()?;
        let (file, hash) = data.finish(&[])?;
        Ok(Loose { tree, file, blake3: hash.context("the sink hashes")? })
    });
    outcome.checked(|_, _| Ok(()))
}

/// Reads the tar in `stream` to a tree, and its files to `data`. The tar's root becomes
/// the directory `base` of the tree.
fn ingest(
    stream: &mut Stream<'_>,
    data: &mut FileSink,
    limits: &Limits,
    budgets: &Budgets,
    base: &GuestPath,
) -> Result<Tree<Extents>> {
    let mut placer = Placer::new(budgets.bounds(limits));
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
        if let EntryKind::HardLink(target) = &mut entry.kind {
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

/// Puts `entry` into the tree of `placer`, and takes its bytes from the stream.
fn place(
    entry: Entry,
    placer: &mut Placer<'_>,
    stream: &mut Stream<'_>,
    contents: &mut Contents<'_>,
    limits: &Limits,
) -> Result<()> {
    let role = Role::parse(&entry.path, limits)?;
    if let EntryKind::File(stored) = &entry.kind
        && !matches!(role, Role::Entry(..) | Role::Plink(_))
    {
        stream.skip(stored.stored)?;
        stream.skip_padding(stored.padding)?;
    }
    let (parent, name) = match role {
        Role::Entry(parent, name) => (parent, name),
        Role::Plink(path) => {
            return match entry.kind {
                EntryKind::File(stored) => {
                    let kind = Kind::File(write_file(stream, &stored, contents)?);
                    placer.plink(path, Inode { stat: entry.stat, xattrs: entry.xattrs, kind })
                }
                _ => Ok(()),
            };
        }
        Role::Root => {
            ensure!(matches!(entry.kind, EntryKind::Dir), "the root is not a directory");
            return placer.root(entry.stat, entry.xattrs);
        }
        Role::Whiteout(parent, name) => return placer.whiteout(&parent, name),
        Role::Opaque(dir) => return placer.opaque(&dir),
        Role::Dropped => return Ok(()),
    };
    let Entry { stat, xattrs, kind, .. } = entry;
    let kind = match kind {
        EntryKind::Dir => return placer.dir(&parent, name, stat, xattrs),
        EntryKind::HardLink(target) => return placer.hard_link(&parent, name, &target),
        // overlayfs takes a device 0:0 for a whiteout in each of its directories.
        EntryKind::Char(rdev) if rdev.encode() == 0 => return placer.whiteout(&parent, name),
        EntryKind::File(stored) => Kind::File(write_file(stream, &stored, contents)?),
        EntryKind::Symlink(target) => Kind::Symlink(symlink_target(target)?),
        EntryKind::Char(rdev) => Kind::Char(rdev),
        EntryKind::Block(rdev) => Kind::Block(rdev),
        EntryKind::Fifo => Kind::Fifo,
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
