//! A bundle to an artifact.

use std::fs::File;
use std::io::{self, BufWriter, Read as _, Seek as _, Write};

use anyhow::{Context as _, Result};
use bundle::SIGNATURE;
use bundle::content::ContentHash;
use bundle::open::OpenBundle;
use fsimage::digest::Digest;
use fsimage::io::threads;
use oci::media_type;
use rayon::iter::{IntoParallelRefIterator as _, ParallelIterator as _};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::sparse;
use crate::artifact::media_type::{
    ARTIFACT_TYPE, FILE_TYPE, INDEX_TYPE, SIGNATURE_TYPE, SPARSE_TYPE, TITLE,
};

/// zstd's own default: twice as small as none at all, and as fast as a disk.
const LEVEL: i32 = 3;

/// An artifact, of which all digests are known.
#[derive(Debug)]
pub struct Packed {
    /// The OCI manifest, as JSON.
    pub manifest: Vec<u8>,
    /// The config and the files, in the manifest's order.
    pub blobs: Vec<Blob>,
}

/// A blob of an artifact.
#[derive(Debug)]
pub struct Blob {
    /// SHA-256 of the blob.
    pub digest: Digest,
    /// Bytes of the blob.
    pub size: u64,
    /// A file that holds the blob and nothing else, to be read from its start.
    pub file: File,
    media_type: &'static str,
    /// Of the file that it is.
    path: Option<String>,
}

impl Blob {
    fn descriptor(&self) -> Value {
        let mut value = json!({
            "mediaType": self.media_type,
            "digest": self.digest.to_string(),
            "size": self.size,
        });
        if let Some(path) = &self.path {
            value["annotations"] = json!({ TITLE: path });
        }
        value
    }
}

/// Packs `bundle`. Blobs go to files of `scratch`; `subject` is the descriptor
/// of the image that the bundle is of, where both are in one repository.
///
/// # Errors
/// It fails when a file or the signature of the bundle cannot be read, or a blob cannot be
/// written.
pub fn pack(
    bundle: &OpenBundle,
    subject: Option<Value>,
    scratch: &(dyn Fn() -> Result<File> + Sync),
) -> Result<Packed> {
    let files = bundle.files();
    threads::pool()?;
    let packed: Result<Vec<Blob>> = files
        .par_iter()
        .map(|(path, file, content)| {
            let is_sparse = matches!(content, ContentHash::Blake3NonzeroBlocks(_));
            file_blob(path, file, is_sparse, scratch()?).with_context(|| (*path).to_owned())
        })
        .collect();
    let index = json_blob(INDEX_TYPE, &bundle.json, scratch()?)?;
    let mut files = packed?;
    if let Some(signature) = bundle.signature()? {
        let write = |out: &mut BufWriter<&File>| out.write_all(&signature);
        files.push(blob(SIGNATURE_TYPE, Some(SIGNATURE), scratch()?, write)?);
    }
    Packed::new(ARTIFACT_TYPE, index, files, subject)
}

impl Packed {
    /// An artifact of the type `artifact_type`.
    ///
    /// # Errors
    /// It fails when the manifest cannot be written as JSON.
    pub fn new(
        artifact_type: &str,
        config: Blob,
        files: Vec<Blob>,
        subject: Option<Value>,
    ) -> Result<Self> {
        let mut manifest = json!({
            "schemaVersion": 2,
            "mediaType": media_type::MANIFEST,
            "artifactType": artifact_type,
            "config": config.descriptor(),
            "layers": files.iter().map(Blob::descriptor).collect::<Vec<_>>(),
        });
        if let Some(subject) = subject {
            manifest["subject"] = subject;
        }
        let blobs = std::iter::once(config).chain(files).collect();
        Ok(Self { manifest: serde_json::to_vec(&manifest)?, blobs })
    }
}

/// A config.
///
/// # Errors
/// It fails when `scratch` cannot be written or read back.
pub fn json_blob(media_type: &'static str, json: &[u8], scratch: File) -> Result<Blob> {
    blob(media_type, None, scratch, |out| out.write_all(json))
}

/// A file of a bundle, compressed into `scratch`.
///
/// # Errors
/// It fails when `file` cannot be read, or `scratch` cannot be written or read back.
pub fn file_blob(path: &str, file: &File, is_sparse: bool, scratch: File) -> Result<Blob> {
    let media_type = if is_sparse { SPARSE_TYPE } else { FILE_TYPE };
    blob(media_type, Some(path), scratch, |out| {
        let mut out = zstd::Encoder::new(out, LEVEL)?;
        out.include_checksum(false)?;
        match is_sparse {
            true => sparse::write(file, &mut out)?,
            false => {
                let mut file = file.try_clone()?;
                file.rewind()?;
                io::copy(&mut file, &mut out)?;
            }
        }
        out.finish()?;
        Ok(())
    })
}

fn blob(
    media_type: &'static str,
    path: Option<&str>,
    file: File,
    write: impl FnOnce(&mut BufWriter<&File>) -> io::Result<()>,
) -> Result<Blob> {
    let mut out = BufWriter::with_capacity(1 << 20, &file);
    write(&mut out)?;
    out.flush()?;
    drop(out);
    let size = file.metadata()?.len();
    let mut reader = &file;
    reader.rewind()?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        let n = reader.read(&mut buffer)?;
        if n == 0 {
            break;
        }
        hasher.update(&buffer[..n]);
    }
    reader.rewind()?;
    let digest = Digest::from_hasher(hasher);
    Ok(Blob { digest, size, file, media_type, path: path.map(str::to_owned) })
}
