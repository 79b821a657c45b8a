//! Reads a blob from a registry as a stream, which resumes after failures.

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

/// Chunks that may wait between the thread of the client and the reader: enough that neither
/// waits for each chunk of the other.
const CHUNKS: usize = 64;

/// Bytes without a failure after which earlier failures do not count any more. If fewer were
/// enough, a server could hold a build for as long as it likes.
const ENOUGH: u64 = 64 << 10;

/// A reader of a blob. When the connection breaks, it resumes where it was.
pub(super) struct BlobReader {
    client: Arc<Client>,
    digest: Digest,
    size: u64,
    /// Bytes that came so far.
    offset: u64,
    wire: Option<Receiver<reqwest::Result<Chunk>>>,
    chunk: Chunk,
    /// Failures that count, see [`ENOUGH`].
    failures: u32,
    /// Bytes since the last failure.
    since: u64,
    /// The error that ended the stream, which every further read repeats.
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
        // A server that does not support ranges sends the blob from its start: what was read
        // before is skipped.
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
                let ended = chunk.is_err();
                // Sending fails when the reader is gone, because the build has failed.
                if send.send(chunk).await.is_err() || ended {
                    return;
                }
            }
        });
        self.wire = Some(receive);
        Ok(())
    }

    /// Ends the stream: this failure is the result of every read from now on.
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
        // A server that has sent something before is likely to come back.
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
                    // Bytes beyond the blob's size are ignored.
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
