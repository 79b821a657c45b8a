//! A blob as it comes from the wire.

use std::io::{self, Read};
use std::sync::Arc;

use futures_util::StreamExt as _;
use oci_client::client::BlobResponse;
use tokio::sync::mpsc::{self, Receiver};

use super::client::{Client, RETRIES, wait};
use crate::digest::Digest;

type Chunk = bytes::Bytes;

/// Chunks on the way from the wire: enough that neither side waits for each.
const CHUNKS: usize = 64;

/// Reads a blob. Where the wire breaks, it goes on from there.
pub struct BlobReader {
    client: Arc<Client>,
    digest: Digest,
    size: u64,
    /// Bytes that came so far.
    offset: u64,
    wire: Option<Receiver<io::Result<Chunk>>>,
    chunk: Chunk,
    /// Failures since the last byte.
    failures: u32,
}

impl BlobReader {
    pub fn new(client: Arc<Client>, digest: Digest, size: u64) -> Self {
        let chunk = Chunk::new();
        Self { client, digest, size, offset: 0, wire: None, chunk, failures: 0 }
    }

    /// Begins to receive at `self.offset`.
    fn connect(&mut self) -> io::Result<()> {
        let response = loop {
            match self.client.blob(self.digest, self.offset) {
                Ok(response) => break response,
                Err(failure) if self.failures >= failure.retries => {
                    return Err(io::Error::other(format!("{:#}", failure.into_error())));
                }
                Err(_) => {
                    wait(self.failures);
                    self.failures += 1;
                }
            }
        };
        // A server may not know of ranges: then what was read comes once more.
        let (mut stream, mut skip) = match response {
            BlobResponse::Full(stream) => (stream, self.offset),
            BlobResponse::Partial(stream) => (stream, 0),
        };
        let (send, receive) = mpsc::channel(CHUNKS);
        self.client.runtime().spawn(async move {
            while let Some(chunk) = stream.next().await {
                let chunk = chunk.map(|mut chunk| {
                    let skipped = usize::try_from(skip).unwrap_or(usize::MAX).min(chunk.len());
                    skip -= skipped as u64;
                    chunk.split_off(skipped)
                });
                // Nobody takes it any more: the build has failed.
                if send.send(chunk).await.is_err() {
                    return;
                }
            }
        });
        self.wire = Some(receive);
        Ok(())
    }
}

impl Read for BlobReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.chunk.is_empty() {
            if self.offset == self.size || buffer.is_empty() {
                return Ok(0);
            }
            let Some(wire) = &mut self.wire else {
                self.connect()?;
                continue;
            };
            match wire.blocking_recv() {
                Some(Ok(mut chunk)) => {
                    // What comes beyond the size is not the blob's.
                    let left = usize::try_from(self.size - self.offset).unwrap_or(usize::MAX);
                    chunk.truncate(left);
                    self.offset += chunk.len() as u64;
                    if !chunk.is_empty() {
                        self.failures = 0;
                    }
                    self.chunk = chunk;
                }
                broken => {
                    self.wire = None;
                    if self.failures >= RETRIES {
                        let why = match broken {
                            Some(Err(error)) => error.to_string(),
                            _ => "it ends too early".into(),
                        };
                        let at = self.offset;
                        return Err(io::Error::other(format!("at byte {at} of the blob: {why}")));
                    }
                    wait(self.failures);
                    self.failures += 1;
                }
            }
        }
        let take = buffer.len().min(self.chunk.len());
        buffer[..take].copy_from_slice(&self.chunk[..take]);
        self.chunk = self.chunk.split_off(take);
        Ok(take)
    }
}
