//! The contents of a layer's files, on blocks: equal ones once, and what is zero
//! nowhere.
//!
//! Where a file has holes follows from its bytes alone. A sparse file, and the
//! same file as a tar that knows no holes has it, become the same.

use std::collections::hash_map::Entry;
use std::io;

use anyhow::{Context as _, Result, ensure};
use fsimage::budget::Budget;
use fsimage::erofs::plan::index_bytes;
use fsimage::io::sink::{FileSink, Sink, is_zero};
use fsimage::tree::extents::{Extent, Extents, Runs};
use fsimage::units::{BLOCK_SIZE, BlockAddr, DeviceId, PAGE_SIZE, blocks_of};
use polyval::Polyval;
use polyval::universal_hash::UniversalHash as _;
use rustc_hash::FxHashMap;

use super::limits::take_sparse;
use super::sparse::SparseMap;
use super::stream::Stream;

/// Bytes of the largest file that is deduplicated. Larger ones seldom occur twice, and
/// would have to stay in memory until their sum is known.
const MAX_EQUAL: u64 = 128 << 10;

/// Parts of a file that may be holes, at most: each has a chunk index in the layer
/// and one in fsmeta.
const MAX_PARTS: u64 = 1 << 16;

/// Where contents go, and where they are.
pub(super) struct Contents<'d> {
    data: &'d mut FileSink,
    /// Where the data of each content begin, by its [`sum`]: 24 bytes for each.
    known: FxHashMap<[u64; 2], BlockAddr>,
    key: Polyval,
    scratch: Vec<u8>,
    /// For what sparse files take beyond what is stored of them: zeros that share a part
    /// with data, and chunk indexes.
    sparse: &'d Budget<'d>,
}

impl<'d> Contents<'d> {
    pub(super) fn new(data: &'d mut FileSink, sparse: &'d Budget<'d>) -> Result<Self> {
        let mut secret = polyval::Key::default();
        fsimage::io::system::random(&mut secret[..])
            .context("the system gives no random numbers")?;
        let (known, key) = (FxHashMap::default(), Polyval::new(&secret));
        Ok(Self { data, known, key, scratch: Vec::new(), sparse })
    }

    /// Puts the next `size` bytes of `stream` on blocks, unless they are there.
    pub(super) fn add(&mut self, stream: &mut Stream<'_>, size: u64) -> Result<Extents> {
        if size > MAX_EQUAL {
            let mut file = self.file(size)?;
            stream.each(size, |bytes| file.data(bytes))?;
            return file.finish();
        }
        let mut scratch = std::mem::take(&mut self.scratch);
        let extents = self.whole(stream.piece(size as usize, &mut scratch)?);
        self.scratch = scratch;
        extents
    }

    /// As [`Contents::add`], for a file of which `stream` has only what `map` says.
    pub(super) fn add_sparse(
        &mut self,
        stream: &mut Stream<'_>,
        map: &SparseMap,
    ) -> Result<Extents> {
        let extents = match map.size > MAX_EQUAL {
            true => self.add_large_sparse(stream, map)?,
            false => self.add_small_sparse(stream, map)?,
        };
        // The chunk indexes of the object; whoever writes fsmeta pays for those in it.
        take_sparse(self.sparse, index_bytes(&extents))?;
        Ok(extents)
    }

    fn add_large_sparse(&mut self, stream: &mut Stream<'_>, map: &SparseMap) -> Result<Extents> {
        let sparse = self.sparse;
        let mut paid = 0;
        // A run of one byte costs a part of zeros, which may be long.
        let mut pay = |zeros: u64| take_sparse(sparse, zeros - std::mem::replace(&mut paid, zeros));
        let mut file = self.file(map.size)?;
        for (offset, len) in &map.runs {
            file.zeros(offset - file.position())?;
            stream.each(*len, |bytes| file.data(bytes))?;
            pay(file.zeros_written)?;
        }
        file.zeros(map.size - file.position())?;
        pay(file.zeros_written)?;
        file.finish()
    }

    /// The zeros are paid for even where an equal file is on the disk already: each of the
    /// files is put together in memory, and a patch can make each a file of its own.
    fn add_small_sparse(&mut self, stream: &mut Stream<'_>, map: &SparseMap) -> Result<Extents> {
        take_sparse(self.sparse, zeros_beside_data(map))?;
        let mut bytes = Vec::new();
        for (offset, len) in &map.runs {
            bytes.resize(*offset as usize, 0);
            stream.each(*len, |run| {
                bytes.extend_from_slice(run);
                Ok(())
            })?;
        }
        bytes.resize(map.size as usize, 0);
        self.whole(&bytes)
    }

    /// Puts a file on blocks that is in memory.
    fn whole(&mut self, bytes: &[u8]) -> Result<Extents> {
        if bytes.is_empty() {
            return Ok(Extents::default());
        }
        let size = bytes.len() as u64;
        let start = self.next_block()?;
        let known = match self.known.entry(sum(&self.key, bytes)) {
            Entry::Occupied(known) => Some(*known.get()),
            Entry::Vacant(unknown) => {
                unknown.insert(start);
                None
            }
        };
        if let Some(first) = known {
            // The same bytes have the same holes.
            let mut placed = AlreadyThere(first.offset());
            let mut file = FileWriter::new(&mut placed, size, first);
            file.data(bytes)?;
            return file.finish();
        }
        let mut file = self.file(size)?;
        file.data(bytes)?;
        file.finish()
    }

    fn file(&mut self, size: u64) -> Result<FileWriter<'_>> {
        let start = self.next_block()?;
        Ok(FileWriter::new(self.data, size, start))
    }

    /// The block behind all contents. The last one was padded to a whole block.
    fn next_block(&self) -> Result<BlockAddr> {
        BlockAddr::from_offset(self.data.position()).context("the layer's data go past 4 TiB")
    }
}

/// A sink for bytes that are on the disk already: it only moves on.
struct AlreadyThere(u64);

impl Sink for AlreadyThere {
    fn data(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.zeros(bytes.len() as u64)
    }

    fn zeros(&mut self, len: u64) -> io::Result<()> {
        self.0 = self.0.checked_add(len).ok_or(io::ErrorKind::FileTooLarge)?;
        Ok(())
    }

    fn position(&self) -> u64 {
        self.0
    }
}

/// Bytes of the parts in which a file of `size` bytes has holes: a power of two.
///
/// A hole must be worth the chunk indexes that its file then has, of 8 bytes a
/// part in the layer and again in fsmeta: parts of √(16 × size) take no more than
/// the smallest hole saves.
fn part_of(size: u64) -> u64 {
    let fair = size.saturating_mul(16).isqrt().next_power_of_two();
    let few = (size / MAX_PARTS).next_power_of_two();
    fair.max(few).max(PAGE_SIZE)
}

/// Zeros on the pages on which a small file has data, by a map that was checked.
fn zeros_beside_data(map: &SparseMap) -> u64 {
    let (mut zeros, mut end) = (0, 0);
    for (offset, len) in &map.runs {
        let begin = (offset - offset % PAGE_SIZE).max(end);
        end = (offset + len).next_multiple_of(PAGE_SIZE).min(map.size);
        zeros += end.saturating_sub(begin);
    }
    zeros - map.runs.iter().map(|(_, len)| len).sum::<u64>()
}

/// A file whose bytes arrive in order. A part of zeros becomes a hole.
struct FileWriter<'s> {
    sink: &'s mut dyn Sink,
    size: u64,
    part: u64,
    /// Bytes of the file so far.
    position: u64,
    /// Zeros that were written beside data.
    zeros_written: u64,
    /// Zeros that are held back, because the present part may become a hole. Invariant:
    /// they are none, or all bytes of the part so far.
    zeros: u64,
    /// Where the run of data began that has not ended: in the file, and on disk.
    run: Option<(u64, BlockAddr)>,
    /// The block that follows what is written.
    next: BlockAddr,
    runs: Runs,
}

impl<'s> FileWriter<'s> {
    /// `start` is the block at which `sink` stands.
    fn new(sink: &'s mut dyn Sink, size: u64, start: BlockAddr) -> Self {
        let (part, runs) = (part_of(size), Runs::default());
        let (position, zeros_written, zeros) = (0, 0, 0);
        Self { sink, size, part, position, zeros_written, zeros, run: None, next: start, runs }
    }

    fn position(&self) -> u64 {
        self.position
    }

    /// Bytes from here to the end of the part, or of the file.
    fn left_of_part(&self) -> u64 {
        let end = (self.position - self.position % self.part).saturating_add(self.part);
        end.min(self.size) - self.position
    }

    /// Whether the present part holds nothing but zeros so far.
    fn part_is_zero(&self) -> bool {
        self.zeros == self.position % self.part
    }

    fn data(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let room = usize::try_from(self.left_of_part()).unwrap_or(usize::MAX);
            if room == 0 {
                return Err(io::ErrorKind::FileTooLarge.into());
            }
            let mut len = bytes.len().min(room);
            if self.part_is_zero() && is_zero(&bytes[..len]) {
                self.zeros += len as u64;
            } else {
                self.begin()?;
                // As many parts as hold data go on together.
                let part = usize::try_from(self.part).unwrap_or(usize::MAX);
                let parts = bytes[len..].chunks(part).take_while(|bytes| !is_zero(bytes));
                len += parts.map(<[u8]>::len).sum::<usize>();
                self.sink.data(&bytes[..len])?;
            }
            self.advance(len as u64)?;
            bytes = &bytes[len..];
        }
        Ok(())
    }

    fn zeros(&mut self, mut len: u64) -> io::Result<()> {
        while len > 0 {
            let room = self.left_of_part();
            if room == 0 {
                return Err(io::ErrorKind::FileTooLarge.into());
            }
            let mut now = len.min(room);
            if self.part_is_zero() {
                if self.position.is_multiple_of(self.part) {
                    // Whole parts at once: a hole costs nothing, however long it is.
                    now = now.max(len - len % self.part);
                }
                self.zeros += now;
            } else {
                self.zeros_written += now;
                self.sink.zeros(now)?;
            }
            self.advance(now)?;
            len -= now;
        }
        Ok(())
    }

    /// Begins to write data: the zeros that are held back of this part become data too.
    fn begin(&mut self) -> io::Result<()> {
        if self.run.is_none() {
            self.run = Some((self.position - self.zeros, self.next));
        }
        self.zeros_written += self.zeros;
        self.sink.zeros(std::mem::take(&mut self.zeros))
    }

    /// Moves on by `len` bytes. Invariant: where zeros are held back, these bytes end
    /// with the present part at the latest, or are whole parts of zeros.
    fn advance(&mut self, len: u64) -> io::Result<()> {
        self.position += len;
        if self.zeros > 0 && (self.left_of_part() == 0 || self.position.is_multiple_of(self.part)) {
            let hole = std::mem::take(&mut self.zeros);
            self.end_run(self.position - hole)?;
        }
        Ok(())
    }

    /// Ends the present run of data, if there is one, at byte `end` of the file.
    fn end_run(&mut self, end: u64) -> io::Result<()> {
        let Some((from, start)) = self.run.take() else {
            return Ok(());
        };
        let full = (end - from).next_multiple_of(BLOCK_SIZE);
        self.sink.zeros(full - (end - from))?;
        let next = BlockAddr::from_offset(self.sink.position());
        self.next = next.ok_or_else(|| io::Error::other("the layer's data go past 4 TiB"))?;
        let (file_block, device) = (from / BLOCK_SIZE, DeviceId::PRIMARY);
        // A device has 2³² blocks, and this run ends on it.
        let len = blocks_of(end - from) as u32;
        self.runs.push(Extent { file_block, device, start, len });
        Ok(())
    }

    fn finish(mut self) -> Result<Extents> {
        ensure!(self.position == self.size, "{} of {} bytes came", self.position, self.size);
        self.end_run(self.size)?;
        Ok(Extents { size: self.size, runs: self.runs })
    }
}

/// A sum that two contents share only if they are equal: whoever chooses them does
/// not know the key, so that two others share it with a chance of 2⁻¹¹⁴. (For any
/// two of n blocks, n in 2¹²⁸ keys of a polynomial of degree n do.)
fn sum(key: &Polyval, bytes: &[u8]) -> [u64; 2] {
    let mut sum = key.clone();
    sum.update_padded(bytes);
    let mut len = polyval::Block::default();
    len[..8].copy_from_slice(&(bytes.len() as u64).to_le_bytes());
    sum.update(&[len]);
    let tag = u128::from_le_bytes(sum.finalize().into());
    [tag as u64, (tag >> 64) as u64]
}

#[cfg(test)]
mod tests {
    use super::super::stream::{Allowed, with_stream};
    use fsimage::budget::EXPANSION;

    use super::*;

    /// Keeps what is written, as a layer's data would be.
    struct Disk(Vec<u8>);

    impl Sink for Disk {
        fn data(&mut self, bytes: &[u8]) -> io::Result<()> {
            self.0.extend_from_slice(bytes);
            Ok(())
        }

        fn zeros(&mut self, len: u64) -> io::Result<()> {
            self.0.resize(self.0.len() + len as usize, 0);
            Ok(())
        }

        fn position(&self) -> u64 {
            self.0.len() as u64
        }
    }

    /// The file at `extents` of `disk`, read back.
    fn read(disk: &[u8], extents: &Extents) -> Vec<u8> {
        let mut bytes = vec![0; blocks_of(extents.size) as usize * BLOCK_SIZE as usize];
        for run in &extents.runs {
            let (to, from) = (run.file_block * BLOCK_SIZE, run.start.offset());
            let len = u64::from(run.len) * BLOCK_SIZE;
            let from = &disk[from as usize..(from + len) as usize];
            bytes[to as usize..(to + len) as usize].copy_from_slice(from);
        }
        bytes.truncate(extents.size as usize);
        bytes
    }

    /// Writes `bytes` in pieces of `step`; whole pieces of zeros as zeros if `sparse`.
    fn write(bytes: &[u8], step: usize, sparse: bool) -> (Vec<u8>, Extents) {
        let mut disk = Disk(vec![0xff; 2048]);
        let mut file = FileWriter::new(&mut disk, bytes.len() as u64, BlockAddr(2));
        for piece in bytes.chunks(step) {
            match sparse && is_zero(piece) {
                true => file.zeros(piece.len() as u64).unwrap(),
                false => file.data(piece).unwrap(),
            }
        }
        let extents = file.finish().unwrap();
        (disk.0, extents)
    }

    #[test]
    fn holes_follow_from_the_bytes_alone() {
        let part = PAGE_SIZE as usize;
        let full = |len| vec![7u8; len];
        let empty = |len| vec![0u8; len];
        // Each file, and how many blocks of data it has.
        let files = [
            (empty(1), 0),
            (empty(100 * part + 5), 0),
            (full(1), 1),
            (full(3 * part), 12),
            ([full(part), empty(part), full(part)].concat(), 8),
            ([empty(part), full(1), empty(3 * part)].concat(), 4),
            ([full(part), empty(5)].concat(), 4),
            ([full(part - 1), empty(2 * part), full(2)].concat(), 4 + 4 + 1),
            ([empty(part - 1), full(2), empty(part - 1), empty(part), full(9)].concat(), 8 + 1),
        ];
        for (bytes, blocks) in &files {
            let (disk, extents) = write(bytes, bytes.len(), false);
            assert_eq!(&read(&disk, &extents), bytes);
            assert_eq!(extents.runs.iter().map(|run| run.len).sum::<u32>(), *blocks);
            assert_eq!(disk.len() as u64, 2048 + u64::from(*blocks) * BLOCK_SIZE);
            for step in [1, 7, 511, part, part + 1, 3 * part] {
                assert_eq!(write(bytes, step, false), (disk.clone(), extents.clone()), "{step}");
                assert_eq!(write(bytes, step, true), (disk.clone(), extents.clone()), "{step}");
            }
        }
    }

    #[test]
    fn a_hole_of_any_length_costs_nothing() {
        let mut disk = Disk(Vec::new());
        let mut file = FileWriter::new(&mut disk, 1 << 40, BlockAddr(0));
        file.zeros((1 << 40) - 1).unwrap();
        file.data(b"x").unwrap();
        let extents = file.finish().unwrap();
        let [run] = &*extents.runs else { panic!("{extents:?}") };
        assert_eq!((run.file_block + u64::from(run.len)) * BLOCK_SIZE, 1 << 40);
        assert_eq!(disk.0.len() as u64, part_of(1 << 40));
    }

    #[test]
    fn zeros_of_small_sparse_files_are_counted_by_the_page() {
        let zeros =
            |size, runs: &[(u64, u64)]| zeros_beside_data(&SparseMap { size, runs: runs.to_vec() });
        assert_eq!(zeros(100_000, &[]), 0);
        assert_eq!(zeros(100_000, &[(0, 1), (1, 1), (4000, 90)]), 4096 - 92);
        assert_eq!(zeros(100_000, &[(4095, 2), (8191, 1)]), 8192 - 3);
        assert_eq!(zeros(8192 + 10, &[(5, 4), (8193, 1)]), 4096 + 10 - 5);
        assert_eq!(zeros(8192, &[(0, 8192)]), 0);
    }

    /// What is taken from the budget for sparse files, of which each has data in `runs`.
    fn sparse_bytes(size: u64, runs: &[(u64, u64)]) -> u64 {
        let stored: u64 = runs.iter().map(|(_, len)| len).sum();
        let map = SparseMap { size, runs: runs.to_vec() };
        map.check(stored).unwrap();
        let (tar, expansion) = (vec![b'x'; stored as usize], Budget::default());
        let allowed = Allowed { most: u64::MAX, times: EXPANSION, expansion: &expansion };
        let add = |limit| {
            let sparse = Budget::new(limit);
            let mut data = FileSink::new(tempfile::tempfile()?);
            let take = |stream: &mut Stream<'_>| {
                Contents::new(&mut data, &sparse)?.add_sparse(stream, &map).map(drop)
            };
            with_stream(&tar[..], allowed, &|_| {}, take).made.map(|()| sparse.used())
        };
        let used = add(u64::MAX).unwrap();
        let error = add(used - 1).unwrap_err().to_string();
        assert!(error.contains("--max-sparse-bytes"), "{error}");
        used
    }

    #[test]
    fn sparse_files_pay_for_zeros_and_indexes() {
        // One byte at the end: a part of that alone, and 65,535 chunks that are holes.
        let parts = 65_535;
        assert_eq!(sparse_bytes(parts * (16 << 20) + 1, &[(parts * (16 << 20), 1)]), 65_536 * 8);
        // A byte on each of 32 pages.
        let runs: Vec<_> = (0..32).map(|page| (page * PAGE_SIZE, 1)).collect();
        assert_eq!(sparse_bytes(32 * PAGE_SIZE, &runs), 32 * (PAGE_SIZE - 1));
        // A page of data between two of holes.
        assert_eq!(sparse_bytes(3 * PAGE_SIZE, &[(PAGE_SIZE, PAGE_SIZE)]), 3 * 8);
    }

    #[test]
    fn a_part_is_worth_its_indexes() {
        for size in [0, 1, 4096, 1 << 20, (1 << 20) + 1, 100 << 20, 3 << 30, 1 << 40, u64::MAX] {
            let part = part_of(size);
            assert!(part.is_power_of_two() && part >= PAGE_SIZE, "{size}: {part}");
            assert!(size.div_ceil(part) <= MAX_PARTS, "{size}: {part}");
            assert!(size.div_ceil(part).saturating_sub(1) * 16 <= part, "{size}: {part}");
        }
    }
}
