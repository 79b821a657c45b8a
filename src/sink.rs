//! Where a writer's bytes go, in address order.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use crate::behind::Behind;
use crate::digest::TreeHash;
use crate::units::PAGE_SIZE;

/// Takes the bytes of one file from its first to its last.
pub trait Sink {
    /// The bytes that come next.
    fn data(&mut self, bytes: &[u8]) -> io::Result<()>;

    /// `len` zero bytes come next. They need not take space.
    fn zeros(&mut self, len: u64) -> io::Result<()>;

    /// How many bytes came so far.
    fn position(&self) -> u64;
}

/// Runs of zeros from this length on become holes of the host's file.
const HOLE: u64 = PAGE_SIZE;

/// Bytes written at once: few enough to be in the processor's cache still.
const BUFFER: usize = 256 << 10;

/// A sink into a new file, with holes where zeros are.
///
/// With [`FileSink::hashed`] the file's BLAKE3 is taken on the way; its first
/// bytes may then be set at the end, because a superblock is known last.
pub struct FileSink {
    file: File,
    buffer: Vec<u8>,
    /// Offset of the buffer's first byte.
    flushed: u64,
    hash: Option<TreeHash>,
    behind: Behind,
}

impl FileSink {
    /// Writes `file`, which is empty, from its start.
    pub fn new(file: File) -> Self {
        Self {
            file,
            buffer: Vec::with_capacity(BUFFER),
            flushed: 0,
            hash: None,
            behind: Behind::default(),
        }
    }

    /// As [`FileSink::new`], and takes the BLAKE3 of what is written.
    pub fn hashed(file: File) -> Self {
        Self { hash: Some(TreeHash::default()), ..Self::new(file) }
    }

    fn flush(&mut self) -> io::Result<()> {
        if let Some(hash) = &mut self.hash {
            hash.update(&self.buffer);
        }
        self.file.write_all_at(&self.buffer, self.flushed)?;
        self.flushed += self.buffer.len() as u64;
        self.buffer.clear();
        self.behind.written(&self.file, self.flushed)
    }

    /// Bytes until the buffer is full. It ends where its size divides the offset,
    /// however it began: BLAKE3 is several times as fast on whole parts of its tree.
    fn room(&self) -> usize {
        BUFFER - (self.position() % BUFFER as u64) as usize
    }

    /// Whether `bytes` are what was written at `at`.
    pub fn holds(&self, mut at: u64, mut bytes: &[u8]) -> io::Result<bool> {
        let mut there = [0; 16 << 10];
        while !bytes.is_empty() {
            if let Some(into) = at.checked_sub(self.flushed) {
                let start = usize::try_from(into).unwrap_or(usize::MAX);
                return Ok(self.buffer.get(start..).is_some_and(|b| b.starts_with(bytes)));
            }
            let len = (self.flushed - at).min(bytes.len().min(there.len()) as u64) as usize;
            self.file.read_exact_at(&mut there[..len], at)?;
            if there[..len] != bytes[..len] {
                return Ok(false);
            }
            at += len as u64;
            bytes = &bytes[len..];
        }
        Ok(true)
    }

    /// Ends the file. `head` replaces its first bytes, which must have been
    /// written as zeros. Returns it with its BLAKE3 if that was asked for.
    pub fn finish(mut self, head: &[u8]) -> io::Result<(File, Option<blake3::Hash>)> {
        self.flush()?;
        self.file.set_len(self.flushed)?;
        if !head.is_empty() {
            self.file.write_all_at(head, 0)?;
        }
        self.behind.finish()?;
        let hash = self.hash.map(|h| h.finish(head));
        Ok((self.file, hash))
    }
}

impl Sink for FileSink {
    fn data(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let room = self.room();
            let (now, later) = bytes.split_at(bytes.len().min(room));
            self.buffer.extend_from_slice(now);
            if now.len() == room {
                self.flush()?;
            }
            bytes = later;
        }
        Ok(())
    }

    fn zeros(&mut self, len: u64) -> io::Result<()> {
        if len < HOLE {
            return self.data(&[0; HOLE as usize][..len as usize]);
        }
        self.flush()?;
        if let Some(hash) = &mut self.hash {
            hash.update_zeros(len);
        }
        self.flushed = self.flushed.checked_add(len).ok_or(io::ErrorKind::FileTooLarge)?;
        Ok(())
    }

    fn position(&self) -> u64 {
        self.flushed + self.buffer.len() as u64
    }
}

impl Sink for Vec<u8> {
    fn data(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.extend_from_slice(bytes);
        Ok(())
    }

    fn zeros(&mut self, len: u64) -> io::Result<()> {
        let len = usize::try_from(len).map_err(|_| io::ErrorKind::OutOfMemory)?;
        self.resize(self.len() + len, 0);
        Ok(())
    }

    fn position(&self) -> u64 {
        self.len() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hashed_file_sink_writes_and_hashes_the_same_bytes_with_a_late_head() {
        for len in [0usize, 1, 4096, 1 << 20, (1 << 20) + 1, (3 << 20) + 777] {
            let path = std::env::temp_dir().join(format!("sink-{}-{len}", std::process::id()));
            let file = File::create(&path).unwrap();
            let mut sink = FileSink::hashed(file);
            let mut expected = vec![0u8; 4096];
            sink.zeros(4096).unwrap();
            let body: Vec<u8> = (0..len).map(|i| (i % 251) as u8).collect();
            for part in body.chunks(70_001) {
                sink.data(part).unwrap();
            }
            expected.extend_from_slice(&body);
            sink.zeros(10_000).unwrap();
            expected.resize(expected.len() + 10_000, 0);
            assert_eq!(sink.position(), expected.len() as u64);
            let head = [7u8; 128];
            expected[..128].copy_from_slice(&head);
            let (_, hash) = sink.finish(&head).unwrap();
            let written = std::fs::read(&path).unwrap();
            std::fs::remove_file(&path).unwrap();
            assert!(written == expected, "length {len}");
            assert_eq!(hash.unwrap(), blake3::hash(&expected), "length {len}");
        }
    }
}
