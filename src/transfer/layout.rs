//! Bundles in OCI layouts, as directories and as archives.

use std::fs;
use std::io;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use super::{new_file, pack};
use crate::bundle::artifact::{ARTIFACT_TYPE, MANIFEST_TYPE, Packed};
use crate::cache::Cache;
use crate::digest::Digest;
use crate::source::REF_NAME;
use crate::whole;

const VERSION: &str = r#"{"imageLayoutVersion":"1.0.0"}"#;

/// The entry of an index for `packed`.
fn entry(packed: &Packed, tag: &str) -> Value {
    json!({
        "mediaType": MANIFEST_TYPE,
        "artifactType": ARTIFACT_TYPE,
        "digest": Digest::of(&packed.manifest).to_string(),
        "size": packed.manifest.len(),
        "annotations": { REF_NAME: tag },
    })
}

fn index(entries: Vec<Value>) -> Result<Vec<u8>> {
    let media_type = "application/vnd.oci.image.index.v1+json";
    let value = json!({ "schemaVersion": 2, "mediaType": media_type, "manifests": entries });
    Ok(serde_json::to_vec(&value)?)
}

/// Puts the bundle `dir` into the layout `to`, which may be there already, under
/// `tag`, which it takes from what had it.
pub fn to_layout(dir: &Path, to: &Path, tag: &str, cache: &Cache) -> Result<()> {
    let packed = pack(dir, cache)?;
    let write = || -> Result<()> {
        let blobs = to.join("blobs/sha256");
        let known = to.join("index.json");
        let mut entries = match fs::read(&known) {
            Ok(bytes) => {
                let value: Value = serde_json::from_slice(&bytes).context("index.json")?;
                value["manifests"].as_array().cloned().context("index.json is no index")?
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let empty = !to.exists() || fs::read_dir(to)?.next().is_none();
                ensure!(empty, "it is there, and is neither empty nor a layout; it stays as it is");
                Vec::new()
            }
            Err(error) => return Err(error.into()),
        };
        fs::create_dir_all(&blobs)?;
        for blob in &packed.blobs {
            // One that is there may be damaged.
            whole::write(&blobs.join(blob.digest.hex()), &mut &blob.file)?;
        }
        let manifest = blobs.join(Digest::of(&packed.manifest).hex());
        whole::write(&manifest, &mut &packed.manifest[..])?;
        whole::write(&to.join("oci-layout"), &mut VERSION.as_bytes())?;
        entries.retain(|entry| entry["annotations"][REF_NAME].as_str() != Some(tag));
        entries.push(entry(&packed, tag));
        // Last, because it makes the rest count.
        Ok(whole::write(&known, &mut &index(entries)?[..])?)
    };
    write().with_context(|| to.display().to_string())
}

/// Writes the bundle `dir` to the new archive `to`, a layout in a tar, under `tag`.
pub fn to_archive(dir: &Path, to: &Path, tag: &str, cache: &Cache) -> Result<()> {
    let packed = pack(dir, cache)?;
    new_file(to, |out| {
        let mut archive = tar::Builder::new(io::BufWriter::with_capacity(1 << 20, out));
        let bytes = |archive: &mut tar::Builder<_>, name: &str, bytes: &[u8]| {
            append(archive, name, bytes.len() as u64, bytes)
        };
        bytes(&mut archive, "oci-layout", VERSION.as_bytes())?;
        bytes(&mut archive, "index.json", &index(vec![entry(&packed, tag)])?)?;
        let name = |digest: Digest| format!("blobs/sha256/{}", digest.hex());
        bytes(&mut archive, &name(Digest::of(&packed.manifest)), &packed.manifest)?;
        let mut done = Vec::new();
        for blob in &packed.blobs {
            if !done.contains(&blob.digest) {
                append(&mut archive, &name(blob.digest), blob.size, &blob.file)?;
                done.push(blob.digest);
            }
        }
        archive.into_inner()?.into_inner().map_err(|error| error.into_error())?;
        Ok(())
    })
}

fn append<W: io::Write>(
    archive: &mut tar::Builder<W>,
    name: &str,
    size: u64,
    from: impl io::Read,
) -> Result<()> {
    let mut header = tar::Header::new_ustar();
    header.set_size(size);
    header.set_mode(0o644);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    archive.append_data(&mut header, name, from)?;
    Ok(())
}
