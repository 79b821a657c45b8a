//! The remote layer cache: compiled layers in a registry, shared by machines that build the
//! same ones.
//!
//! Each is an artifact of its own, whose tag consists of format version and diff ID. That an
//! object has the content of its diff ID could only be checked by compiling the layer: whoever
//! names such a repository trusts everybody who may write there. Everything else is checked,
//! and a layer that fails a check is compiled.

use std::collections::BTreeMap;
use std::io;

use anyhow::{Context as _, Result, ensure};
use bundle::layer_path;
use fsimage::budget::EXPANSION;
use fsimage::digest::{Blake3, DiffId};
use fsimage::erofs::layer::FORMAT_VERSION;
use fsimage::io::sink;
use fsimage::tree::Tree;
use fsimage::tree::extents::Extents;
use oci::artifact::Artifact;
use oci::{ImageRef, NotThere, Reference, Repository, media_type};
use serde::{Deserialize, Serialize};

use crate::artifact;
use crate::artifact::pack::{Packed, file_blob, json_blob};
use crate::build::context::Build;
use crate::build::object::{Ready, read_object};
use crate::build::request::Request;
use crate::cache::store::{Cache, Object, Slot};
use crate::layer::limits::Budgets;
use crate::progress::{Event, Reporter};

const ARTIFACT_TYPE: &str = "application/vnd.rootfs-compile.layer.v1";
const RECORD_TYPE: &str = "application/vnd.rootfs-compile.layer.record.v1+json";

/// The config of such an artifact: the description of an object.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SharedRecord {
    format: u32,
    diff_id: DiffId,
    /// Bytes of the object.
    size: u64,
    /// BLAKE3 of the object.
    blake3: Blake3,
    /// Bytes of the layer's tar stream.
    uncompressed: u64,
}

/// The reference to a layer's object in `repository`.
fn name(repository: &Reference, diff_id: DiffId) -> Reference {
    repository.with_tag(format!("v{FORMAT_VERSION}-{}", diff_id.hex()))
}

/// Gets a layer's object from the first repository that has it undamaged. What goes wrong is a
/// warning.
pub(super) fn fetch(
    build: &Build<'_>,
    diff_id: DiffId,
    slot: &Slot,
) -> Option<(Object, Tree<Extents>)> {
    let Build { request, budgets, reporter, .. } = *build;
    if request.access.offline {
        return None;
    }
    for repository in &request.cache_from {
        match fetch_from(request, budgets, &name(repository, diff_id), diff_id, slot) {
            Ok(object) => return Some(object),
            Err(error) if error.is::<NotThere>() => {}
            Err(error) => {
                let text = format!("{repository} gives no layer {diff_id}: {error:#}");
                reporter.event(Event::Warning(text));
            }
        }
    }
    None
}

fn fetch_from(
    request: &Request,
    budgets: &Budgets,
    name: &Reference,
    diff_id: DiffId,
    slot: &Slot,
) -> Result<(Object, Tree<Extents>)> {
    let found =
        Artifact::open(&ImageRef::from(name.clone()), &request.registries(), ARTIFACT_TYPE)?;
    let record: SharedRecord =
        oci::foreign_json::from_slice(&found.config()?).context("its record")?;
    ensure!(
        (record.format, record.diff_id) == (FORMAT_VERSION, diff_id),
        "it is the object of another layer"
    );
    let [descriptor] = &found.manifest.layers[..] else {
        anyhow::bail!("it has {} blobs, not 1", found.manifest.layers.len());
    };
    let (is, most) = (descriptor.size, artifact::largest_blob(record.size));
    ensure!(is <= most, "its blob has {is} bytes; {most} would be enough");
    let beyond = record.size.saturating_sub(is.saturating_mul(EXPANSION));
    budgets.offered.take(beyond).ok().context(
        "its blob expands to more than such layers together may (raise --max-expansion-bytes to \
         allow it)",
    )?;
    let mut blob = found.blob(descriptor)?;
    let made = slot.create()?;
    let file = made.file().try_clone()?;
    let mut stream = zstd::Decoder::new(&mut blob).context("zstd")?;
    let (_, hash, copied) = sink::copy(&mut stream, record.size.saturating_add(1), file)?;
    drop(stream);
    io::copy(&mut blob, &mut io::sink())?;
    ensure!(copied == record.size, "its object does not have the {} bytes it should", record.size);
    ensure!(hash == record.blake3, "its content is damaged");
    let object = slot.publish(made, hash, record.uncompressed)?;
    // Half of the memory that is left stays for layers that are compiled at the same time.
    let left = budgets.metadata.limit().saturating_sub(budgets.metadata.used());
    let tree = read_object(&object, budgets, left / 2)?;
    Ok((object, tree))
}

/// Sends the layers that the repositories lack. A failure is a warning, and does not end the
/// build.
pub(super) fn send(
    request: &Request,
    ready: &BTreeMap<DiffId, Ready>,
    cache: &Cache,
    reporter: &dyn Reporter,
) {
    for repository in &request.cache_to {
        for (diff_id, layer) in ready {
            if let Err(error) =
                send_to(request, &name(repository, *diff_id), *diff_id, layer, cache)
            {
                let text = format!("{repository} does not take the layer {diff_id}: {error:#}");
                reporter.event(Event::Warning(text));
            }
        }
    }
}

fn send_to(
    request: &Request,
    name: &Reference,
    diff_id: DiffId,
    layer: &Ready,
    cache: &Cache,
) -> Result<()> {
    let repository = Repository::open(name, &request.registries())?;
    if repository.is_named()? {
        return Ok(());
    }
    let record = SharedRecord {
        format: FORMAT_VERSION,
        diff_id,
        size: layer.size,
        blake3: layer.blake3,
        uncompressed: layer.uncompressed,
    };
    let json = serde_json::to_vec(&record)?;
    let config = json_blob(RECORD_TYPE, &json, cache.scratch()?)?;
    let object = file_blob(&layer_path(diff_id), &layer.file, false, cache.scratch()?)?;
    let packed = Packed::new(ARTIFACT_TYPE, config, vec![object], None)?;
    for blob in &packed.blobs {
        if !repository.has(blob.digest)? {
            repository.send(blob.digest, blob.size, &blob.file)?;
        }
    }
    repository.name(&packed.manifest, media_type::MANIFEST)
}
