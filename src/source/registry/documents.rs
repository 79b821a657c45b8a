//! Manifests and configs on disk, by digest, and what tags last led to.

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use oci_spec::distribution::Reference;

use super::super::store::MAX_DOCUMENT;
use crate::digest::Digest;
use crate::{dir, regular, shared_dir, temporary, whole};

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
        self.write(&self.path(digest), bytes)?;
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
        self.write(tag, format!("{digest}\n").as_bytes())
    }

    /// Writes a file that appears whole. Where this user may only read, it is as if
    /// nothing were kept.
    fn write(&self, path: &Path, bytes: &[u8]) -> Result<()> {
        let root = self.0.parent().filter(|root| !root.as_os_str().is_empty());
        let write = || -> io::Result<()> {
            let dir = path.parent().unwrap_or(Path::new("."));
            shared_dir::create(root.unwrap_or(&self.0), dir)?;
            whole::write(path, &mut &bytes[..])
        };
        match write() {
            Err(error) if shared_dir::may_not_write(&error) => Ok(()),
            result => result.with_context(|| path.display().to_string()),
        }
    }

    /// Checks every document; `problem` is told of those that are not what they are
    /// called, and what is wrong. Says how many are right, and how many files of killed
    /// runs were removed.
    pub fn check(&self, problem: &mut dyn FnMut(&Path, anyhow::Error)) -> Result<(usize, usize)> {
        let (mut good, mut left) = (0, 0);
        for (sub, is_right) in [("", None), ("sha256", Some(true)), ("tags", Some(false))] {
            let dir = self.0.join(sub);
            let names = match dir::names(&dir) {
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                names => names.with_context(|| dir.display().to_string())?,
            };
            left += temporary::remove_left(&dir).unwrap_or(0);
            let Some(by_digest) = is_right else { continue };
            for name in names {
                // Whatever else is there is none of this program's.
                if name.len() != 64 || !name.as_encoded_bytes().iter().all(u8::is_ascii_hexdigit) {
                    continue;
                }
                match self.is_right(&dir.join(&name), by_digest) {
                    Ok(()) => good += 1,
                    Err(error) => problem(&dir.join(&name), error),
                }
            }
        }
        Ok((good, left))
    }

    fn is_right(&self, path: &Path, by_digest: bool) -> Result<()> {
        let bytes = regular::read(path, MAX_DOCUMENT)?;
        if by_digest {
            let digest = Digest::of(&bytes);
            ensure!(self.path(digest) == path, "its digest is {digest}");
        } else {
            ensure!(self.get_tag(path)?.is_some(), "it holds no digest");
        }
        Ok(())
    }
}

/// The bytes of a file; `None` if there is none. What is there and no file is replaced.
fn read(path: &Path) -> Result<Option<Vec<u8>>> {
    match regular::read(path, MAX_DOCUMENT) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::InvalidInput) => {
            Ok(None)
        }
        Err(error) => Err(error).with_context(|| path.display().to_string()),
    }
}
