//! The upper: applies the patches, chooses a size, and writes an ext4.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::MetadataExt as _;

use anyhow::{Result, anyhow, ensure};
use bundle::content::{ContentHash, NonzeroBlocks};
use fsimage::digest::Blake3;
use fsimage::ext4::{self, Layout};
use fsimage::io::sink::{FileSink, Sink};
use fsimage::tree::extents::Extents;
use fsimage::tree::{DirId, Name, Stat, Timestamp, Tree};

use crate::build::context::Build;
use crate::manifest::Manifest;
use crate::patch;
use crate::patch::change::{Change, Environment};
use crate::patch::content::{Content, Disks};
use crate::progress::Event;

/// Bytes of an upper without a size in the manifest.
const USUAL_SIZE: u64 = 4 << 30;

/// Bytes that such an upper has free for the guest. It becomes larger if the patches need
/// more than the rest.
const FREE: u64 = 3 << 30;

/// The most bytes of an upper without a size in the manifest. A few bytes of an image can be
/// files that take a hundred thousand times as much when patches copy them.
const MOST_UNASKED: u64 = 64 << 30;

/// The content of an upper.
pub(super) struct UpperTree {
    tree: Tree<OnDisks>,
    /// The changes of each patch, if they are recorded.
    pub changes: Vec<Vec<Change>>,
    /// Fingerprint of the patches; None if there are none.
    fingerprint: Option<blake3::Hash>,
}

/// The content of a file, with the disks that hold its bytes.
struct OnDisks {
    content: Content,
    disks: std::sync::Arc<Disks>,
}

impl ext4::Content for OnDisks {
    fn size(&self) -> u64 {
        self.content.size()
    }

    fn data(&self) -> io::Result<Vec<Range<u64>>> {
        self.content.data()
    }

    fn copy(&self, range: Range<u64>, sink: &mut dyn Sink) -> io::Result<()> {
        self.content.copy(range, &self.disks, sink)
    }
}

/// The time of files that patches make: the time that the user `set`, else that at which the
/// image was `created`, else 1970.
pub fn patch_time(set: Option<i64>, created: Option<&str>) -> Timestamp {
    let created = created.and_then(|text| text.parse::<jiff::Timestamp>().ok());
    match (set, created) {
        (Some(sec), _) => Timestamp { sec, nsec: 0 },
        (None, Some(at)) => {
            let nanos = at.as_nanosecond();
            let (sec, nsec) = (nanos.div_euclid(1_000_000_000), nanos.rem_euclid(1_000_000_000));
            // Does not overflow: jiff's times lie between the years -9999 and 9999.
            Timestamp { sec: sec as i64, nsec: nsec as u32 }
        }
        (None, None) => Timestamp::EPOCH,
    }
}

/// Applies the patches of the manifest to `tree`, whose files lie on `disks`. In a preview, the
/// changes are recorded.
pub(super) fn patch(build: &Build<'_>, (tree, disks): (Tree<Extents>, Disks)) -> Result<UpperTree> {
    let Build { request, image, budgets, cache, staging, reporter } = *build;
    let manifest = &request.manifest;
    let created = image.config.created().as_deref();
    let own = match staging {
        Some(staging) => staging.directories(),
        None => {
            let there = std::fs::metadata(&request.output);
            there.map(|there| (there.dev(), there.ino())).into_iter().collect()
        }
    };
    let environment = Environment {
        time: patch_time(request.source_date_epoch, created),
        limits: &request.limits,
        budgets,
        own: &own,
        check_xattrs: &|xattrs| Ok(ext4::check_xattrs(xattrs)?),
        scratch: &|| cache.scratch(),
        records_changes: staging.is_none(),
    };
    let patched = patch::apply(tree, disks, &manifest.patches, &environment)?;
    for warning in patched.warnings {
        reporter.event(Event::Warning(warning));
    }
    let disks = std::sync::Arc::new(patched.disks);
    let tree = patched.upper.map_files(|content| OnDisks { content, disks: disks.clone() });
    let tree = with_work(tree)?;
    let fingerprint = (!manifest.patches.is_empty()).then_some(patched.fingerprint);
    Ok(UpperTree { tree, changes: patched.changes, fingerprint })
}

/// Refuses an upper without a size in the manifest that needs more than [`MOST_UNASKED`].
fn unasked(least: u64) -> Result<()> {
    ensure!(
        least <= MOST_UNASKED,
        "the patches need an upper of {} GiB: if that is meant, say so in the manifest (upper: {{ \
         size: {0}GiB }})",
        least.div_ceil(1 << 30)
    );
    Ok(())
}

/// The tree of the ext4, in which `/upper` is `tree` and `/work` is empty, as overlayfs needs
/// it.
fn with_work<C>(tree: Tree<C>) -> Result<Tree<C>> {
    let mut whole = Tree::new(Stat::IMPLIED_DIR);
    let upper = whole.append(tree)?;
    whole[DirId::ROOT].entries.insert(Name::new(b"upper")?, upper.inode());
    whole.add_dir(DirId::ROOT, Name::new(b"work")?, Stat { mode: 0o700, ..Stat::IMPLIED_DIR })?;
    Ok(whole)
}

/// Converts an error of the ext4 writer, whose paths begin at the root of the ext4 and not at
/// that of the guest.
fn guest_error(error: ext4::Error) -> anyhow::Error {
    let text = format!("{:#}", anyhow::Error::from(error));
    match text.strip_prefix("upper/") {
        Some(text) => anyhow!("{}: /{text}", bundle::UPPER),
        None => anyhow!("{}: {text}", bundle::UPPER),
    }
}

/// An upper that is laid out, but not written.
pub(super) struct PlannedUpper<'p> {
    layout: Layout<'p, OnDisks>,
    fingerprint: Option<blake3::Hash>,
}

impl UpperTree {
    /// Lays the upper out in the size that `manifest` says, or in one with room for the guest.
    pub(super) fn lay_out(&self, manifest: &Manifest) -> Result<PlannedUpper<'_>> {
        let layout = match manifest.upper.size {
            None => {
                let layout = Layout::leaving(&self.tree, FREE).map_err(guest_error)?;
                unasked(layout.size())?;
                layout.at_least(USUAL_SIZE)
            }
            Some(size) => Layout::at(&self.tree, size.0),
        };
        let layout = layout.map_err(|error| match error {
            ext4::Error::Full { size, least } => anyhow!(
                "{}: upper.size is {size} bytes; the patches need {} MiB, without anything for \
                 the guest to write",
                manifest.upper_at,
                least >> 20
            ),
            error => guest_error(error),
        })?;
        Ok(PlannedUpper { layout, fingerprint: self.fingerprint })
    }
}

impl PlannedUpper<'_> {
    /// Bytes of the file system.
    pub(super) fn size(&self) -> u64 {
        self.layout.size()
    }

    /// Writes the file system into `file`, and returns its hash. `base` is the hash of fsmeta,
    /// over which the upper lies.
    pub(super) fn write(&self, base: Blake3, file: File) -> Result<ContentHash> {
        // Whether an upper that a user kept belongs to a bundle is told by its UUID: it must
        // change whenever fsmeta or the patches do.
        let mut seed = *base.as_bytes();
        if let Some(fingerprint) = self.fingerprint {
            let mut hasher = blake3::Hasher::new_derive_key("rootfs-compile patched upper");
            hasher.update(base.as_bytes()).update(fingerprint.as_bytes());
            seed = hasher.finalize().into();
        }
        let mut sink = HashedSink { sink: FileSink::new(file), hash: NonzeroBlocks::default() };
        self.layout.write(&seed, &mut sink).map_err(guest_error)?;
        sink.sink.finish(&[])?;
        Ok(sink.hash.finish())
    }
}

/// A sink that hashes what it writes.
struct HashedSink {
    sink: FileSink,
    hash: NonzeroBlocks,
}

impl Sink for HashedSink {
    fn data(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.hash.data(bytes);
        self.sink.data(bytes)
    }

    fn zeros(&mut self, len: u64) -> io::Result<()> {
        self.hash.zeros(len);
        self.sink.zeros(len)
    }

    fn position(&self) -> u64 {
        self.sink.position()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_huge_upper_is_made_for_who_asks_for_it() {
        assert!(unasked(1).is_ok() && unasked(64 << 30).is_ok());
        let error = unasked((64 << 30) + 1).unwrap_err().to_string();
        assert!(error.contains("upper: { size: 65GiB }"), "{error}");
    }

    #[test]
    fn the_time_is_what_was_set_else_the_images() {
        let of = |set, created| patch_time(set, created);
        let created = Some("2024-05-01T12:00:00.5+02:00");
        assert_eq!(of(Some(7), created), Timestamp { sec: 7, nsec: 0 });
        assert_eq!(of(None, created), Timestamp { sec: 1_714_557_600, nsec: 500_000_000 });
        assert_eq!(
            of(None, Some("1969-12-31T23:59:59.25Z")),
            Timestamp { sec: -1, nsec: 250_000_000 }
        );
        assert_eq!(of(None, Some("0001-01-01T00:00:00Z")).sec, -62_135_596_800);
        assert_eq!(of(None, Some("yesterday")), Timestamp::EPOCH);
        assert_eq!(of(None, None), Timestamp::EPOCH);
    }
}
