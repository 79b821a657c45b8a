//! Artifacts: manifests of OCI that are not images, where images are.

use std::io::{self, Read};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use fsimage::digest::{Digest, HashingReader};

use crate::blob::{blob, blob_name};
use crate::document::{Descriptor, Document, Manifest};
use crate::names::{self, Unclear};
use crate::reference::{ImageRef, Transport};
use crate::registry::{Access, RegistryStore};
use crate::store::Store;
use crate::{form, layout};

/// An artifact, opened.
pub struct Artifact {
    pub manifest: Manifest,
    store: Box<dyn Store>,
}

impl Artifact {
    /// Opens what `reference` names, which must be of the type `artifact_type`.
    pub fn open(reference: &ImageRef, access: &Access, artifact_type: &str) -> Result<Self> {
        let store: Box<dyn Store> = match reference.transport {
            Transport::Oci | Transport::OciArchive | Transport::Archive | Transport::Dir => {
                form::open(reference, &access.spool())?
            }
            Transport::DockerArchive | Transport::DockerDaemon => {
                bail!("what docker saves are images, and not bundles")
            }
            Transport::Registry => {
                let name = reference.name.as_ref().context("a registry's artifact has a name")?;
                Box::new(RegistryStore::open(name, access)?)
            }
        };
        let entries = layout::entries(&*store)?;
        let entries: Vec<&Descriptor> = entries.iter().flatten().collect();
        let groups = match names::groups(&entries, reference.reference.as_deref()) {
            Ok(groups) => groups,
            Err(Unclear::Absent(there)) => bail!(layout::absent(reference, &there)),
            Err(Unclear::Ambiguous(names)) => bail!("more than one has the name: {names}"),
        };
        let mut found = Vec::new();
        for descriptor in groups.iter().flat_map(|group| &group.entries) {
            if reference.pin.is_some_and(|pin| descriptor.digest != pin) {
                continue;
            }
            let bytes = there(&*store, descriptor)?;
            let value: serde_json::Value =
                crate::foreign_json::from_slice(&bytes).unwrap_or_default();
            if value["artifactType"] == artifact_type {
                found.push(Document::parse(&bytes)?.manifest()?);
            }
        }
        match (found.pop(), found.is_empty()) {
            (Some(manifest), true) => Ok(Self { manifest, store }),
            (None, _) => bail!("it is not a bundle (a manifest of type {artifact_type})"),
            (Some(_), false) => bail!("more than one bundle; name one by its tag"),
        }
    }

    /// The config.
    pub fn config(&self) -> Result<Vec<u8>> {
        there(&*self.store, &self.manifest.config)
    }

    /// The blob of `descriptor`. Its reading ends in an error if it is not what
    /// the digest says.
    pub fn blob(&self, descriptor: &Descriptor) -> Result<Box<dyn Read + Send + '_>> {
        let digest = descriptor.digest;
        let opened = self.store.open(&blob_name(digest))?;
        let (blob, size) = opened.ok_or_else(|| anyhow!("the blob {digest} is missing"))?;
        let expected = descriptor.size;
        ensure!(size == expected, "the blob {digest} has {size} bytes, not {expected}");
        Ok(Box::new(Checked { inner: Some(HashingReader::new(blob)), digest }))
    }
}

/// A small blob that must be there.
fn there(store: &dyn Store, descriptor: &Descriptor) -> Result<Vec<u8>> {
    let missing = || anyhow!("the blob {} is missing", descriptor.digest);
    blob(store, descriptor)?.ok_or_else(missing)
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
