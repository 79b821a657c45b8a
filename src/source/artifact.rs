//! Artifacts: manifests of OCI that are no images, where images are.

use std::io::{self, Read};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use oci_spec::image::{Descriptor, ImageIndex, ImageManifest};

use super::Access;
use super::layout;
use super::registry::RegistryStore;
use super::skopeo::SkopeoDir;
use super::store::{DirStore, Store, TarStore};
use crate::digest::{Digest, HashingReader};
use crate::manifest::{ImageRef, Transport};

/// An artifact, opened.
pub struct Artifact {
    pub manifest: ImageManifest,
    store: Box<dyn Store>,
}

impl Artifact {
    /// Opens what `reference` names, which must be of the type `artifact_type`.
    pub fn open(reference: &ImageRef, access: &Access, artifact_type: &str) -> Result<Self> {
        let path = &reference.path;
        let store: Box<dyn Store> = match reference.transport {
            Transport::Oci => Box::new(DirStore(path.clone())),
            Transport::OciArchive => Box::new(TarStore::open(path)?),
            Transport::Dir => Box::new(SkopeoDir::open(path)?),
            Transport::DockerArchive | Transport::DockerDaemon => {
                bail!("what docker saves are images, and no bundles")
            }
            Transport::Registry => {
                let name = reference.name.as_ref().context("a registry's artifact has a name")?;
                Box::new(RegistryStore::open(name, access)?)
            }
        };
        let index =
            store.document("index.json")?.ok_or_else(|| anyhow!("index.json is missing"))?;
        let index: ImageIndex = serde_json::from_slice(&index).context("index.json")?;
        let mut found = Vec::new();
        for descriptor in layout::named(&index, reference)? {
            if reference.pin.is_some_and(|pin| layout::digest(descriptor).ok() != Some(pin)) {
                continue;
            }
            let bytes = layout::blob(&*store, descriptor)?;
            let value: serde_json::Value = serde_json::from_slice(&bytes).unwrap_or_default();
            if value["artifactType"] == artifact_type {
                let manifest: ImageManifest = serde_json::from_value(value)?;
                found.push(manifest);
            }
        }
        match (found.pop(), found.is_empty()) {
            (Some(manifest), true) => Ok(Self { manifest, store }),
            (None, _) => bail!("it is no bundle (a manifest of type {artifact_type})"),
            (Some(_), false) => bail!("more than one bundle; name one by its tag"),
        }
    }

    /// The config.
    pub fn config(&self) -> Result<Vec<u8>> {
        layout::blob(&*self.store, self.manifest.config())
    }

    /// The blob of `descriptor`. Its reading ends in an error if it is not what
    /// the digest says.
    pub fn blob(&self, descriptor: &Descriptor) -> Result<Box<dyn Read + Send + '_>> {
        let digest = layout::digest(descriptor)?;
        let opened = self.store.open(&layout::blob_name(digest))?;
        let (blob, size) = opened.ok_or_else(|| anyhow!("the blob {digest} is missing"))?;
        let expected = descriptor.size();
        ensure!(size == expected, "the blob {digest} has {size} bytes, not {expected}");
        Ok(Box::new(Checked { inner: Some(HashingReader::new(blob)), digest }))
    }
}

/// Compares what it read with a digest when it comes to the end.
struct Checked<R> {
    inner: Option<HashingReader<R>>,
    digest: Digest,
}

impl<R: Read> Read for Checked<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(inner) = &mut self.inner else {
            return Ok(0);
        };
        let n = inner.read(buffer)?;
        if n == 0 && !buffer.is_empty() {
            let is = self.inner.take().map(HashingReader::digest);
            if is != Some(self.digest) {
                let text = format!("the blob {} is damaged: its content is another", self.digest);
                return Err(io::Error::new(io::ErrorKind::InvalidData, text));
            }
        }
        Ok(n)
    }
}
