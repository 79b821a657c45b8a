//! Manifests and configs on disk, by digest, and what tags last led to.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use oci_spec::distribution::Reference;

use super::super::store::MAX_DOCUMENT;
use crate::digest::Digest;
use crate::{regular, whole};

/// A directory of documents. Any number of builds may share it.
pub struct Documents(PathBuf);

impl Documents {
    pub fn new(dir: &Path) -> Self {
        Self(dir.to_owned())
    }

    fn path(&self, digest: Digest) -> PathBuf {
        self.0.join("sha256").join(digest.hex())
    }

    /// The document, if it is there and undamaged.
    pub fn get(&self, digest: Digest) -> Result<Option<Vec<u8>>> {
        let bytes = read(&self.path(digest))?;
        Ok(bytes.filter(|bytes| Digest::of(bytes) == digest))
    }

    pub fn put(&self, bytes: &[u8]) -> Result<Digest> {
        let digest = Digest::of(bytes);
        write(&self.path(digest), bytes)?;
        Ok(digest)
    }

    /// Where it is kept what `reference` led to.
    pub fn tag(&self, reference: &Reference) -> PathBuf {
        // A name of any length and with any character, as one of a file.
        self.0.join("tags").join(Digest::of(reference.whole().as_bytes()).hex())
    }

    pub fn get_tag(&self, tag: &Path) -> Result<Option<Digest>> {
        let text = read(tag)?.and_then(|bytes| String::from_utf8(bytes).ok());
        Ok(text.and_then(|text| text.trim().parse().ok()))
    }

    pub fn set_tag(&self, tag: &Path, digest: Digest) -> Result<()> {
        write(tag, format!("{digest}\n").as_bytes())
    }
}

fn read(path: &Path) -> Result<Option<Vec<u8>>> {
    match regular::read(path, MAX_DOCUMENT) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| path.display().to_string()),
    }
}

/// Writes a file that appears whole.
fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let write = || -> io::Result<()> {
        fs::create_dir_all(path.parent().unwrap_or(Path::new(".")))?;
        whole::write(path, &mut &bytes[..])
    };
    write().with_context(|| path.display().to_string())
}
