//! Blobs and manifests to a registry.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use anyhow::Result;
use oci_client::RegistryOperation;
use oci_client::errors::OciDistributionError;
use oci_spec::distribution::Reference;

use super::Access;
use super::client::{Client, NotThere};
use crate::digest::Digest;

/// Bytes of one piece on the wire.
const PIECE: usize = 1 << 20;

/// A repository that is written to.
pub struct Repository(Client);

impl Repository {
    pub fn open(reference: &Reference, access: &Access) -> Result<Self> {
        let client = Client::new(reference, access)?;
        client.retry(|| client.authorize(RegistryOperation::Push))?;
        Ok(Self(client))
    }

    /// Whether the repository has the blob already.
    pub fn has(&self, digest: Digest) -> Result<bool> {
        let Client { client, reference, .. } = &self.0;
        self.0.retry(|| async { client.blob_exists(reference, &digest.to_string()).await })
    }

    /// Sends the `size` bytes of `file`.
    pub fn send(&self, digest: Digest, size: u64, file: &File) -> Result<()> {
        let Client { client, reference, .. } = &self.0;
        let file = Arc::new(file.try_clone()?);
        self.0.retry(|| async {
            let pieces =
                futures_util::stream::unfold((file.clone(), 0), move |(file, at)| async move {
                    if at >= size {
                        return None;
                    }
                    let mut piece = vec![0; PIECE.min((size - at).min(PIECE as u64) as usize)];
                    let next = at + piece.len() as u64;
                    let read =
                        file.read_exact_at(&mut piece, at).map(|()| bytes::Bytes::from(piece));
                    Some((read.map_err(OciDistributionError::from), (file, next)))
                });
            client.push_blob_stream(reference, pieces, &digest.to_string(), Some(size)).await?;
            Ok(())
        })
    }

    /// Gives the manifest `bytes` the name that the repository was opened by.
    pub fn name(&self, bytes: &[u8], media_type: &'static str) -> Result<()> {
        let Client { client, reference, .. } = &self.0;
        let bytes = bytes.to_vec();
        self.0.retry(|| async {
            let value = reqwest::header::HeaderValue::from_static(media_type);
            client.push_manifest_raw(reference, bytes.clone(), value).await?;
            Ok(())
        })
    }

    /// Whether the name leads to something already.
    pub fn is_named(&self) -> Result<bool> {
        match self.0.manifest(&self.0.reference) {
            Ok(_) => Ok(true),
            Err(error) if error.is::<NotThere>() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The manifest `digest`, if the repository has it.
    pub fn manifest(&self, digest: Digest) -> Option<Vec<u8>> {
        let reference = self.0.reference.clone_with_digest(digest.to_string());
        self.0.manifest(&reference).ok()
    }
}
