//! A blob as it comes from the wire.

use std::io::{self, Read};
use std::sync::Arc;
use std::time::Instant;

use fsimage::digest::Digest;
use reqwest::StatusCode;
use tokio::sync::mpsc::{self, Receiver};

use super::client::Client;
use super::failure::{Failure, RETRIES};
use crate::pace::Pace;

type Chunk = bytes::Bytes;

/// Chunks on the way from the wire: enough that neither side waits for each.
const CHUNKS: usize = 64;

/// So many bytes make up for earlier failures: fewer, and a server could hold a
/// build for as long as it likes.
const ENOUGH: u64 = 64 << 10;

/// Reads a blob. Where the wire breaks, it goes on from there.
pub(super) struct BlobReader {
    client: Arc<Client>,
    digest: Digest,
    size: u64,
    /// Bytes that came so far.
    offset: u64,
    wire: Option<Receiver<reqwest::Result<Chunk>>>,
    chunk: Chunk,
    /// Failures since enough came without one.
    failures: u32,
    /// Bytes since the last failure.
    since: u64,
    /// Why there will be no more.
    failed: Option<String>,
    pace: Pace,
}

impl BlobReader {
    pub(super) fn new(client: Arc<Client>, digest: Digest, size: u64, pace: Pace) -> Self {
        let chunk = Chunk::new();
        Self {
            client,
            digest,
            size,
            offset: 0,
            wire: None,
            chunk,
            failures: 0,
            since: 0,
            failed: None,
            pace,
        }
    }

    /// Begins to receive at `self.offset`.
    fn connect(&mut self) -> io::Result<()> {
        let mut response = loop {
            match self.client.blob(self.digest, self.offset) {
                Ok(response) => break response,
                Err(failure) => self.failure(failure)?,
            }
        };
        // A server may not know of ranges: then what was read comes once more.
        let partial = response.status() == StatusCode::PARTIAL_CONTENT;
        let mut skip = if partial { 0 } else { self.offset };
        let (send, receive) = mpsc::channel(CHUNKS);
        self.client.runtime().spawn(async move {
            loop {
                let chunk = match response.chunk().await {
                    Ok(None) => return,
                    Ok(Some(mut chunk)) => {
                        let skipped = usize::try_from(skip).unwrap_or(usize::MAX).min(chunk.len());
                        skip -= skipped as u64;
                        Ok(chunk.split_off(skipped))
                    }
                    Err(error) => Err(error),
                };
                // Nobody takes it any more: the build has failed.
                let ended = chunk.is_err();
                if send.send(chunk).await.is_err() || ended {
                    return;
                }
            }
        });
        self.wire = Some(receive);
        Ok(())
    }

    /// Whatever is read from now on is this failure.
    fn give_up(&mut self, failure: Failure) -> io::Error {
        let text = match self.offset {
            0 => format!("{:#}", failure.error),
            at => format!("{:#} (at byte {at} of {})", failure.error, self.size),
        };
        self.failed = Some(text.clone());
        io::Error::other(text)
    }

    /// Waits for another try, or gives up.
    fn failure(&mut self, failure: Failure) -> io::Result<()> {
        // Who was there a moment ago is likely to come back.
        let retries = match failure.retries {
            1.. if self.offset > 0 => RETRIES,
            retries => retries,
        };
        if self.failures >= retries {
            return Err(self.give_up(failure));
        }
        failure.wait(self.failures);
        self.failures += 1;
        self.since = 0;
        Ok(())
    }
}

impl Read for BlobReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if let Some(text) = &self.failed {
            return Err(io::Error::other(text.clone()));
        }
        while self.chunk.is_empty() {
            if self.offset == self.size || buffer.is_empty() {
                return Ok(0);
            }
            let Some(wire) = &mut self.wire else {
                self.connect()?;
                continue;
            };
            let began = Instant::now();
            let received = wire.blocking_recv();
            match received {
                Some(Ok(mut chunk)) => {
                    if let Err(slow) = self.pace.came(chunk.len() as u64, began.elapsed()) {
                        self.wire = None;
                        let failure = Failure::fatal(self.client.says(&slow.to_string()));
                        return Err(self.give_up(failure));
                    }
                    // What comes beyond the size is not the blob's.
                    let left = usize::try_from(self.size - self.offset).unwrap_or(usize::MAX);
                    chunk.truncate(left);
                    self.offset += chunk.len() as u64;
                    self.since += chunk.len() as u64;
                    if self.since >= ENOUGH {
                        self.failures = 0;
                    }
                    self.chunk = chunk;
                }
                broken => {
                    self.wire = None;
                    let failure = match broken {
                        Some(Err(error)) => self.client.silence(&error),
                        _ => Failure::new(self.client.says("the blob ends too early"), RETRIES),
                    };
                    self.failure(failure)?;
                }
            }
        }
        let take = buffer.len().min(self.chunk.len());
        buffer[..take].copy_from_slice(&self.chunk[..take]);
        self.chunk = self.chunk.split_off(take);
        Ok(take)
    }
}
