//! A layer's blob, read and inflated on a thread of its own.

use std::io::{self, BufRead, Read};
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use crossbeam_channel::{Receiver, Sender};

/// Bytes that travel between the threads at once.
pub(super) const CHUNK: usize = 256 << 10;

/// What the thread hands out, in order.
pub(super) enum Chunk {
    /// Bytes of the blob.
    Blob(Vec<u8>),
    /// Bytes of the tar stream. The bytes of the blob that inflated to them come before
    /// them or soon after.
    Tar(Vec<u8>),
    /// Bytes of a blob that is a tar stream.
    Plain(Vec<u8>),
}

/// What went wrong on the way.
pub(super) struct Ended {
    /// Why the blob could not be inflated to its end.
    pub error: Option<anyhow::Error>,
    /// Why it could not be read to its end.
    pub unread: Option<anyhow::Error>,
}

/// Where chunks go.
pub(super) struct Outlet<'s> {
    pub chunks: Sender<Chunk>,
    /// Buffers that came back.
    pub spent: Receiver<Vec<u8>>,
    /// Set when nobody wants more of the tar stream.
    pub enough: &'s AtomicBool,
}

impl Outlet<'_> {
    /// Hands `chunk` over. Should nobody be there any more, nobody wants it.
    fn send(&self, chunk: Chunk) {
        if self.chunks.send(chunk).is_err() {
            self.enough.store(true, Ordering::Relaxed);
        }
    }

    fn buffer(&self) -> Vec<u8> {
        let mut buffer = self.spent.try_recv().unwrap_or_default();
        buffer.resize(CHUNK, 0);
        buffer
    }

    fn enough(&self) -> bool {
        self.enough.load(Ordering::Relaxed)
    }
}

/// Reads `blob` to its end and hands all of it out, and the tar stream in it
/// as long as that is wanted.
pub(super) fn run(blob: impl Read, outlet: Outlet<'_>) -> Ended {
    let mut source = Source { blob, outlet: &outlet, buffer: Vec::new(), at: 0, plain: false };
    let error = inflate(&mut source).err();
    let unread = source.rest().err().map(|why| anyhow!(why).context("reading the blob"));
    Ended { error, unread }
}

/// Reads the blob into buffers that are handed out once they are used.
struct Source<'o, R> {
    blob: R,
    outlet: &'o Outlet<'o>,
    buffer: Vec<u8>,
    /// How much of `buffer` is used.
    at: usize,
    /// Whether the blob is not compressed, and so the tar stream itself.
    plain: bool,
}

impl<R: Read> Source<'_, R> {
    /// Hands out what is left.
    fn rest(&mut self) -> io::Result<()> {
        while !self.fill_buf()?.is_empty() {
            self.at = self.buffer.len();
        }
        Ok(())
    }
}

impl<R: Read> BufRead for Source<'_, R> {
    /// The bytes at hand. Invariant: before any is consumed there are at least four,
    /// unless the blob is shorter, so that its magic number can be read.
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.at == self.buffer.len() {
            self.at = 0;
            let used = std::mem::take(&mut self.buffer);
            if !used.is_empty() {
                self.outlet.send(if self.plain { Chunk::Plain(used) } else { Chunk::Blob(used) });
            }
            let mut buffer = self.outlet.buffer();
            let read = fill(&mut self.blob, &mut buffer);
            self.buffer = buffer;
            read?;
        }
        Ok(&self.buffer[self.at..])
    }

    fn consume(&mut self, amount: usize) {
        self.at += amount;
    }
}

impl<R: Read> Read for Source<'_, R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.fill_buf()?.read(buf)?;
        self.consume(n);
        Ok(n)
    }
}

/// Reads until `buffer` is full or `from` at its end, and cuts it to what came;
/// what came before an error, too.
fn fill(from: &mut impl Read, buffer: &mut Vec<u8>) -> io::Result<()> {
    let mut filled = 0;
    let mut result = Ok(());
    while filled < buffer.len() {
        match from.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => {
                result = Err(error);
                break;
            }
        }
    }
    buffer.truncate(filled);
    result
}

fn inflate<R: Read>(blob: &mut Source<'_, R>) -> Result<()> {
    match blob.fill_buf().context("reading the blob")? {
        [0x1f, 0x8b, ..] => members(blob),
        [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => {
            let outlet = blob.outlet;
            let mut frames = zstd::Decoder::with_buffer(blob).context("zstd")?;
            forward(&mut frames, outlet).context("zstd")
        }
        [0xfd, b'7', b'z', b'X', ..] => {
            bail!("the layer is compressed with xz; OCI knows gzip and zstd")
        }
        [b'B', b'Z', b'h', _, ..] => {
            bail!("the layer is compressed with bzip2; OCI knows gzip and zstd")
        }
        _ => {
            blob.plain = true;
            blob.rest().context("reading the blob")
        }
    }
}

/// Inflates gzip members one behind the other; zeros may follow the last.
fn members<R: Read>(blob: &mut Source<'_, R>) -> Result<()> {
    let outlet = blob.outlet;
    loop {
        forward(&mut flate2::bufread::GzDecoder::new(&mut *blob), outlet).context("gzip")?;
        if outlet.enough() {
            return Ok(());
        }
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

/// Hands out all of `from`, until that is enough.
fn forward(from: &mut impl Read, outlet: &Outlet<'_>) -> io::Result<()> {
    while !outlet.enough() {
        let mut chunk = outlet.buffer();
        let came = fill(from, &mut chunk);
        let ended = chunk.len() < CHUNK;
        // What was inflated before an error still belongs to the stream.
        if !chunk.is_empty() {
            outlet.send(Chunk::Tar(chunk));
        }
        came?;
        if ended {
            break;
        }
    }
    Ok(())
}
