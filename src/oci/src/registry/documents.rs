//! Manifests and configs on disk, by digest, and what tags last led to.

use std::ffi::OsStr;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use fsimage::digest::Digest;
use fsimage::io::checked::Checked;
use fsimage::io::dir::Dir;
use fsimage::io::{atomic_file, regular, shared_dir, temporary};

use crate::distribution::Reference;
use crate::store::MAX_DOCUMENT;

/// A directory of documents. Any number of builds may share it.
#[derive(Debug)]
pub struct Documents(PathBuf);

impl Documents {
    /// The documents in `dir`, which need not be there yet.
    pub fn new(dir: &Path) -> Self {
        Self(dir.to_owned())
    }

    /// The directory of the cache that holds it.
    fn root(&self) -> &Path {
        self.0.parent().filter(|root| !root.as_os_str().is_empty()).unwrap_or(&self.0)
    }

    /// The bytes of a file; `None` if there is no regular file that this user may read.
    /// Something else in its place is replaced by the next write.
    fn read(&self, path: &Path) -> Result<Option<Vec<u8>>> {
        let read = || -> io::Result<Vec<u8>> {
            let dir = shared_dir::open(self.root(), path.parent().unwrap_or(&self.0))?;
            regular::read_at(dir.file(), path.file_name().unwrap_or_default(), MAX_DOCUMENT)
        };
        use ErrorKind::{InvalidInput, NotFound, PermissionDenied};
        match read() {
            Err(error) if matches!(error.kind(), NotFound | InvalidInput | PermissionDenied) => {
                Ok(None)
            }
            read => read.map(Some).with_context(|| path.display().to_string()),
        }
    }

    fn path(&self, digest: Digest) -> PathBuf {
        self.0.join("sha256").join(digest.hex())
    }

    /// The document `digest`, if it is there and undamaged.
    ///
    /// # Errors
    /// When reading fails for another reason than that the file is absent or this user
    /// may not read it.
    pub fn get(&self, digest: Digest) -> Result<Option<Vec<u8>>> {
        let bytes = self.read(&self.path(digest))?;
        Ok(bytes.filter(|bytes| Digest::of(bytes) == digest))
    }

    /// Stores `bytes` under their digest, and returns it.
    ///
    /// # Errors
    /// When the file cannot be written, for another reason than that this user may only
    /// read.
    pub fn put(&self, bytes: &[u8]) -> Result<Digest> {
        let digest = Digest::of(bytes);
        self.write(&self.path(digest), bytes)?;
        Ok(digest)
    }

    /// The file that holds the digest to which `reference` last led.
    pub fn tag(&self, reference: &Reference) -> PathBuf {
        // Hashed, because a file's name is shorter than references may be.
        self.0.join("tags").join(Digest::of(reference.to_string().as_bytes()).hex())
    }

    /// The digest that the file `tag` holds; `None` if it does not hold one, or is not there.
    ///
    /// # Errors
    /// When reading fails for another reason than that the file is absent or this user
    /// may not read it.
    pub fn get_tag(&self, tag: &Path) -> Result<Option<Digest>> {
        let text = self.read(tag)?;
        Ok(text.and_then(digest_of))
    }

    /// Writes `digest` to the file `tag`.
    ///
    /// # Errors
    /// When the file cannot be written, for another reason than that this user may only
    /// read.
    pub fn set_tag(&self, tag: &Path, digest: Digest) -> Result<()> {
        self.write(tag, format!("{digest}\n").as_bytes())
    }

    /// Writes a file atomically. Does nothing in a directory that this user can only read.
    fn write(&self, path: &Path, bytes: &[u8]) -> Result<()> {
        let write = || -> io::Result<()> {
            let dir = shared_dir::create(self.root(), path.parent().unwrap_or(&self.0))?;
            atomic_file::write_shared(&dir, path.file_name().unwrap_or_default(), bytes)
        };
        match write() {
            Err(error) if shared_dir::may_not_write(&error) => Ok(()),
            result => result.with_context(|| path.display().to_string()),
        }
    }

    /// Checks every document, and removes the damaged ones if `remove` is set. Temporary files
    /// of killed runs are removed in any case.
    ///
    /// # Errors
    /// When a directory cannot be opened or listed; what is wrong with a document is
    /// noted in `checked`.
    pub fn check(&self, remove: bool, checked: &mut Checked) -> Result<()> {
        for (sub, by_digest) in [("", None), ("sha256", Some(true)), ("tags", Some(false))] {
            let path = self.0.join(sub);
            let Some(dir) = checked.open(self.root(), &path)? else {
                if sub.is_empty() { break } else { continue }
            };
            let names = dir.names().with_context(|| path.display().to_string())?;
            checked.leftovers += temporary::remove_left_in(dir.file()).unwrap_or(0);
            let Some(by_digest) = by_digest else { continue };
            for name in names {
                // Files of other names are not this program's.
                if name.len() != 64 || !name.as_encoded_bytes().iter().all(u8::is_ascii_hexdigit) {
                    continue;
                }
                match is_right(&dir, &name, by_digest) {
                    Ok(()) => checked.good += 1,
                    Err(error) => checked.problem(&dir, &[&name], &error, remove),
                }
            }
        }
        Ok(())
    }
}

fn is_right(dir: &Dir, name: &OsStr, by_digest: bool) -> Result<()> {
    let bytes = regular::read_at(dir.file(), name, MAX_DOCUMENT)?;
    if by_digest {
        let digest = Digest::of(&bytes);
        ensure!(name == &*digest.hex(), "its digest is {digest}");
    } else {
        ensure!(digest_of(bytes).is_some(), "it holds no digest");
    }
    Ok(())
}

/// The digest that the file of a tag holds.
fn digest_of(tag: Vec<u8>) -> Option<Digest> {
    String::from_utf8(tag).ok()?.trim().parse().ok()
}
