//! Where a sparse file has data and where holes (SEEK_DATA and SEEK_HOLE of lseek(2)).
//!
//! A hole only saves reading: it reads as zeros, and so do blocks that somebody wrote as
//! zeros. Which of the two a file has, is the host's affair.

use std::fs::File;
use std::io;
use std::ops::Range;

use rustix::fs::SeekFrom;
use rustix::io::Errno;

/// The ranges of the first `len` bytes of `file` that are not holes, in whole blocks of
/// `block` bytes but for the last: they ascend, and a hole of a block at least is between them.
/// It moves the file's own position.
///
/// # Errors
/// An item is an error when the host does not tell where data and holes are; it is the last.
pub fn data(file: &File, len: u64, block: u64) -> impl Iterator<Item = io::Result<Range<u64>>> {
    DataRanges { seek: move |to| rustix::fs::seek(file, to), len, block, at: 0, ahead: None }
}

/// As [`data`], where all is data that the host does not tell of.
pub fn data_or_all(file: &File, len: u64, block: u64) -> impl Iterator<Item = Range<u64>> {
    let mut end = 0;
    data(file, len, block).map(move |range| {
        let range = range.unwrap_or(end..len);
        end = range.end;
        range
    })
}

struct DataRanges<S> {
    seek: S,
    len: u64,
    block: u64,
    /// Everything before is done.
    at: u64,
    /// What was found behind the range that came last.
    ahead: Option<Range<u64>>,
}

impl<S: Fn(SeekFrom) -> rustix::io::Result<u64>> DataRanges<S> {
    /// The first data from `at` on, rounded to whole blocks.
    fn from(&self, at: u64) -> io::Result<Option<Range<u64>>> {
        if at >= self.len {
            return Ok(None);
        }
        let data = match (self.seek)(SeekFrom::Data(at)) {
            Ok(data) if data < self.len => data.max(at),
            Ok(_) | Err(Errno::NXIO) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        // The host's blocks may be smaller: the hole is looked for behind the data, and not
        // behind the start of their block, which may be a hole itself. It is always ahead,
        // should somebody change the file meanwhile.
        let hole = (self.seek)(SeekFrom::Hole(data))?.max(data + 1);
        Ok(Some(data - data % self.block..hole.next_multiple_of(self.block).min(self.len)))
    }

    /// Terminates because what is found begins at `at` or behind it, and ends behind that.
    fn advance(&mut self) -> io::Result<Option<Range<u64>>> {
        let found = match self.ahead.take() {
            None => self.from(self.at)?,
            ahead => ahead,
        };
        let Some(mut range) = found else {
            self.at = self.len;
            return Ok(None);
        };
        // A hole of less than a block is none.
        loop {
            self.ahead = self.from(range.end)?;
            self.at = self.ahead.as_ref().map_or(self.len, |_| range.end);
            match &self.ahead {
                Some(next) if next.start == range.end => range.end = next.end,
                _ => return Ok(Some(range)),
            }
        }
    }
}

impl<S: Fn(SeekFrom) -> rustix::io::Result<u64>> Iterator for DataRanges<S> {
    type Item = io::Result<Range<u64>>;

    fn next(&mut self) -> Option<io::Result<Range<u64>>> {
        let range = self.advance().transpose();
        if let Some(Err(_)) = range {
            (self.at, self.ahead) = (self.len, None);
        }
        range
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt as _;

    use super::*;

    /// A host whose blocks have 1 KiB, of which those in `blocks` are data.
    fn ranges(blocks: &[u64], len: u64, block: u64) -> Vec<Range<u64>> {
        let is_data = |at: u64| blocks.contains(&(at / 1024));
        let seek = |to| {
            let (at, wanted) = match to {
                SeekFrom::Data(at) => (at, true),
                SeekFrom::Hole(at) => (at, false),
                _ => return Err(Errno::INVAL),
            };
            let starts =
                std::iter::once(at).chain((at / 1024 + 1..len.div_ceil(1024)).map(|b| b * 1024));
            match starts.into_iter().find(|at| is_data(*at) == wanted) {
                Some(found) => Ok(found),
                None if wanted => Err(Errno::NXIO),
                None => Ok(len),
            }
        };
        let ranges = DataRanges { seek, len, block, at: 0, ahead: None };
        ranges.map(Result::unwrap).collect()
    }

    #[test]
    fn data_come_in_whole_blocks_of_the_size_that_is_asked_for() {
        assert!(ranges(&[], 10_000, 1).is_empty());
        assert!(ranges(&[], 0, 4096).is_empty());
        assert_eq!(ranges(&[1, 4], 10_000, 1), [1024..2048, 4096..5120]);
        // A hole of 2 KiB between two blocks of 4096 bytes is none.
        assert_eq!(ranges(&[1, 4], 10_000, 4096), [Range { start: 0, end: 8192 }]);
        assert_eq!(ranges(&[1, 3, 9], 10_000, 4096), [0..4096, 8192..10_000]);
        assert_eq!(ranges(&[0, 8], 9000, 4096), [0..4096, 8192..9000]);
    }

    #[test]
    fn a_host_that_tells_nothing_has_data_alone() {
        let seek = |to| match to {
            SeekFrom::Data(0) => Ok(0),
            SeekFrom::Hole(0) => Ok(4096),
            _ => Err(Errno::IO),
        };
        let mut ranges = DataRanges { seek, len: 9000, block: 1, at: 0, ahead: None };
        assert!(ranges.next().unwrap().is_err());
        assert!(ranges.next().is_none());

        let file = tempfile::tempfile().unwrap();
        file.set_len(1 << 20).unwrap();
        file.write_all_at(b"x", 1 << 19).unwrap();
        let found: Vec<_> = data_or_all(&file, 1 << 20, 4096).collect();
        assert!(found.iter().any(|range| range.contains(&(1 << 19))), "{found:?}");
    }
}
