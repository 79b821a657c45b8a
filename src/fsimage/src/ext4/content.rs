//! What regular files hold, handed on as a stream.

use std::io;
use std::ops::Range;

use super::disk::BLOCK;
use crate::io::sink::{Sink, runs};

/// What a regular file holds, as the writer takes it.
pub trait Content {
    /// Bytes, holes included.
    fn size(&self) -> u64;

    /// Where the data are: outside of these ranges all is zero.
    ///
    /// They ascend and are disjoint; each begins on a multiple of 4096, and
    /// ends on one or at the file's end.
    ///
    /// # Errors
    /// When the content's ranges cannot be found out.
    fn data(&self) -> io::Result<Vec<Range<u64>>>;

    /// Hands the bytes of `range` to `sink`, in order. The range lies inside
    /// one of [`Content::data`] and has at most 128 MiB.
    ///
    /// # Errors
    /// When the content cannot be read, or `sink` does not take it.
    fn copy(&self, range: Range<u64>, sink: &mut dyn Sink) -> io::Result<()>;
}

impl Content for Vec<u8> {
    fn size(&self) -> u64 {
        self.len() as u64
    }

    fn data(&self) -> io::Result<Vec<Range<u64>>> {
        Ok(std::iter::once(0..self.size()).collect())
    }

    fn copy(&self, range: Range<u64>, sink: &mut dyn Sink) -> io::Result<()> {
        sink.data(&self[range.start as usize..range.end as usize])
    }
}

/// The ranges of a content of `size` bytes, without empty ones, once they are checked against what
/// [`Content::data`] promises.
pub(super) fn ranges(content: &impl Content, size: u64) -> io::Result<Vec<Range<u64>>> {
    const BLOCK: u64 = super::disk::BLOCK as u64;
    let mut ranges = content.data()?;
    let mut least = 0;
    for Range { start, end } in ranges.iter().cloned() {
        let whole = start.is_multiple_of(BLOCK) && (end.is_multiple_of(BLOCK) || end == size);
        if !whole || start < least || end < start || end > size {
            return Err(invalid(format!(
                "{start}..{end} of {size} bytes: ranges of data ascend, in whole blocks"
            )));
        }
        least = end;
    }
    ranges.retain(|range| !range.is_empty());
    Ok(ranges)
}

/// Who failed when content was copied.
pub(super) enum Failure {
    Content(io::Error),
    Sink(io::Error),
}

/// Copies `range` of `content`, all of it and nothing more.
pub(super) fn copy(
    content: &impl Content,
    range: &Range<u64>,
    sink: &mut dyn Sink,
) -> Result<(), Failure> {
    let len = range.end - range.start;
    let mut sieve = Sieve { sink, partial: Vec::new(), len, came: 0, failure: None };
    let copied = content.copy(range.clone(), &mut sieve);
    let Sieve { sink, partial, came, failure, .. } = sieve;
    // The error that came first is returned: a content may hand on an error of its sink, or swallow
    // it.
    if let Some(error) = failure {
        return Err(Failure::Sink(error));
    }
    if came <= len {
        copied.map_err(Failure::Content)?;
    }
    if came != len {
        let Range { start, end } = range;
        let text = format!("{came} bytes came for the {len} of {start}..{end}");
        return Err(Failure::Content(invalid(text)));
    }
    sift(&partial, sink).map_err(Failure::Sink)
}

/// Hands `bytes` on, which begin at the start of a block. Zero blocks become holes, and what is
/// between them is handed on in one piece.
pub(super) fn sift(bytes: &[u8], sink: &mut dyn Sink) -> io::Result<()> {
    for (zero, run) in runs(bytes, BLOCK) {
        if zero {
            sink.zeros(run.len() as u64)?;
        } else {
            sink.data(run)?;
        }
    }
    Ok(())
}

fn invalid(text: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text)
}

/// Cuts what a content hands out in parts of any length into blocks, so that zero blocks
/// become holes, and keeps it from running into what follows on the disk.
///
/// Invariant: `sink` got whole blocks, and `partial` has the beginning of the next one, less
/// than a block. Both together are the first `came` bytes of the content, for as long as those
/// are at most `len`: a part that would exceed that is refused as a whole, and so is everything
/// after it. The first error of the sink is kept, because a content need not hand it on.
struct Sieve<'s> {
    sink: &'s mut dyn Sink,
    /// What came of a block that is not full yet.
    partial: Vec<u8>,
    /// How many bytes may come.
    len: u64,
    /// How many came, refused ones included.
    came: u64,
    /// The first error of the sink, which is not the content's fault.
    failure: Option<io::Error>,
}

impl Sieve<'_> {
    fn admit(&mut self, len: u64) -> io::Result<()> {
        self.came = self.came.saturating_add(len);
        if self.came > self.len {
            return Err(invalid(format!("more than {} bytes", self.len)));
        }
        Ok(())
    }

    fn note(&mut self, result: io::Result<()>) -> io::Result<()> {
        result.map_err(|error| {
            let kind = error.kind();
            self.failure.get_or_insert(error);
            kind.into()
        })
    }

    /// Hands the partial block on when it has become a whole one.
    fn settle(&mut self) -> io::Result<()> {
        if self.partial.len() < BLOCK {
            return Ok(());
        }
        let result = sift(&self.partial, self.sink);
        self.partial.clear();
        self.note(result)
    }

    /// How much of the next `len` bytes belongs to the partial block.
    fn head(&self, len: u64) -> usize {
        let room = if self.partial.is_empty() { 0 } else { BLOCK - self.partial.len() };
        len.min(room as u64) as usize
    }
}

impl Sink for Sieve<'_> {
    fn data(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.admit(bytes.len() as u64)?;
        let (head, rest) = bytes.split_at(self.head(bytes.len() as u64));
        self.partial.extend_from_slice(head);
        self.settle()?;
        let (whole, tail) = rest.split_at(rest.len() - rest.len() % BLOCK);
        let result = sift(whole, self.sink);
        self.note(result)?;
        self.partial.extend_from_slice(tail);
        Ok(())
    }

    fn zeros(&mut self, len: u64) -> io::Result<()> {
        self.admit(len)?;
        let head = self.head(len);
        self.partial.resize(self.partial.len() + head, 0);
        self.settle()?;
        let rest = len - head as u64;
        let tail = rest % BLOCK as u64;
        if rest > tail {
            let result = self.sink.zeros(rest - tail);
            self.note(result)?;
        }
        self.partial.resize(self.partial.len() + tail as usize, 0);
        Ok(())
    }

    fn position(&self) -> u64 {
        self.sink.position() + self.partial.len() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::sink::is_zero;

    /// Its bytes, in parts of the given length.
    struct Parts(Vec<u8>, usize);

    impl Content for Parts {
        fn size(&self) -> u64 {
            self.0.size()
        }

        fn data(&self) -> io::Result<Vec<Range<u64>>> {
            self.0.data()
        }

        fn copy(&self, range: Range<u64>, sink: &mut dyn Sink) -> io::Result<()> {
            let start = sink.position();
            for part in self.0[range.start as usize..range.end as usize].chunks(self.1) {
                if is_zero(part) {
                    sink.zeros(part.len() as u64)?;
                } else {
                    sink.data(part)?;
                }
            }
            assert_eq!(sink.position() - start, range.end - range.start);
            Ok(())
        }
    }

    /// Bytes, and for each call whether it was of zeros, and its length.
    #[derive(Default)]
    struct Calls(Vec<u8>, Vec<(bool, u64)>);

    impl Sink for Calls {
        fn data(&mut self, bytes: &[u8]) -> io::Result<()> {
            self.1.push((false, bytes.len() as u64));
            Sink::data(&mut self.0, bytes)
        }

        fn zeros(&mut self, len: u64) -> io::Result<()> {
            self.1.push((true, len));
            self.0.zeros(len)
        }

        fn position(&self) -> u64 {
            self.0.position()
        }
    }

    #[test]
    fn whatever_its_parts_content_comes_whole_and_zero_blocks_as_zeros() {
        let mut bytes = vec![0; 9 * BLOCK + 100];
        for at in [BLOCK - 1, 2 * BLOCK, 3 * BLOCK + 7, 9 * BLOCK + 99] {
            bytes[at] = 1;
        }
        for part in [1, 7, 100, BLOCK, BLOCK + 1, 3 * BLOCK, bytes.len()] {
            let mut sink = Calls::default();
            let content = Parts(bytes.clone(), part);
            assert!(copy(&content, &(0..content.size()), &mut sink).is_ok());
            assert!(sink.0 == bytes, "parts of {part}");
            let zeros: u64 = sink.1.iter().filter(|call| call.0).map(|call| call.1).sum();
            assert_eq!(zeros, 6 * BLOCK as u64, "parts of {part}");
        }
        let mut sink = Calls::default();
        sift(&bytes, &mut sink).unwrap();
        let blocks = [(false, 1), (true, 1), (false, 2), (true, 5)];
        let mut wanted = blocks.map(|(zero, n)| (zero, n * BLOCK as u64)).to_vec();
        wanted.push((false, 100));
        assert_eq!(sink.1, wanted);
    }

    /// Hands out a block more than there is, and hears of no error.
    struct Deaf;

    impl Content for Deaf {
        fn size(&self) -> u64 {
            BLOCK as u64
        }

        fn data(&self) -> io::Result<Vec<Range<u64>>> {
            Ok(vec![0..self.size(); 1])
        }

        fn copy(&self, _: Range<u64>, sink: &mut dyn Sink) -> io::Result<()> {
            for part in [BLOCK, 1, BLOCK - 1] {
                let _ = sink.data(&vec![1; part]);
            }
            Ok(())
        }
    }

    /// Takes nothing.
    struct Full;

    impl Sink for Full {
        fn data(&mut self, _: &[u8]) -> io::Result<()> {
            Err(io::ErrorKind::StorageFull.into())
        }

        fn zeros(&mut self, _: u64) -> io::Result<()> {
            Err(io::ErrorKind::StorageFull.into())
        }

        fn position(&self) -> u64 {
            0
        }
    }

    #[test]
    fn an_error_is_kept_even_if_content_does_not_hear_it() {
        let mut sink = Calls::default();
        let Err(Failure::Content(error)) = copy(&Deaf, &(0..4096), &mut sink) else {
            panic!("it is too long");
        };
        assert_eq!(error.to_string(), "8192 bytes came for the 4096 of 0..4096");
        assert_eq!(sink.position(), 4096, "and what follows is safe");
        let Err(Failure::Sink(error)) = copy(&Deaf, &(0..4096), &mut Full) else {
            panic!("the sink took nothing");
        };
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    }
}
