//! A layer's blob as a tar stream: inflated on one thread, hashed and taken on
//! another.

use std::io::{self, Read};
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Result, anyhow, ensure};
use crossbeam_channel::{Receiver, Sender, bounded};
use fsimage::budget::Budget;
use fsimage::digest::{Digest, SHA256_BLOCK, update_both};
use fsimage::io::threads;
use sha2::{Digest as _, Sha256};

use super::inflate::{self, CHUNK, Chunk, Ended, Outlet};
use super::limits::{Budgets, Limits};

/// Chunks in the channel: enough to even out the two threads, few enough to stay in the
/// processor's cache.
const CHUNKS: usize = 6;

/// Chunks of the blob that are held back until the tar stream goes on, because both are
/// hashed faster together.
const WAITING: usize = 2;

/// Bytes of the blob that may still be on their way when what they inflate to has come.
const AHEAD: u64 = ((CHUNKS + WAITING) * CHUNK) as u64;

/// What the blob itself turned out to be.
#[derive(Debug)]
pub(super) struct BlobSeen {
    /// SHA-256 of the blob as it was read, still compressed.
    pub digest: Digest,
    /// Bytes of the blob that were read.
    pub size: u64,
    /// Why it could not be inflated to its end.
    pub error: Option<anyhow::Error>,
    /// Why it could not be read to its end: then digest and size say nothing.
    pub unread: Option<anyhow::Error>,
}

/// What was made of a blob, and what the blob turned out to be: it is read to its end
/// even where nothing could be made of it.
#[derive(Debug)]
#[must_use = "what was made counts only once the blob was checked"]
pub struct Outcome<T> {
    pub(super) made: Result<T>,
    pub(super) blob: BlobSeen,
}

impl<T> Outcome<T> {
    /// What was made, if `check` accepts the digest and the size of the blob.
    ///
    /// # Errors
    /// It fails when the blob could not be read, when `check` does, when the blob could not be
    /// inflated, or when nothing could be made of it, in this order: a damaged blob explains
    /// whatever else went wrong.
    pub fn checked(self, check: impl FnOnce(Digest, u64) -> Result<()>) -> Result<T> {
        let BlobSeen { digest, size, error, unread } = self.blob;
        unread.map_or(Ok(()), Err)?;
        check(digest, size)?;
        error.map_or(Ok(()), Err)?;
        self.made
    }
}

/// The uncompressed bytes of a layer, in order.
pub(super) struct Stream<'a> {
    chunks: Receiver<Chunk>,
    spent: Sender<Vec<u8>>,
    chunk: Vec<u8>,
    /// How much of `chunk` is used.
    at: usize,
    tar: Hashing,
    blob: Hashing,
    /// Chunks of the blob that are not hashed yet.
    waiting: Vec<Vec<u8>>,
    /// Whether the blob is not compressed, and so the tar stream itself.
    plain: bool,
    allowed: Allowed<'a>,
    /// Bytes that were taken from the budget for expansion.
    expanded: u64,
}

/// How long the tar stream may be.
#[derive(Clone, Copy)]
pub(super) struct Allowed<'a> {
    /// Bytes of it.
    pub most: u64,
    /// How many times as long as the blob it may be at no cost.
    pub times: u64,
    /// Pays for bytes beyond that, here and in the other layers.
    pub expansion: &'a Budget<'a>,
}

impl<'a> Allowed<'a> {
    pub(super) fn of(limits: &Limits, budgets: &'a Budgets) -> Self {
        Self { most: limits.layer_bytes, times: limits.expansion, expansion: &budgets.expansion }
    }
}

/// What came so far.
#[derive(Default)]
struct Hashing {
    sha256: Sha256,
    bytes: u64,
}

/// Runs `take` on the tar stream in `blob` while another thread inflates it.
/// `progress` hears of the blob's bytes as they are read.
pub(super) fn with_stream<T>(
    blob: impl Read + Send,
    allowed: Allowed<'_>,
    progress: &(dyn Fn(u64) + Sync),
    take: impl FnOnce(&mut Stream<'_>) -> Result<T>,
) -> Outcome<T> {
    let (send, chunks) = bounded(CHUNKS);
    let (spent, reuse) = bounded(CHUNKS + WAITING);
    let enough = AtomicBool::new(false);
    let outlet = Outlet { chunks: send, spent: reuse, enough: &enough };
    std::thread::scope(|scope| {
        let blob = Progress { inner: blob, report: progress };
        let inflater =
            match threads::spawn_scoped(scope, "inflate", move || inflate::run(blob, outlet)) {
                Ok(inflater) => inflater,
                Err(error) => {
                    let made = Err(anyhow!(error.to_string()));
                    let (digest, unread) = (Digest::of(b""), Some(error.into()));
                    let seen = BlobSeen { digest, size: 0, error: None, unread };
                    return Outcome { made, blob: seen };
                }
            };
        let mut stream = Stream {
            chunks,
            spent,
            chunk: Vec::new(),
            at: 0,
            tar: Hashing::default(),
            blob: Hashing::default(),
            waiting: Vec::new(),
            plain: false,
            allowed,
            expanded: 0,
        };
        let made = take(&mut stream);
        enough.store(true, Ordering::Relaxed);
        let Hashing { sha256, bytes: size } = stream.rest();
        let Ended { error, unread } =
            inflater.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        let digest = Digest::from_hasher(sha256);
        Outcome { made, blob: BlobSeen { digest, size, error, unread } }
    })
}

struct Progress<'a, R> {
    inner: R,
    report: &'a (dyn Fn(u64) + Sync),
}

impl<R: Read> Read for Progress<'_, R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buf)?;
        if n > 0 {
            (self.report)(n as u64);
        }
        Ok(n)
    }
}

impl Stream<'_> {
    /// The bytes at hand, never empty until the end.
    fn available(&mut self) -> Result<&[u8]> {
        while self.at == self.chunk.len() {
            let Ok(chunk) = self.chunks.recv() else {
                return Ok(&[]);
            };
            let next = match chunk {
                Chunk::Blob(bytes) => {
                    self.waiting.push(bytes);
                    if self.waiting.len() > WAITING {
                        self.hash(&[]);
                    }
                    continue;
                }
                Chunk::Tar(bytes) => bytes,
                Chunk::Plain(bytes) => {
                    self.plain = true;
                    bytes
                }
            };
            self.hash(&next);
            self.check_length()?;
            let spent = std::mem::replace(&mut self.chunk, next);
            // The other side may have ended: then the buffer is simply freed.
            let _ = self.spent.try_send(spent);
            self.at = 0;
        }
        Ok(&self.chunk[self.at..])
    }

    /// Refuses a tar stream that is too long, or too long for its blob.
    fn check_length(&mut self) -> Result<()> {
        let Allowed { most, times, expansion } = &self.allowed;
        ensure!(
            self.tar.bytes <= *most,
            "more than {most} bytes uncompressed (raise --max-layer-bytes to allow it)",
        );
        // Some chunks of the blob may not have come yet.
        let blob = if self.plain { self.tar.bytes } else { self.blob.bytes + AHEAD };
        let beyond = self.tar.bytes.saturating_sub(blob.saturating_mul(*times));
        if beyond > self.expanded {
            ensure!(
                expansion.take(beyond - self.expanded).is_ok(),
                "its blob expands to more than {times} times its size, and the layers by more \
                 than {} bytes together (raise --max-expansion-bytes to allow it)",
                expansion.limit()
            );
            self.expanded = beyond;
        }
        Ok(())
    }

    /// Hashes `tar`, and what waits of the blob.
    fn hash(&mut self, tar: &[u8]) {
        let mut rest = tar;
        for blob in self.waiting.drain(..) {
            let beside = rest.len().min(blob.len());
            let (now, later) = rest.split_at(beside - beside % SHA256_BLOCK);
            update_both(&mut self.tar.sha256, now, &mut self.blob.sha256, &blob);
            rest = later;
            self.blob.bytes += blob.len() as u64;
            let _ = self.spent.try_send(blob);
        }
        self.tar.sha256.update(rest);
        self.tar.bytes += tar.len() as u64;
    }

    /// Hashes what is left of the blob, whatever is in it.
    fn rest(mut self) -> Hashing {
        while let Ok(chunk) = self.chunks.recv() {
            match chunk {
                Chunk::Blob(bytes) => {
                    self.waiting.push(bytes);
                    self.hash(&[]);
                }
                Chunk::Tar(_) => {}
                Chunk::Plain(bytes) => {
                    self.plain = true;
                    self.hash(&bytes);
                }
            }
        }
        self.hash(&[]);
        if self.plain { self.tar } else { self.blob }
    }

    /// The next block of 512 bytes, or `None` at the end of the stream.
    pub(super) fn block(&mut self) -> Result<Option<[u8; 512]>> {
        let mut block = [0; 512];
        let mut filled = 0;
        while filled < block.len() {
            let bytes = self.available()?;
            if bytes.is_empty() {
                ensure!(filled == 0, "the tar stream is cut inside a header");
                return Ok(None);
            }
            let take = bytes.len().min(block.len() - filled);
            block[filled..filled + take].copy_from_slice(&bytes[..take]);
            filled += take;
            self.at += take;
        }
        Ok(Some(block))
    }

    /// Hands the next `len` bytes to `each`, in pieces.
    pub(super) fn each(
        &mut self,
        mut len: u64,
        mut each: impl FnMut(&[u8]) -> io::Result<()>,
    ) -> Result<()> {
        while len > 0 {
            let bytes = self.available()?;
            ensure!(
                !bytes.is_empty(),
                "the tar stream is cut inside an entry: {len} bytes are missing"
            );
            let take = usize::try_from(len).unwrap_or(usize::MAX).min(bytes.len());
            each(&bytes[..take])?;
            self.at += take;
            len -= take as u64;
        }
        Ok(())
    }

    /// The next `len` bytes as one slice, in `scratch` if they come in more than one chunk.
    pub(super) fn piece<'s>(
        &'s mut self,
        len: usize,
        scratch: &'s mut Vec<u8>,
    ) -> Result<&'s [u8]> {
        if self.available()?.len() >= len {
            let from = self.at;
            self.at += len;
            return Ok(&self.chunk[from..self.at]);
        }
        scratch.clear();
        self.each(len as u64, |bytes| {
            scratch.extend_from_slice(bytes);
            Ok(())
        })?;
        Ok(scratch)
    }

    /// Passes over the next `len` bytes.
    pub(super) fn skip(&mut self, len: u64) -> Result<()> {
        self.each(len, |_| Ok(()))
    }

    /// Passes over padding of `len` bytes. An archive may end before its last
    /// member is padded, as Go's reader allows.
    pub(super) fn skip_padding(&mut self, mut len: u64) -> Result<()> {
        while len > 0 {
            let there = self.available()?.len();
            if there == 0 {
                return Ok(());
            }
            let take = usize::try_from(len).unwrap_or(usize::MAX).min(there);
            self.at += take;
            len -= take as u64;
        }
        Ok(())
    }

    /// The next `len` bytes; the caller has limited `len`.
    pub(super) fn bytes(&mut self, len: u64) -> Result<Vec<u8>> {
        let mut all = Vec::new();
        self.each(len, |bytes| {
            all.extend_from_slice(bytes);
            Ok(())
        })?;
        Ok(all)
    }

    /// Reads on to the end and returns the digest and length of everything.
    pub(super) fn finish(&mut self) -> Result<(Digest, u64)> {
        while !self.available()?.is_empty() {
            self.at = self.chunk.len();
        }
        Ok((Digest::from_hasher(self.tar.sha256.clone()), self.tar.bytes))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use fsimage::budget::EXPANSION;

    use super::*;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    static EXPANSION_BUDGET: Budget = Budget::new(u64::MAX);

    fn all() -> Allowed<'static> {
        Allowed { most: u64::MAX, times: EXPANSION, expansion: &EXPANSION_BUDGET }
    }

    #[test]
    fn what_expands_beyond_measure_has_a_budget() {
        let zeros = zstd::encode_all(&vec![0; 64 << 20][..], 1).unwrap();
        let blob = [&b"\x28\xb5\x2f\xfd\x00\x58"[..], &[0x02, 0, 0x10, 0].repeat(20_000)].concat();
        // Blocks of 128 KiB that are one byte again and again, and then the last of them.
        let blob = [&blob[..], &[0x03, 0, 0x10, 0]].concat();
        let read = |blob: &[u8], times, bytes| {
            let budget = Budget::new(bytes);
            let allowed = Allowed { most: u64::MAX, times, expansion: &budget };
            with_stream(Parts(blob, false), allowed, &|_| {}, |stream| stream.finish()).made
        };
        assert!(read(&zeros, EXPANSION, 0).is_ok());
        // As a blob that was in the hundredth part of its bytes itself.
        assert!(read(&zeros, EXPANSION / 100, 0).is_err());
        let error = format!("{:#}", read(&blob, EXPANSION, 64 << 20).unwrap_err());
        assert!(error.contains("--max-expansion-bytes"), "{error}");
    }

    /// Hands out bytes in parts of odd lengths, and perhaps an error in the end.
    struct Parts<'b>(&'b [u8], bool);

    /// Fails once, between the two.
    struct Broken<'b>(Parts<'b>, Option<Parts<'b>>);

    impl Read for Broken<'_> {
        fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
            match (self.0.read(buf)?, self.1.take()) {
                (0, Some(rest)) => {
                    self.0 = rest;
                    Err(io::Error::other("it passes"))
                }
                (n, rest) => {
                    self.1 = rest;
                    Ok(n)
                }
            }
        }
    }

    impl Read for Parts<'_> {
        fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
            if self.0.is_empty() && self.1 {
                return Err(io::Error::other("the disk is gone"));
            }
            let len = self.0.len().min(buf.len()).min(70_001);
            self.0.split_off(..len).expect("no longer than it is").read(buf)
        }
    }

    #[test]
    fn both_digests_are_right_however_much_is_taken() {
        let mut number = 1u32;
        let mut noise = |_| {
            number = number.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (number >> 24) as u8
        };
        for len in [0, 1, 63, 512, 200_000, 3_000_000] {
            let random: Vec<u8> = (0..len).map(&mut noise).collect();
            for tar in [random, vec![b'x'; len]] {
                let (left, right) = tar.split_at(len / 3);
                let blobs = [
                    tar.clone(),
                    gzip(&tar),
                    [gzip(left), gzip(b""), gzip(right), vec![0; 600]].concat(),
                    zstd::encode_all(&tar[..], 1).unwrap(),
                ];
                for (blob, how) in blobs.iter().flat_map(|b| (0..3).map(move |how| (b, how))) {
                    let Outcome { made: taken, blob: seen } =
                        with_stream(Parts(blob, false), all(), &|_| {}, |stream| match how {
                            0 => stream.finish(),
                            1 => stream.skip(len as u64 / 2).and_then(|()| stream.finish()),
                            _ => Err(anyhow::anyhow!("enough")),
                        });
                    assert!(seen.error.is_none() && seen.unread.is_none());
                    assert_eq!((seen.digest, seen.size), (Digest::of(blob), blob.len() as u64));
                    if how < 2 {
                        assert_eq!(taken.unwrap(), (Digest::of(&tar), len as u64));
                    }
                }
            }
        }
    }

    #[test]
    fn what_cannot_be_read_or_inflated_is_told_apart() {
        let blob = gzip(&vec![7; 1 << 20]);
        let cut = &blob[..blob.len() / 2];
        let whole = |stream: &mut Stream<'_>| stream.finish();
        let seen = with_stream(Parts(cut, true), all(), &|_| {}, whole).blob;
        assert!(format!("{:#}", seen.unread.unwrap()).contains("the disk is gone"));
        let seen = with_stream(Parts(cut, false), all(), &|_| {}, whole).blob;
        assert!(seen.unread.is_none() && seen.error.is_some());
        assert_eq!((seen.digest, seen.size), (Digest::of(cut), cut.len() as u64));
        let plain = vec![7; 1 << 20];
        for blob in [&blob, &plain] {
            let (left, right) = blob.split_at(blob.len() / 2);
            let broken = Broken(Parts(left, false), Some(Parts(right, false)));
            let seen = with_stream(broken, all(), &|_| {}, whole).blob;
            assert!(format!("{:#}", seen.error.unwrap()).contains("it passes"));
            assert_eq!((seen.digest, seen.size), (Digest::of(blob), blob.len() as u64));
        }
        let Outcome { made: taken, blob: seen } =
            with_stream(Parts(&blob, false), Allowed { most: 1 << 19, ..all() }, &|_| {}, whole);
        assert!(format!("{:#}", taken.unwrap_err()).contains("--max-layer-bytes"));
        assert_eq!(seen.digest, Digest::of(&blob));
    }
}
