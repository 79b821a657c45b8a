//! A file with holes as a stream: records of offset and length (u64, little-
//! endian) with so many bytes behind them, ascending and apart; the last has the
//! file's size as its offset, and no bytes.
//!
//! Only blocks of 4096 bytes that are not all zero are in it, so that it does not
//! tell where the host's file has holes.

use std::fs::File;
use std::io::{self, Read, Write};
use std::ops::Range;
use std::os::unix::fs::FileExt as _;

use fsimage::io::{holes, sink};

const BLOCK: u64 = 4096;
/// Bytes of one record at most, and of what is read at once.
const RECORD: u64 = 1 << 20;

/// Writes `file`, which has whole blocks, to `out`.
///
/// # Errors
/// It fails when `file` cannot be read or `out` cannot be written.
pub fn write(file: &File, out: &mut impl Write) -> io::Result<()> {
    let size = each(file, |start, bytes| {
        out.write_all(&start.to_le_bytes())?;
        out.write_all(&(bytes.len() as u64).to_le_bytes())?;
        out.write_all(bytes)
    })?;
    out.write_all(&size.to_le_bytes())?;
    out.write_all(&0u64.to_le_bytes())
}

/// Hands every run of blocks that are not all zero to `take`, with its offset, in
/// order; returns the file's size.
///
/// # Errors
/// It fails when `file` cannot be read, and with the first error of `take`.
pub fn each(file: &File, mut take: impl FnMut(u64, &[u8]) -> io::Result<()>) -> io::Result<u64> {
    let size = file.metadata()?.len();
    let mut buffer = vec![0; RECORD as usize];
    // The host's holes only save reading them.
    for data in holes::data(file, size, BLOCK) {
        let Range { start: mut at, end } = data?;
        while at < end {
            // Cut where every host would.
            let cut = (at - at % RECORD + RECORD).min(end);
            let chunk = &mut buffer[..(cut - at) as usize];
            file.read_exact_at(chunk, at)?;
            runs(at, chunk, &mut take)?;
            at = cut;
        }
    }
    Ok(size)
}

/// Hands every run of blocks of `bytes`, which are at `at`, that are not all zero to
/// `take`, with its offset.
fn runs(
    mut at: u64,
    bytes: &[u8],
    mut take: impl FnMut(u64, &[u8]) -> io::Result<()>,
) -> io::Result<()> {
    for (zero, run) in sink::runs(bytes, BLOCK as usize) {
        if !zero {
            take(at, run)?;
        }
        at += run.len() as u64;
    }
    Ok(())
}

/// Reads such a stream into `file`, which is empty and is to have `size` bytes.
///
/// # Errors
/// It fails when the stream cannot be read, when its records are out of order, longer than 1
/// MiB or beyond `size`, when its end gives another size or is followed by more, and when
/// `file` cannot be written.
pub fn read(stream: &mut impl Read, file: &File, size: u64) -> io::Result<()> {
    let bad = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
    let number = |stream: &mut dyn Read| -> io::Result<u64> {
        let mut bytes = [0; 8];
        stream.read_exact(&mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    };
    let mut buffer = vec![0; RECORD as usize];
    let mut done = 0;
    loop {
        let (offset, len) = (number(stream)?, number(stream)?);
        if len == 0 {
            if offset != size {
                return Err(bad("the file has another size"));
            }
            file.set_len(size)?;
            return match stream.read(&mut [0])? {
                0 => Ok(()),
                _ => Err(bad("something follows the last record")),
            };
        }
        let end = offset.checked_add(len).filter(|end| offset >= done && *end <= size);
        done = end.ok_or_else(|| bad("a record is out of order, or beyond the file's end"))?;
        let chunk = buffer.get_mut(..usize::try_from(len).unwrap_or(usize::MAX));
        let chunk = chunk.ok_or_else(|| bad("a record is too long"))?;
        stream.read_exact(chunk)?;
        // Zeros cost next to nothing in a stream, and are to take no space on the disk.
        runs(offset, chunk, |at, bytes| file.write_all_at(bytes, at))?;
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    #[test]
    fn a_file_comes_back_wherever_its_holes_are() {
        let size = 5 << 20;
        let file = tempfile::tempfile().unwrap();
        file.set_len(size).unwrap();
        for (at, len) in [(0u64, 10usize), (9000, 20_000), ((1 << 20) - 5, 10), (size - 1, 1)] {
            file.write_all_at(&vec![3; len], at).unwrap();
        }
        let mut stream = Vec::new();
        write(&file, &mut stream).unwrap();
        assert!(stream.len() < 64 << 10);
        let back = tempfile::tempfile().unwrap();
        read(&mut &stream[..], &back, size).unwrap();
        let bytes = |file: &File| {
            let mut bytes = vec![0; size as usize];
            file.read_exact_at(&mut bytes, 0).unwrap();
            bytes
        };
        assert!(bytes(&file) == bytes(&back));
        // Nor does a stream that has zeros make them data.
        let mut zeros = Vec::new();
        for (offset, len) in [(0, 1 << 20), (size, 0)] {
            zeros.extend([offset, len].map(u64::to_le_bytes).concat());
            zeros.resize(zeros.len() + len as usize, 0);
        }
        let empty = tempfile::tempfile().unwrap();
        read(&mut &zeros[..], &empty, size).unwrap();
        let metadata = empty.metadata().unwrap();
        assert_eq!((metadata.len(), metadata.blocks()), (size, 0));
        // Written zeros make no difference.
        back.write_all_at(&[0; 100_000], 2 << 20).unwrap();
        let mut again = Vec::new();
        write(&back, &mut again).unwrap();
        assert!(stream == again);
    }

    #[test]
    fn what_is_no_such_stream_is_an_error() {
        let record = |offset: u64, len: u64, data: &[u8]| {
            [&offset.to_le_bytes()[..], &len.to_le_bytes(), data].concat()
        };
        for bad in [
            record(0, 4, b"abc"),
            [record(4096, 1, b"a"), record(0, 1, b"b")].concat(),
            record(8192, 1, b"a"),
            record(u64::MAX, 2, b"ab"),
            record(0, 1 << 40, b""),
            record(4096, 0, b""),
            [record(8192, 0, b""), vec![1]].concat(),
            Vec::new(),
        ] {
            assert!(read(&mut &bad[..], &tempfile::tempfile().unwrap(), 8192).is_err());
        }
    }
}
