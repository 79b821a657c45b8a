//! What a file of the patched tree holds: bytes of layers, of the manifest, of
//! the host, one behind the other. None of it is in memory until it is asked for.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use fsimage::io::sink::{self, Sink};
use fsimage::io::stamp::Stamp;
use fsimage::io::{holes, regular, threads};
use fsimage::tree::extents::Extents;
use fsimage::tree::weight::Weigh;
use fsimage::units::{BLOCK_SIZE, PAGE_SIZE};

/// A regular file's content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// As a layer has it.
    Stored(Extents),
    /// Pieces, one behind the other.
    Made(Arc<Vec<Part>>),
}

impl Weigh for Content {
    fn weight(&self) -> u64 {
        match self {
            Self::Stored(extents) => extents.weight(),
            // What a manifest says has a limit of its own.
            Self::Made(_) => 0,
        }
    }
}

/// A piece of a content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// Blocks of a layer or an archive, holes included.
    Stored(Extents),
    /// Bytes in memory.
    Bytes(Vec<u8>),
    /// A file of the host, whole.
    Host(HostFile),
}

/// A file of the host, as it was when the patches were applied. Reading it later fails if
/// it has changed since (TOCTOU).
#[derive(Clone, Debug)]
pub struct HostFile {
    /// Where the file is.
    pub path: Arc<Path>,
    /// Bytes of the file, holes included.
    pub size: u64,
    stamp: Stamp,
    seen: Arc<OnceLock<Seen>>,
}

/// What was found when a file was read once, whole.
#[derive(Debug)]
struct Seen {
    /// A hash over the runs of pages that are not zero, each behind its offset and length.
    hash: blake3::Hash,
    /// Ranges outside of which all is zero.
    data: Box<[Range<u64>]>,
}

impl PartialEq for HostFile {
    fn eq(&self, other: &Self) -> bool {
        self.path == other.path && self.stamp.is_unwritten_since(&other.stamp)
    }
}

impl Eq for HostFile {}

/// Disks that extents lie on, by device: number 1 comes first.
///
/// Shared: an open file is one of a few that a process may have, and layers are many.
#[derive(Debug, Default)]
pub struct Disks(pub Vec<Arc<File>>);

/// Bytes copied at once.
const CHUNK: u64 = 1 << 20;

impl HostFile {
    /// The regular file at `path`, of which `metadata` was read.
    pub fn new(path: &Path, metadata: &std::fs::Metadata) -> Self {
        let stamp = Stamp::of(metadata);
        Self { path: path.into(), size: stamp.size, stamp, seen: Arc::default() }
    }

    fn named(&self, error: io::Error) -> io::Error {
        let path = self.path.display();
        let text = match error.kind() {
            io::ErrorKind::UnexpectedEof => format!("{path} has fewer bytes than it says"),
            _ => format!("{path}: {error}"),
        };
        io::Error::new(error.kind(), text)
    }

    fn open(&self) -> io::Result<File> {
        let file = regular::open_followed(&self.path).map_err(|error| self.named(error))?;
        if !Stamp::of(&file.metadata()?).is_unwritten_since(&self.stamp) {
            let what = format!("{} changed while it was read", self.path.display());
            return Err(io::Error::other(what));
        }
        Ok(file)
    }

    /// Reads the file once through, unless that was done.
    fn seen(&self) -> io::Result<&Seen> {
        if let Some(seen) = self.seen.get() {
            return Ok(seen);
        }
        let seen = see(&self.open()?, self.size).map_err(|error| self.named(error))?;
        Ok(self.seen.get_or_init(|| seen))
    }

    /// A hash of the content.
    ///
    /// # Errors
    /// It fails when the file cannot be read, or is not as it was when the patches were
    /// applied.
    pub fn hash(&self) -> io::Result<blake3::Hash> {
        Ok(self.seen()?.hash)
    }

    fn copy(&self, range: Range<u64>, sink: &mut dyn Sink) -> io::Result<()> {
        let copied = copy_from(&self.open()?, range.start, range.end - range.start, sink);
        copied.map_err(|error| self.named(error))
    }
}

/// Zeros from this many bytes on become a hole; fewer are not worth an extent.
const LEAST_HOLE: u64 = 64 << 10;

/// Reads where `file` is not zero. The host's own holes only save reading: zeros that are
/// written there count as holes too, so that all hosts find the same.
///
/// Invariant: `at` is a multiple of a page, or the end of the file. Terminates because the
/// inner loop runs at least once in each round: data begin before `end`.
fn see(file: &File, size: u64) -> io::Result<Seen> {
    let mut hasher = blake3::Hasher::new();
    let mut data: Vec<Range<u64>> = Vec::new();
    if size == 0 && file.read_at(&mut [0], 0)? > 0 {
        // What /proc makes up when it is read.
        return Err(io::Error::other("it says that it is empty, and is not: copy it first"));
    }
    let mut buffer = vec![0; CHUNK.min(size) as usize];
    threads::pool()?;
    for Range { start: mut at, end } in holes::data_or_all(file, size, PAGE_SIZE) {
        while at < end {
            // Chunks end at multiples of CHUNK, so that every host hashes the same runs,
            // wherever its holes are.
            let len = (end - at).min(CHUNK - at % CHUNK) as usize;
            file.read_exact_at(&mut buffer[..len], at)?;
            see_chunk(&buffer[..len], at, &mut hasher, &mut data);
            at += len as u64;
        }
    }
    Ok(Seen { hash: hasher.finalize(), data: data.into() })
}

/// Hashes the blocks of `chunk` that are not zero, and adds their ranges to `data`. The chunk
/// lies at `at`, which is the start of a block.
///
/// Invariant: what is hashed depends on the content alone, and not on the host's holes. A hole
/// reads as zero blocks, which are left out either way; runs of other blocks are hashed with
/// their place and length, and are cut where [`see`] cuts, at multiples of [`CHUNK`].
fn see_chunk(chunk: &[u8], mut at: u64, hasher: &mut blake3::Hasher, data: &mut Vec<Range<u64>>) {
    for (zero, run) in sink::runs(chunk, PAGE_SIZE as usize) {
        let end = at + run.len() as u64;
        if !zero {
            hasher.update(&at.to_le_bytes()).update(&(run.len() as u64).to_le_bytes());
            hasher.update_rayon(run);
            match data.last_mut() {
                Some(last) if at - last.end < LEAST_HOLE => last.end = end,
                _ => data.push(at..end),
            }
        }
        at = end;
    }
}

fn whole(size: u64) -> Vec<Range<u64>> {
    if size == 0 { Vec::new() } else { vec![Range { start: 0, end: size }] }
}

fn copy_from(file: &File, mut at: u64, mut len: u64, sink: &mut dyn Sink) -> io::Result<()> {
    let mut buffer = vec![0; len.min(CHUNK) as usize];
    while len > 0 {
        let take = len.min(CHUNK) as usize;
        file.read_exact_at(&mut buffer[..take], at)?;
        sink.data(&buffer[..take])?;
        at += take as u64;
        len -= take as u64;
    }
    Ok(())
}

impl Part {
    fn size(&self) -> u64 {
        match self {
            Self::Stored(extents) => extents.size,
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::Host(file) => file.size,
        }
    }

    fn data(&self) -> io::Result<Vec<Range<u64>>> {
        match self {
            Self::Stored(extents) => Ok(stored(extents)),
            Self::Bytes(bytes) => Ok(whole(bytes.len() as u64)),
            Self::Host(file) => Ok(file.seen()?.data.to_vec()),
        }
    }

    fn copy(&self, range: Range<u64>, disks: &Disks, sink: &mut dyn Sink) -> io::Result<()> {
        match self {
            Self::Stored(extents) => copy_stored(extents, range, disks, sink),
            Self::Bytes(bytes) => sink.data(&bytes[range.start as usize..range.end as usize]),
            Self::Host(file) => file.copy(range, sink),
        }
    }
}

/// Where the bytes of `extents` are, holes left out.
fn stored(extents: &Extents) -> Vec<Range<u64>> {
    let bytes = extents.runs.iter().map(|run| {
        let start = run.file_block * BLOCK_SIZE;
        start..(start + u64::from(run.len) * BLOCK_SIZE).min(extents.size)
    });
    bytes.filter(|range| range.start < range.end).collect()
}

fn copy_stored(
    extents: &Extents,
    range: Range<u64>,
    disks: &Disks,
    sink: &mut dyn Sink,
) -> io::Result<()> {
    let mut at = range.start;
    for run in &extents.runs {
        let start = run.file_block * BLOCK_SIZE;
        let end = (start + u64::from(run.len) * BLOCK_SIZE).min(range.end);
        if end <= at || start >= range.end {
            continue;
        }
        if start > at {
            sink.zeros(start - at)?;
            at = start;
        }
        let disk = usize::from(run.device.0).checked_sub(1).and_then(|i| disks.0.get(i));
        let disk =
            disk.ok_or_else(|| io::Error::other("an extent on a device that is not there"))?;
        copy_from(disk, run.start.offset() + (at - start), end - at, sink)?;
        at = end;
    }
    sink.zeros(range.end - at)
}

impl Content {
    /// The content that is `bytes`.
    pub fn bytes(bytes: impl Into<Vec<u8>>) -> Self {
        Self::of(Part::Bytes(bytes.into()))
    }

    /// The content that is `part` alone.
    pub fn of(part: Part) -> Self {
        Self::Made(Arc::new(vec![part]))
    }

    /// Bytes, holes included.
    pub fn size(&self) -> u64 {
        match self {
            Self::Stored(extents) => extents.size,
            Self::Made(parts) => parts.iter().map(Part::size).fold(0, u64::saturating_add),
        }
    }

    /// Bytes of it that are in memory.
    pub fn in_memory(&self) -> u64 {
        let Self::Made(parts) = self else { return 0 };
        let bytes = parts.iter().map(|part| match part {
            Part::Bytes(bytes) => bytes.len() as u64,
            Part::Stored(_) | Part::Host(_) => 0,
        });
        bytes.sum()
    }

    /// Puts `more` behind this content.
    pub fn append(&mut self, more: Content) {
        if let Self::Stored(extents) = self {
            *self = Self::of(Part::Stored(std::mem::take(extents)));
        }
        let Self::Made(parts) = self else {
            unreachable!("it was made above");
        };
        let parts = Arc::make_mut(parts);
        let more = match more {
            Self::Stored(extents) => vec![Part::Stored(extents)],
            Self::Made(more) => Arc::unwrap_or_clone(more),
        };
        for part in more {
            match (parts.last_mut(), part) {
                (Some(Part::Bytes(last)), Part::Bytes(bytes)) => last.extend_from_slice(&bytes),
                (_, part) => parts.push(part),
            }
        }
    }

    /// Ranges outside of which all is zero. Each begins on a page
    /// and ends on one or at the file's end.
    ///
    /// # Errors
    /// It fails when a file of the host cannot be read, or has changed.
    pub fn data(&self) -> io::Result<Vec<Range<u64>>> {
        let parts = match self {
            Self::Stored(extents) => vec![(extents.size, stored(extents))],
            Self::Made(parts) => {
                let part = |part: &Part| Ok((part.size(), part.data()?));
                parts.iter().map(part).collect::<io::Result<_>>()?
            }
        };
        let size = self.size();
        let mut ranges: Vec<Range<u64>> = Vec::new();
        let mut begin = 0;
        for (part, data) in parts {
            for range in data {
                let start = (begin + range.start) / PAGE_SIZE * PAGE_SIZE;
                let end = (begin + range.end).next_multiple_of(PAGE_SIZE).min(size);
                match ranges.last_mut() {
                    Some(last) if last.end >= start => last.end = last.end.max(end),
                    _ => ranges.push(start..end),
                }
            }
            begin += part;
        }
        Ok(ranges)
    }

    /// Hands the bytes of `range` to `sink`.
    ///
    /// # Errors
    /// It fails when a disk or a file of the host cannot be read, or `sink` refuses the bytes.
    pub fn copy(&self, range: Range<u64>, disks: &Disks, sink: &mut dyn Sink) -> io::Result<()> {
        let parts = match self {
            Self::Stored(extents) => return copy_stored(extents, range, disks, sink),
            Self::Made(parts) => parts,
        };
        let mut begin = 0;
        for part in parts.iter() {
            let end = begin + part.size();
            let (from, to) = (range.start.max(begin), range.end.min(end));
            if from < to {
                part.copy(from - begin..to - begin, disks, sink)?;
            }
            begin = end;
        }
        Ok(())
    }

    /// All of it; the caller has limited its size.
    ///
    /// # Errors
    /// It fails when a disk or a file of the host cannot be read, or has changed.
    pub fn read(&self, disks: &Disks) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.copy(0..self.size(), disks, &mut bytes)?;
        Ok(bytes)
    }

    /// Whether `other` holds the same bytes.
    ///
    /// # Errors
    /// It fails when a disk or a file of the host cannot be read, or has changed.
    pub fn same(&self, other: &Content, disks: &Disks) -> io::Result<bool> {
        if self == other {
            return Ok(true);
        }
        if self.size() != other.size() {
            return Ok(false);
        }
        let mut at = 0;
        while at < self.size() {
            let range = at..self.size().min(at + CHUNK);
            let (mut a, mut b) = (Vec::new(), Vec::new());
            self.copy(range.clone(), disks, &mut a)?;
            other.copy(range.clone(), disks, &mut b)?;
            if a != b {
                return Ok(false);
            }
            at = range.end;
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Seek as _, SeekFrom, Write as _};

    use super::*;

    #[test]
    fn holes_of_the_host_are_zeros_like_others() {
        let pieces =
            [(70_000u64, 1usize), (3 << 20, 9000), ((3 << 20) + 9000 + 5000, 1), (9 << 20, 70)];
        let file = |dense: bool| {
            let mut file = tempfile::tempfile().unwrap();
            let size = 9 << 20 | 70;
            if dense {
                file.write_all(&vec![0; size]).unwrap();
            } else {
                file.set_len(size as u64).unwrap();
            }
            for (at, len) in pieces {
                file.seek(SeekFrom::Start(at)).unwrap();
                file.write_all(&vec![7; len]).unwrap();
            }
            see(&file, size as u64).unwrap()
        };
        let (dense, sparse) = (file(true), file(false));
        assert_eq!(dense.hash, sparse.hash);
        assert_eq!(dense.data, sparse.data);
        let mib = 1 << 20;
        let expected = [17 * 4096..18 * 4096, 3 * mib..3 * mib + 16384, 9 * mib..9 * mib + 70];
        assert_eq!(*sparse.data, expected);
    }

    #[test]
    fn pieces_follow_each_other_at_any_offset() {
        let text = |byte: u8, len: usize| Part::Bytes(vec![byte; len]);
        let mut content = Content::of(text(1, 5000));
        content.append(Content::of(text(2, 0)));
        content.append(Content::of(text(3, 10_000)));
        let disks = Disks::default();
        let all = [vec![1; 5000], vec![3; 10_000]].concat();
        assert_eq!(content.read(&disks).unwrap(), all);
        assert_eq!(content.data().unwrap(), vec![Range { start: 0, end: 15_000 }]);
        let mut part = Vec::new();
        content.copy(4990..5010, &disks, &mut part).unwrap();
        assert_eq!(part, all[4990..5010]);
        assert_eq!(content, Content::bytes(all.clone()));
        let other = [vec![1; 5001], vec![3; 9_999]].concat();
        assert!(!content.same(&Content::bytes(other), &disks).unwrap());
    }
}
