//! OCI artifacts: manifests that are not those of images, and lie where images do.

use std::collections::HashSet;
use std::io::{self, Read};

use anyhow::{Result, anyhow, bail, ensure};
use fsimage::digest::{Digest, HashingReader};

use crate::blob::blob;
use crate::document::{Descriptor, Document, Manifest};
use crate::names::{self, Unclear};
use crate::reference::{FileForm, ImageRef};
use crate::registry::access::Access;
use crate::registry::store::RegistryStore;
use crate::store::{Counted, Key, Store};
use crate::{form, layout};

/// The advice of messages that there are several artifacts, or too many documents to search.
const NAME_ONE: &str = "name one by its tag or its digest";

/// An artifact, opened.
#[derive(Debug)]
pub struct Artifact {
    /// The artifact's manifest.
    pub manifest: Manifest,
    store: Box<dyn Store>,
}

impl Artifact {
    /// Opens what `reference` names, which must be of the type `artifact_type`.
    ///
    /// # Errors
    /// When there is no artifact of that type or more than one, the reference is to docker's
    /// archives or store, or a document is missing, damaged or too large.
    pub fn open(reference: &ImageRef, access: &Access, artifact_type: &str) -> Result<Self> {
        let store: Box<dyn Store> = match reference {
            ImageRef::Registry { name, .. } => Box::new(RegistryStore::open(name, access)?),
            ImageRef::Files(files) if files.form != FileForm::DockerArchive => {
                form::open(files, &access.spool())?
            }
            ImageRef::Files(_) | ImageRef::Daemon { .. } => {
                bail!("docker stores images, and not bundles")
            }
        };
        let store: Box<dyn Store> =
            Box::new(Counted::new(store, access.document_bytes(), NAME_ONE));
        let entries = layout::entries(&*store)?;
        let entries: Vec<&Descriptor> = entries.good.iter().collect();
        let groups = match names::groups(&entries, reference.name_inside()) {
            Ok(groups) => groups,
            Err(Unclear::Absent(there)) => bail!(layout::absent(reference, &there)),
            Err(Unclear::Ambiguous(names)) => {
                bail!("the name stands for more than one; write one of: {names}")
            }
        };
        let mut found = None;
        let mut seen = HashSet::new();
        for descriptor in groups.iter().flat_map(|group| &group.entries) {
            let is_other = reference.pin().is_some_and(|pin| descriptor.digest != pin);
            if is_other || !seen.insert(descriptor.digest) {
                continue;
            }
            let bytes = there(&*store, descriptor)?;
            if is_of_type(&bytes, artifact_type) {
                ensure!(found.is_none(), "more than one bundle; {NAME_ONE}");
                found = Some(Document::parse(&bytes)?.manifest()?);
            }
        }
        match found {
            Some(manifest) => Ok(Self { manifest, store }),
            None => bail!("it is not a bundle (a manifest of type {artifact_type})"),
        }
    }

    /// Reads the blob of the artifact's config.
    ///
    /// # Errors
    /// When the config is missing, cannot be read, is too large, or is not what its
    /// digest says.
    pub fn config(&self) -> Result<Vec<u8>> {
        there(&*self.store, &self.manifest.config)
    }

    /// Opens the blob of `descriptor`. The reader fails at its end if the content does not
    /// have the descriptor's digest.
    ///
    /// # Errors
    /// When the blob is missing, cannot be opened, or has another size than the
    /// descriptor says.
    pub fn blob(&self, descriptor: &Descriptor) -> Result<Box<dyn Read + Send + '_>> {
        let digest = descriptor.digest;
        let opened = self.store.open(&Key::Blob(digest))?;
        let (blob, size) = opened.ok_or_else(|| anyhow!("the blob {digest} is missing"))?;
        let expected = descriptor.size;
        ensure!(size == expected, "the blob {digest} has {size} bytes, not {expected}");
        Ok(Box::new(Checked { inner: Some(HashingReader::new(blob)), digest }))
    }
}

/// Whether the document `bytes` says that it is of the type `artifact_type`.
fn is_of_type(bytes: &[u8], artifact_type: &str) -> bool {
    let value: serde_json::Value = crate::foreign_json::from_slice(bytes).unwrap_or_default();
    value["artifactType"] == artifact_type
}

/// Reads a small blob; that it is missing is an error.
fn there(store: &dyn Store, descriptor: &Descriptor) -> Result<Vec<u8>> {
    let missing = || anyhow!("the blob {} is missing", descriptor.digest);
    blob(store, descriptor)?.ok_or_else(missing)
}

/// A reader that compares the digest of what it read with the expected one at the end.
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
                let text =
                    format!("the blob {} is damaged: its content has another digest", self.digest);
                return Err(io::Error::new(io::ErrorKind::InvalidData, text));
            }
        }
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use serde_json::json;

    use super::*;
    use crate::layout_file;

    #[test]
    fn one_of_many_entries_is_read_once_and_a_second_bundle_ends_the_search() {
        let tmp = tempfile::tempdir().unwrap();
        let blobs = tmp.path().join("blobs/sha256");
        fs::create_dir_all(&blobs).unwrap();
        fs::write(tmp.path().join(layout_file::LAYOUT), layout_file::LAYOUT_JSON).unwrap();
        let entry = |config: &str| {
            let config = Digest::of(config.as_bytes()).to_string();
            let config = json!({ "digest": config, "size": 1 });
            let manifest = json!({ "artifactType": "bundle", "config": config, "layers": [] });
            let bytes = manifest.to_string().into_bytes();
            let digest = Digest::of(&bytes);
            fs::write(blobs.join(digest.hex()), &bytes).unwrap();
            json!({ "digest": digest.to_string(), "size": bytes.len() })
        };
        let opened = |entries: &[serde_json::Value], most: u64| {
            let index = json!({ "manifests": entries }).to_string();
            fs::write(tmp.path().join("index.json"), index).unwrap();
            let reference = ImageRef::in_files(FileForm::Oci, tmp.path());
            let access = Access { max_document_bytes: Some(most), ..Access::default() };
            Artifact::open(&reference, &access, "bundle").map(drop).map_err(|e| format!("{e:#}"))
        };
        let (one, other, third) = (entry("1"), entry("2"), entry("3"));
        assert_eq!(opened(&vec![one.clone(); 100], 20 << 10), Ok(()));
        let many = [vec![one.clone(), other], vec![third; 100]].concat();
        assert!(opened(&many, 20 << 10).unwrap_err().contains("more than one bundle"));
        assert!(opened(&vec![one; 1000], 2 << 10).unwrap_err().contains("2048 bytes"));
    }
}
