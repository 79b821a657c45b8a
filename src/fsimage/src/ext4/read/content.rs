//! The bytes of regular files.

use std::io;
use std::ops::Range;

use super::mapping::Run;
use crate::ext4::disk::BLOCK;
use crate::ext4::read::error::Result;
use crate::ext4::read::reader::Reader;
use crate::io::sink::Sink;
use crate::tree::weight::Weigh;

/// What a regular file holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FileData {
    /// The inode holds it.
    Inline(Box<[u8]>),
    /// `size` bytes, zero outside of the runs, none of which begins behind the end.
    Runs {
        /// Bytes of the file, holes included.
        size: u64,
        /// Where its data lie, in the order of the file.
        runs: Box<[Run]>,
    },
}

impl Weigh for FileData {
    fn weight(&self) -> u64 {
        match self {
            Self::Inline(bytes) => bytes.len() as u64,
            // The mapping counted them as they came.
            Self::Runs { .. } => 0,
        }
    }
}

impl FileData {
    /// Bytes, holes included.
    pub fn size(&self) -> u64 {
        match self {
            Self::Inline(bytes) => bytes.len() as u64,
            Self::Runs { size, .. } => *size,
        }
    }
}

/// How much is handed on at once.
const STEP: usize = 1 << 18;

impl Reader<'_> {
    /// Fills `bytes` with what a file whose content is `data` has from offset `at`
    /// on. What is behind its end is zero.
    ///
    /// # Errors
    /// When the file that holds the file system cannot be read.
    pub fn read_file(&self, data: &FileData, at: u64, bytes: &mut [u8]) -> io::Result<()> {
        bytes.fill(0);
        match data {
            FileData::Inline(all) => {
                let from = usize::try_from(at).ok().and_then(|at| all.get(at..)).unwrap_or(&[]);
                let len = from.len().min(bytes.len());
                bytes[..len].copy_from_slice(&from[..len]);
            }
            FileData::Runs { size, runs } => {
                let len = size.saturating_sub(at).min(bytes.len() as u64) as usize;
                self.runs(runs, at, &mut bytes[..len])?;
            }
        }
        Ok(())
    }

    /// The same for the content of any inode.
    pub(super) fn read_runs(&self, runs: &[Run], at: u64, bytes: &mut [u8]) -> Result<()> {
        Ok(self.runs(runs, at, bytes)?)
    }

    fn runs(&self, runs: &[Run], at: u64, bytes: &mut [u8]) -> io::Result<()> {
        let end = at.saturating_add(bytes.len() as u64);
        let first = runs.partition_point(|run| self.offset(run.file_block + run.len) <= at);
        for run in &runs[first..] {
            let (start, stop) =
                (self.offset(run.file_block), self.offset(run.file_block + run.len));
            if start >= end {
                break;
            }
            let (from, to) = (start.max(at), stop.min(end));
            let part = &mut bytes[(from - at) as usize..(to - at) as usize];
            self.read_io(self.offset(run.start) + (from - start), part)?;
        }
        Ok(())
    }
}

/// A file of a file system, as the writer takes content.
#[derive(Debug)]
pub struct OnDisk<'r, 'f> {
    /// The file system that has the file.
    pub reader: &'r Reader<'f>,
    /// The file's content, as [`Reader::tree`] found it.
    pub data: FileData,
}

impl crate::ext4::content::Content for OnDisk<'_, '_> {
    fn size(&self) -> u64 {
        self.data.size()
    }

    fn data(&self) -> io::Result<Vec<Range<u64>>> {
        let whole = BLOCK as u64;
        let size = self.size();
        let runs = match &self.data {
            FileData::Inline(_) => return Ok(std::iter::once(0..size).collect()),
            FileData::Runs { runs, .. } => runs,
        };
        let mut ranges: Vec<Range<u64>> = Vec::new();
        for run in runs {
            // Blocks may be smaller than those that the writer wants.
            let start = self.reader.offset(run.file_block) / whole * whole;
            let end = self.reader.offset(run.file_block + run.len).next_multiple_of(whole);
            match ranges.last_mut() {
                Some(last) if last.end >= start => last.end = end.min(size),
                _ => ranges.push(start..end.min(size)),
            }
        }
        Ok(ranges)
    }

    fn copy(&self, range: Range<u64>, sink: &mut dyn Sink) -> io::Result<()> {
        let mut buffer = vec![0; STEP];
        let mut at = range.start;
        while at < range.end {
            let part = &mut buffer[..(range.end - at).min(STEP as u64) as usize];
            self.reader.read_file(&self.data, at, part)?;
            sink.data(part)?;
            at += part.len() as u64;
        }
        Ok(())
    }
}
