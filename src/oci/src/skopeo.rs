//! What `skopeo copy … dir:DIR` writes: `manifest.json`, and blobs by the hex of
//! their digests.

use std::io::{self, Cursor, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use fsimage::digest::Digest;
use fsimage::io::regular;

use crate::blob::digest_of;
use crate::layout;
use crate::store::{self, MAX_DOCUMENT, Store};

/// Such a directory, as a store of a layout.
pub(crate) struct SkopeoDir {
    dir: PathBuf,
    manifest: Digest,
    index: Vec<u8>,
}

impl SkopeoDir {
    pub(crate) fn open(dir: &Path) -> Result<Self> {
        let file = match regular::open_followed(&dir.join("manifest.json")) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                bail!("it is not a directory of skopeo's: manifest.json is missing")
            }
            opened => opened.context("manifest.json")?,
        };
        let bytes = regular::bytes(&file, MAX_DOCUMENT).context("manifest.json")?;
        let manifest = Digest::of(&bytes);
        let index = layout::index_of(&bytes, manifest, None)?;
        Ok(Self { dir: dir.to_owned(), manifest, index })
    }
}

impl Store for SkopeoDir {
    fn open(&self, name: &str) -> Result<Option<(Box<dyn Read + Send + '_>, u64)>> {
        let made = match name {
            "index.json" => Some(&self.index[..]),
            "oci-layout" => Some(layout::VERSION),
            _ => None,
        };
        if let Some(bytes) = made {
            return Ok(Some((Box::new(Cursor::new(bytes)), bytes.len() as u64)));
        }
        let Some(digest) = digest_of(name) else {
            return Ok(None);
        };
        let mut names = vec![digest.hex(), format!("{}.manifest.json", digest.hex())];
        if digest == self.manifest {
            names = vec!["manifest.json".into()];
        }
        for name in names {
            if let Some(found) = store::file(&self.dir.join(name))? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }
}
