//! Bundles in OCI layouts, as directories and as archives.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use anyhow::{Context as _, Result, bail, ensure};
use bundle::opened::Place;
use fsimage::digest::Digest;
use fsimage::io::{atomic_file, dir, flock, regular, temporary};
use oci::layout_file::{self, INDEX, LAYOUT, LAYOUT_JSON};
use oci::{MAX_DOCUMENT, REF_NAME, media_type};
use serde_json::{Value, json};

use crate::artifact::media_type::ARTIFACT_TYPE;
use crate::artifact::pack::Packed;
use crate::cache::store::Cache;
use crate::transfer::new_file::new_file;
use crate::transfer::push::pack;

/// The entry of an index for `packed`.
fn entry(packed: &Packed, tag: &str) -> Value {
    json!({
        "mediaType": media_type::MANIFEST,
        "artifactType": ARTIFACT_TYPE,
        "digest": Digest::of(&packed.manifest).to_string(),
        "size": packed.manifest.len(),
        "annotations": { REF_NAME: tag },
    })
}

fn empty_index() -> Value {
    json!({ "schemaVersion": 2, "mediaType": media_type::INDEX, "manifests": [] })
}

/// Puts `entry` into `index`, in place of an older bundle that has its tag.
fn enter(index: &mut Value, entry: Value) -> Result<()> {
    // To index what is not an object would panic.
    let entries = index.get_mut("manifests").and_then(Value::as_array_mut);
    let entries = entries.context("index.json is not an index")?;
    let tag = |entry: &Value| entry["annotations"][REF_NAME].as_str().map(str::to_owned);
    let ours = tag(&entry);
    if let Some(other) =
        entries.iter().find(|e| tag(e) == ours && e["artifactType"] != ARTIFACT_TYPE)
    {
        let (tag, media_type) = (ours.unwrap_or_default(), &other["mediaType"]);
        bail!(
            "its tag {tag} leads to something that is not a bundle ({media_type}): --tag gives another"
        );
    }
    entries.retain(|entry| tag(entry) != ours);
    entries.push(entry);
    Ok(())
}

/// Puts the bundle `dir` into the layout `to`, which may be there already, under
/// `tag`, which it takes from an older bundle. `say` is told whom this waits for.
///
/// # Errors
/// It fails when the bundle is not sound, when `to` holds something else than a layout or has
/// `tag` on something else than a bundle, and when it cannot be locked or written.
pub fn to_layout(
    place: Place,
    to: &Path,
    tag: &str,
    cache: &Cache,
    say: &(dyn Fn(&str) + Sync),
) -> Result<()> {
    let packed = pack(place, cache)?;
    let write = || -> Result<()> {
        fs::create_dir_all(to)?;
        // Whoever else writes to it waits, until this one's entry is in the index.
        let layout = File::open(to)?;
        flock::wait(
            &layout,
            flock::LockKind::Exclusive,
            &format!("the layout {}", to.display()),
            say,
        )?;
        // Only the name of the layout itself was given: below it, no link is followed.
        let mut index = match regular::read_at(&layout, INDEX, MAX_DOCUMENT) {
            Ok(bytes) => oci::foreign_json::from_slice(&bytes).context(INDEX)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let is_empty = dir::names_in(&layout)?.is_empty();
                ensure!(is_empty, "it is neither empty nor a layout; it stays as it is");
                // Should this be stopped half-way, it is a layout for the next one.
                atomic_file::write_in(
                    &layout,
                    INDEX,
                    &mut &serde_json::to_vec(&empty_index())?[..],
                )?;
                empty_index()
            }
            Err(error) => return Err(error).context(INDEX),
        };
        enter(&mut index, entry(&packed, tag))?;
        let blobs = dir::make_dir(&layout, "blobs", 0o777).context("blobs")?;
        let blobs = dir::make_dir(&blobs, "sha256", 0o777).context("blobs/sha256")?;
        for dir in [&layout, &blobs] {
            temporary::remove_left_in(dir)?;
        }
        let blob = |digest: Digest, from: &mut dyn io::Read| -> Result<()> {
            let name = digest.hex();
            atomic_file::write_in(&blobs, &name, from)
                .with_context(|| format!("blobs/sha256/{name}"))
        };
        for packed in &packed.blobs {
            // One that is there may be damaged.
            blob(packed.digest, &mut &packed.file)?;
        }
        blob(Digest::of(&packed.manifest), &mut &packed.manifest[..])?;
        atomic_file::write_in(&layout, LAYOUT, &mut &*LAYOUT_JSON)?;
        // Last, because it makes the rest count.
        Ok(atomic_file::write_in(&layout, INDEX, &mut &serde_json::to_vec(&index)?[..])?)
    };
    write().with_context(|| to.display().to_string())
}

/// Writes the bundle `dir` to the new archive `to`, a layout in a tar, under `tag`.
///
/// # Errors
/// It fails when the bundle is not sound or changes meanwhile, and when `to` is there already
/// or cannot be written.
pub fn to_archive(place: Place, to: &Path, tag: &str, cache: &Cache) -> Result<()> {
    let packed = pack(place, cache)?;
    new_file(to, |out| {
        let mut archive = tar::Builder::new(io::BufWriter::with_capacity(1 << 20, out));
        let bytes = |archive: &mut tar::Builder<_>, name: &str, bytes: &[u8]| {
            append(archive, name, bytes.len() as u64, bytes)
        };
        bytes(&mut archive, LAYOUT, LAYOUT_JSON)?;
        let mut index = empty_index();
        enter(&mut index, entry(&packed, tag))?;
        bytes(&mut archive, INDEX, &serde_json::to_vec(&index)?)?;
        bytes(&mut archive, &layout_file::blob(Digest::of(&packed.manifest)), &packed.manifest)?;
        let mut done = Vec::new();
        for blob in &packed.blobs {
            if !done.contains(&blob.digest) {
                append(&mut archive, &layout_file::blob(blob.digest), blob.size, &blob.file)?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_an_index_gets_no_entry() {
        for value in [json!([]), json!(7), json!(null), json!({}), json!({ "manifests": {} })] {
            let mut index = value.clone();
            let error = enter(&mut index, json!({})).unwrap_err().to_string();
            assert_eq!((error.as_str(), index), ("index.json is not an index", value));
        }
    }
}
