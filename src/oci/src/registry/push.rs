//! Sends blobs and manifests to a registry.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Result;
use fsimage::digest::Digest;
use futures_util::stream;
use reqwest::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderValue};
use reqwest::{Body, Method, Request, Response, Url};
use serde_json::{Value, json};

use super::access::Access;
use super::client::{Client, Purpose, Wanted};
use super::failure::Failure;
use crate::distribution::Reference;
use crate::media_type;
use crate::not_there::NotThere;

/// Bytes of one piece on the wire.
const PIECE: u64 = 256 << 10;

/// The time without progress after which an upload has stalled.
const STALL: Duration = Duration::from_secs(60);
/// Bytes a second at which a registry at least checks a blob that it has got whole, which
/// takes time before it answers.
const DIGESTION: u64 = 2 << 20;

/// A repository that is written to.
#[derive(Debug)]
pub struct Repository(Client);

impl Repository {
    /// The repository of `reference`, to be written to.
    ///
    /// # Errors
    /// When a certificate or a stored login cannot be read, or it is not clear how to
    /// connect to the registry.
    pub fn open(reference: &Reference, access: &Access) -> Result<Self> {
        Ok(Self(Client::new(reference, access, Purpose::Write)?))
    }

    /// Whether the repository has the blob already.
    ///
    /// # Errors
    /// When the registry cannot be reached, or answers neither yes nor no.
    pub fn has(&self, digest: Digest) -> Result<bool> {
        self.0.has_blob(digest)
    }

    /// Sends the `size` bytes of `file`.
    ///
    /// # Errors
    /// When the registry cannot be reached or does not take the blob, or `file` has fewer
    /// than `size` bytes or cannot be read.
    pub fn send(&self, digest: Digest, size: u64, file: &File) -> Result<()> {
        let file = Arc::new(file.try_clone()?);
        self.0.tried(async || {
            let url = self.0.url("blobs/uploads/")?;
            let nothing = HeaderMap::from_iter([(CONTENT_LENGTH, HeaderValue::from(0))]);
            let begun = self.0.ask(Method::POST, &url, nothing, Wanted::Write).await?;
            let mut to = self.0.location(&begun)?;
            to.query_pairs_mut().append_pair("digest", &digest.to_string());
            let body = |sent| Body::wrap_stream(pieces(file.clone(), size, sent));
            self.put(&to, "application/octet-stream", size, &body, Wanted::Rest).await
        })?;
        Ok(())
    }

    /// Puts a body of `size` bytes to `url`; fails when the upload stalls.
    async fn put(
        &self,
        url: &Url,
        media_type: &'static str,
        size: u64,
        body: &dyn Fn(Arc<AtomicU64>) -> Body,
        wanted: Wanted,
    ) -> Result<Response, Failure> {
        let sent = Arc::new(AtomicU64::new(0));
        let make = || {
            sent.store(0, Ordering::Relaxed);
            let mut request = Request::new(Method::PUT, url.clone());
            request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
            request.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(size));
            *request.body_mut() = Some(body(sent.clone()));
            request
        };
        let stalled = async {
            let mut before = u64::MAX;
            loop {
                let now = sent.load(Ordering::Relaxed);
                if now == before {
                    return now;
                }
                before = now;
                let more = if now == size { size / DIGESTION } else { 0 };
                tokio::time::sleep(STALL + Duration::from_secs(more)).await;
            }
        };
        tokio::select! {
            answer = self.0.upload(make, wanted) => answer,
            at = stalled => {
                let what = format!("the upload stalled at byte {at} of {size}");
                Err(Failure::new(self.0.says(&what), 1))
            }
        }
    }

    /// Puts the manifest `bytes` under the tag that the repository was opened by. If it has a
    /// `subject`, it becomes one of the subject's referrers.
    ///
    /// # Errors
    /// When the registry cannot be reached or does not take the manifest, or the list of
    /// what refers to its subject.
    pub fn name(&self, bytes: &[u8], media_type: &'static str) -> Result<()> {
        let tag = self.0.reference.tag().unwrap_or("latest");
        self.put_and_list(tag, bytes, media_type)
    }

    /// Puts the manifest `bytes` without a tag: it has a `subject`, and is found as one of the
    /// subject's referrers.
    ///
    /// # Errors
    /// When the registry cannot be reached or does not take the manifest, or the list of
    /// what refers to its subject.
    pub fn refer(&self, bytes: &[u8], media_type: &'static str) -> Result<()> {
        self.put_and_list(&Digest::of(bytes).to_string(), bytes, media_type)
    }

    fn put_and_list(&self, name: &str, bytes: &[u8], media_type: &'static str) -> Result<()> {
        let response = self.put_manifest(name, bytes, media_type)?;
        if response.headers().contains_key("oci-subject") {
            return Ok(());
        }
        let manifest: Value = crate::foreign_json::from_slice(bytes)?;
        match manifest["subject"]["digest"].as_str() {
            Some(subject) => self.list_referrer(subject, bytes, &manifest),
            None => Ok(()),
        }
    }

    fn put_manifest(&self, name: &str, bytes: &[u8], media_type: &'static str) -> Result<Response> {
        self.0.tried(async || {
            let url = self.0.url(&format!("manifests/{name}"))?;
            let size = bytes.len() as u64;
            let body = |_| Body::from(bytes.to_vec());
            self.put(&url, media_type, size, &body, Wanted::Write).await
        })
    }

    /// Adds the manifest `bytes` to the list of `subject`'s referrers. A registry without the
    /// API for referrers has this list as an index, under a tag that is made of the subject's
    /// digest (OCI distribution 1.1).
    fn list_referrer(&self, subject: &str, bytes: &[u8], manifest: &Value) -> Result<()> {
        let tag = subject.replacen(':', "-", 1);
        let mut list = match if_there(self.0.manifest(&self.0.reference.with_tag(&*tag)))? {
            Some(bytes) => crate::foreign_json::from_slice(&bytes)?,
            None => json!({ "schemaVersion": 2, "mediaType": media_type::INDEX, "manifests": [] }),
        };
        let Some(entries) = list["manifests"].as_array_mut() else {
            // Somebody else uses that tag for something other than an index.
            return Ok(());
        };
        let digest = Digest::of(bytes).to_string();
        if entries.iter().any(|entry| entry["digest"] == *digest) {
            return Ok(());
        }
        entries.push(json!({
            "mediaType": manifest["mediaType"],
            "artifactType": manifest["artifactType"],
            "digest": digest,
            "size": bytes.len(),
        }));
        self.put_manifest(&tag, &serde_json::to_vec(&list)?, media_type::INDEX).map(drop)
    }

    /// Whether the tag that the repository was opened by exists already.
    ///
    /// # Errors
    /// When the registry cannot be reached, or answers with something other than a
    /// manifest.
    pub fn is_named(&self) -> Result<bool> {
        Ok(if_there(self.0.manifest(&self.0.reference))?.is_some())
    }

    /// The manifest `digest`, if the repository has it.
    ///
    /// # Errors
    /// When the registry cannot be reached, or answers with something other than that
    /// manifest.
    pub fn manifest(&self, digest: Digest) -> Result<Option<Vec<u8>>> {
        if_there(self.0.manifest(&self.0.reference.with_digest(digest)))
    }
}

/// What was asked for, or `None` if it is not there.
fn if_there<T>(asked: Result<T>) -> Result<Option<T>> {
    match asked {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.is::<NotThere>() => Ok(None),
        Err(error) => Err(error),
    }
}

/// The `size` bytes of `file` as a stream, which notes in `sent` how many were taken.
fn pieces(
    file: Arc<File>,
    size: u64,
    sent: Arc<AtomicU64>,
) -> impl stream::TryStream<Ok = bytes::Bytes, Error = io::Error> + Send + 'static {
    stream::unfold((file, sent, 0), move |(file, sent, at)| async move {
        let len = PIECE.min(size - at);
        if len == 0 {
            return None;
        }
        sent.store(at + len, Ordering::Relaxed);
        let mut piece = vec![0; len as usize];
        let read = file.read_exact_at(&mut piece, at).map(|()| bytes::Bytes::from(piece));
        Some((read, (file, sent, at + len)))
    })
}
