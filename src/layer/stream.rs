//! A layer's blob as a tar stream: inflated on one thread, taken on another.

use std::io::{self, BufRead, BufReader, Read};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use crossbeam_channel::{Receiver, Sender, bounded};
use sha2::{Digest as _, Sha256};

use crate::digest::{DiffId, Digest, HashingReader};
use crate::sink::Sink;

/// Bytes that travel between the threads at once.
const CHUNK: usize = 256 << 10;

/// Chunks on the way: enough to even out, few enough to stay in the cache.
const CHUNKS: usize = 4;

/// What the blob itself turned out to be.
pub struct BlobSeen {
    pub digest: Digest,
    pub size: u64,
    /// Why it could not be inflated to its end.
    pub error: Option<anyhow::Error>,
    /// Why it could not be read to its end: then digest and size say nothing.
    pub unread: Option<anyhow::Error>,
}

/// The uncompressed bytes of a layer, in order.
pub struct Stream<'a> {
    chunks: Receiver<Vec<u8>>,
    spent: Sender<Vec<u8>>,
    chunk: Vec<u8>,
    /// How much of `chunk` is used.
    at: usize,
    sha256: Sha256,
    /// Bytes in all chunks so far.
    bytes: u64,
    max_bytes: u64,
    progress: &'a (dyn Fn(u64) + Sync),
}

/// Runs `take` on the tar stream in `blob` while another thread inflates it.
/// `progress` hears of the blob's bytes as they are read.
pub fn with_stream<T>(
    blob: impl Read + Send,
    max_bytes: u64,
    progress: &(dyn Fn(u64) + Sync),
    take: impl FnOnce(&mut Stream<'_>) -> Result<T>,
) -> (Result<T>, BlobSeen) {
    let (send, chunks) = bounded(CHUNKS);
    let (spent, reuse) = bounded(CHUNKS + 1);
    std::thread::scope(|scope| {
        let inflater = scope.spawn(move || {
            let mut blob = HashingReader::new(Progress { inner: blob, report: progress });
            let inflated = inflate(&mut blob, &send, &reuse);
            // Close the channel before the rest is read for its digest.
            drop(send);
            let rest = io::copy(&mut blob, &mut io::sink());
            let unread = rest.err().map(|error| anyhow!(error).context("reading the blob"));
            BlobSeen { size: blob.total(), digest: blob.digest(), error: inflated.err(), unread }
        });
        let mut stream = Stream {
            chunks,
            spent,
            chunk: Vec::new(),
            at: 0,
            sha256: Sha256::new(),
            bytes: 0,
            max_bytes,
            progress,
        };
        let taken = take(&mut stream);
        drop(stream);
        let seen = inflater.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        (taken, seen)
    })
}

struct Progress<'a, R> {
    inner: R,
    report: &'a (dyn Fn(u64) + Sync),
}

impl<R: Read> Read for Progress<'_, R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buf)?;
        (self.report)(n as u64);
        Ok(n)
    }
}

/// Inflates `blob` into chunks until its end, or until nobody takes them.
fn inflate(blob: &mut impl Read, send: &Sender<Vec<u8>>, reuse: &Receiver<Vec<u8>>) -> Result<()> {
    let mut head = [0; 4];
    let mut known = 0;
    while known < head.len() {
        match blob.read(&mut head[known..]) {
            Ok(0) => break,
            Ok(n) => known += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error).context("reading the blob"),
        }
    }
    let head = &head[..known];
    let blob = BufReader::with_capacity(CHUNK, head.chain(blob));
    match head {
        [0x1f, 0x8b, ..] => members(blob, send, reuse),
        [0x28, 0xb5, 0x2f, 0xfd] | [0x50..=0x5f, 0x2a, 0x4d, 0x18] => {
            let mut frames = zstd::Decoder::with_buffer(blob).context("zstd")?;
            forward(&mut frames, send, reuse).context("zstd")?;
            Ok(())
        }
        b"\xfd7zX" => bail!("the layer is compressed with xz; OCI knows gzip and zstd"),
        [b'B', b'Z', b'h', _] => {
            bail!("the layer is compressed with bzip2; OCI knows gzip and zstd")
        }
        _ => forward(&mut { blob }, send, reuse).context("reading the blob").map(drop),
    }
}

/// Inflates gzip members one behind the other; zeros may follow the last.
fn members(
    mut blob: impl BufRead,
    send: &Sender<Vec<u8>>,
    reuse: &Receiver<Vec<u8>>,
) -> Result<()> {
    loop {
        let mut member = flate2::bufread::GzDecoder::new(blob);
        if !forward(&mut member, send, reuse).context("gzip")? {
            return Ok(());
        }
        blob = member.into_inner();
        match blob.fill_buf().context("reading the blob")?.first() {
            None => return Ok(()),
            Some(0) => break,
            Some(_) => {}
        }
    }
    loop {
        let rest = blob.fill_buf().context("reading the blob")?;
        if rest.is_empty() {
            return Ok(());
        }
        ensure!(rest.iter().all(|b| *b == 0), "gzip: something follows the last member");
        let len = rest.len();
        blob.consume(len);
    }
}

/// Sends all of `from`; false when nobody takes it any more.
fn forward(
    from: &mut impl Read,
    send: &Sender<Vec<u8>>,
    reuse: &Receiver<Vec<u8>>,
) -> io::Result<bool> {
    loop {
        let mut chunk = reuse.try_recv().unwrap_or_default();
        chunk.resize(CHUNK, 0);
        let mut filled = 0;
        let mut ended = Ok(false);
        while filled < CHUNK {
            match from.read(&mut chunk[filled..]) {
                Ok(0) => {
                    ended = Ok(true);
                    break;
                }
                Ok(n) => filled += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    ended = Err(error);
                    break;
                }
            }
        }
        chunk.truncate(filled);
        // What was inflated before an error still belongs to the stream.
        if filled > 0 && send.send(chunk).is_err() {
            return Ok(false);
        }
        if ended? {
            return Ok(true);
        }
    }
}

impl Stream<'_> {
    /// The bytes at hand, never empty until the end.
    fn available(&mut self) -> Result<&[u8]> {
        if self.at == self.chunk.len() {
            let Ok(next) = self.chunks.recv() else {
                return Ok(&[]);
            };
            self.sha256.update(&next);
            self.bytes += next.len() as u64;
            ensure!(
                self.bytes <= self.max_bytes,
                "more than {} bytes uncompressed (raise --max-layer-bytes to allow it)",
                self.max_bytes
            );
            let spent = std::mem::replace(&mut self.chunk, next);
            // The other side may have ended: then the buffer is simply freed.
            let _ = self.spent.try_send(spent);
            self.at = 0;
        }
        Ok(&self.chunk[self.at..])
    }

    /// The next block of 512 bytes, or `None` at the end of the stream.
    pub fn block(&mut self) -> Result<Option<[u8; 512]>> {
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
    fn take(&mut self, mut len: u64, mut each: impl FnMut(&[u8]) -> io::Result<()>) -> Result<()> {
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

    /// Copies the next `len` bytes to `sink`.
    pub fn copy(&mut self, len: u64, sink: &mut dyn Sink) -> Result<()> {
        self.take(len, |bytes| sink.data(bytes))
    }

    /// The next `len` bytes as one piece; in `scratch`, if they are none yet.
    pub fn piece<'s>(&'s mut self, len: usize, scratch: &'s mut Vec<u8>) -> Result<&'s [u8]> {
        if self.available()?.len() >= len {
            let from = self.at;
            self.at += len;
            return Ok(&self.chunk[from..self.at]);
        }
        scratch.clear();
        self.take(len as u64, |bytes| {
            scratch.extend_from_slice(bytes);
            Ok(())
        })?;
        Ok(scratch)
    }

    /// Passes over the next `len` bytes.
    pub fn skip(&mut self, len: u64) -> Result<()> {
        self.take(len, |_| Ok(()))
    }

    /// The next `len` bytes; the caller has limited `len`.
    pub fn bytes(&mut self, len: u64) -> Result<Vec<u8>> {
        let mut all = Vec::new();
        self.take(len, |bytes| {
            all.extend_from_slice(bytes);
            Ok(())
        })?;
        Ok(all)
    }

    /// Reads on to the end and returns the digest and length of everything.
    pub fn finish(&mut self) -> Result<(DiffId, u64)> {
        while !self.available()?.is_empty() {
            self.at = self.chunk.len();
        }
        (self.progress)(0);
        Ok((Digest::from_hasher(std::mem::take(&mut self.sha256)), self.bytes))
    }
}
