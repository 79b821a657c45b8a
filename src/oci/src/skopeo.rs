//! What `skopeo copy … dir:DIR` writes: `manifest.json`, and blobs by the hex of
//! their digests.

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use fsimage::digest::Digest;
use fsimage::io::regular;

use crate::document::Descriptor;
use crate::layout;
use crate::store::{self, Key, MAX_DOCUMENT, Store};

/// A directory as skopeo writes it, read like a layout.
#[derive(Debug)]
pub(crate) struct SkopeoDir {
    dir: PathBuf,
    manifest: Descriptor,
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
        let manifest = layout::entry_of(&bytes, Digest::of(&bytes), None)?;
        Ok(Self { dir: dir.to_owned(), manifest })
    }
}

impl Store for SkopeoDir {
    fn open(&self, key: &Key) -> Result<Option<(Box<dyn Read + Send + '_>, u64)>> {
        let Key::Blob(digest) = *key else {
            return Ok(None);
        };
        let mut names = vec![digest.hex(), format!("{}.manifest.json", digest.hex())];
        if digest == self.manifest.digest {
            names = vec!["manifest.json".into()];
        }
        for name in names {
            if let Some(found) = store::file(&self.dir.join(name))? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    fn entry(&self) -> Option<&Descriptor> {
        Some(&self.manifest)
    }
}
