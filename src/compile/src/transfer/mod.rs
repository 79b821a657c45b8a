//! Bundles on their way: to a registry, to a layout, and back.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, anyhow, ensure};
use bundle::content::Content;
use bundle::index::{FileEntry, Index};
use bundle::layer_at;
use bundle::open::{OpenBundle, Place};
use bundle::seal::MAX_INDEX;
use bundle::signature::Key;
use bundle::sound::Depth;
use bundle::staging::Staging;
use fsimage::digest::Digest;
use fsimage::io::regular;
use fsimage::io::temporary::{self, Temporary};
use oci::artifact::Artifact;
use oci::{Access, ImageRef, Repository};
use oci_spec::distribution::Reference;
use serde_json::json;

use crate::artifact::{self, ARTIFACT_TYPE, MANIFEST_TYPE, Packed, Piece, TITLE, json_blob};
use crate::cache::Cache;
use crate::provenance;

mod layout;
mod raw;
mod tarball;

pub use self::layout::{to_archive, to_layout};
pub use self::raw::to_raw;
pub use self::tarball::to_tar;

// A bundle that can be written can be pushed, and what was pushed can be pulled.
const _: () = assert!(MAX_INDEX <= oci::MAX_DOCUMENT);

/// What a push did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pushed {
    pub blobs: usize,
    /// Blobs that were sent; the registry had the others.
    pub sent: usize,
    /// Bytes of those that were sent.
    pub bytes: u64,
}

/// Sends the bundle `dir` to a registry, under the name `to`; and the statement
/// `provenance` about it, which can be found from there.
pub fn push(
    place: Place,
    to: &Reference,
    cache: &Cache,
    access: &Access,
    provenance: Option<&Path>,
) -> Result<Pushed> {
    ensure!(!access.offline, "--offline forbids to connect to {}", to.registry());
    ensure!(to.digest().is_none(), "a bundle is pushed under a tag, and not under a digest");
    let bundle = OpenBundle::open_found(place, Depth::Full)?;
    let statement = provenance.map(|path| {
        let read = || -> Result<Vec<u8>> {
            let bytes = regular::bytes(&File::open(path)?, MAX_INDEX)?;
            provenance::check(&bytes, &bundle.json)?;
            Ok(bytes)
        };
        read().with_context(|| path.display().to_string())
    });
    let statement = statement.transpose()?;
    let send = || -> Result<Pushed> {
        let repository = Repository::open(to, access)?;
        let packed =
            artifact::pack(&bundle, subject(&bundle, to, &repository)?, &|| cache.scratch())?;
        bundle.unchanged()?;
        let mut pushed = Pushed::default();
        pushed.send(&repository, &packed)?;
        repository.name(&packed.manifest, MANIFEST_TYPE)?;
        if let Some(statement) = &statement {
            let about = about(&packed, statement, cache)?;
            pushed.send(&repository, &about)?;
            repository.refer(&about.manifest, MANIFEST_TYPE)?;
        }
        Ok(pushed)
    };
    send().with_context(|| to.to_string())
}

impl Pushed {
    /// Sends what the repository lacks of the blobs of `packed`.
    fn send(&mut self, repository: &Repository, packed: &Packed) -> Result<()> {
        for blob in &packed.blobs {
            self.blobs += 1;
            if !repository.has(blob.digest)? {
                repository.send(blob.digest, blob.size, &blob.file)?;
                self.sent += 1;
                self.bytes += blob.size;
            }
        }
        Ok(())
    }
}

/// The artifact that is `statement` about `packed`.
fn about(packed: &Packed, statement: &[u8], cache: &Cache) -> Result<Packed> {
    let subject = json!({
        "mediaType": MANIFEST_TYPE,
        "digest": Digest::of(&packed.manifest).to_string(),
        "size": packed.manifest.len(),
    });
    // What OCI has for artifacts that need no config.
    let config = json_blob("application/vnd.oci.empty.v1+json", b"{}", cache.scratch()?)?;
    let statement = json_blob(provenance::STATEMENT_TYPE, statement, cache.scratch()?)?;
    Packed::new(provenance::STATEMENT_TYPE, config, vec![statement], Some(subject))
}

/// The image that the bundle was made of, if `to` is the repository that it is in.
fn subject(
    bundle: &OpenBundle,
    to: &Reference,
    repository: &Repository,
) -> Result<Option<serde_json::Value>> {
    let image = bundle.index.image.reference.parse::<ImageRef>().ok();
    let name = image.and_then(|image| image.name);
    let (Some(name), Some(digest)) = (name, bundle.index.image.manifest_digest) else {
        return Ok(None);
    };
    if (name.registry(), name.repository()) != (to.registry(), to.repository()) {
        return Ok(None);
    }
    let Some(bytes) = repository.manifest(digest)? else {
        return Ok(None);
    };
    let value: serde_json::Value = oci::foreign_json::from_slice(&bytes)?;
    let media_type = value["mediaType"].as_str().unwrap_or(MANIFEST_TYPE);
    let size = bytes.len();
    Ok(Some(json!({ "mediaType": media_type, "digest": digest.to_string(), "size": size })))
}

/// Packs the bundle `dir` for a layout.
fn pack(place: Place, cache: &Cache) -> Result<Packed> {
    let bundle = OpenBundle::open_found(place, Depth::Full)?;
    let packed = artifact::pack(&bundle, None, &|| cache.scratch())?;
    bundle.unchanged()?;
    Ok(packed)
}

/// Where a bundle goes.
pub struct Target {
    pub output: PathBuf,
    pub force: bool,
    /// Of which one must have signed it, if there are any.
    pub keys: Vec<Key>,
    /// Bytes of memory that each tree of the bundle may take.
    pub metadata_bytes: u64,
}

/// Brings the bundle that `from` names to `target`, from a registry or a layout.
/// Layers that the cache has are taken from there; `say` is told whom this waits for.
pub fn pull(
    from: &ImageRef,
    target: &Target,
    cache: &Cache,
    access: &Access,
    say: &(dyn Fn(&str) + Sync),
) -> Result<Index> {
    let bring = || -> Result<Index> {
        let found = Artifact::open(from, access, ARTIFACT_TYPE)?;
        let json = found.config()?;
        let staging = Staging::new(&target.output, target.force)?;
        let pieces = found.manifest.layers.iter().map(|descriptor| {
            let title = descriptor.annotations.get(TITLE);
            let path = title.context("a blob of the artifact has no title")?.clone();
            let media_type = descriptor.media_type.clone();
            let found = &found;
            let size = descriptor.size;
            Ok(Piece { path, media_type, size, open: Box::new(move || found.blob(descriptor)) })
        });
        let pieces = pieces.collect::<Result<Vec<_>>>()?;
        let adopt = |entry: &FileEntry| adopt(cache, &staging, entry, say);
        let (keys, memory) = (&target.keys, target.metadata_bytes);
        let index = artifact::unpack(&json, pieces, &staging, &adopt, keys, memory)?;
        staging.publish(target.force)?;
        Ok(index)
    };
    bring().with_context(|| from.to_string())
}

/// Takes a layer from the cache, if it is the one that the bundle has.
fn adopt(
    cache: &Cache,
    staging: &Staging,
    entry: &FileEntry,
    say: &(dyn Fn(&str) + Sync),
) -> Result<bool> {
    // An index has no other files that are called so than those of its layers.
    let Some(diff_id) = layer_at(&entry.path) else {
        return Ok(false);
    };
    let slot = cache.slot(diff_id, say)?;
    let Some(object) = slot.object()? else {
        return Ok(false);
    };
    let hash = object.record.blake3.0;
    if Content::Blake3(hash.to_hex().to_string()) != entry.content {
        return Ok(false);
    }
    let path = &entry.path;
    if staging.adopt(&object.file, &hash, path)? {
        let adopted = staging.open(path).with_context(|| path.clone())?;
        if entry.content.check_file(&adopted).is_ok() {
            return Ok(true);
        }
        staging.discard(path).with_context(|| path.clone())?;
    }
    say(&format!("the cache's layer {diff_id} is damaged, and not used"));
    Ok(false)
}

/// Makes a new file at `path`, which appears whole or not at all; one that is
/// there stays as it is.
fn new_file(path: &Path, write: impl FnOnce(&File) -> Result<()>) -> Result<()> {
    let there = || anyhow!("{} is there; it stays as it is", path.display());
    let make = || -> Result<()> {
        let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty());
        let dir = dir.unwrap_or(Path::new("."));
        temporary::remove_left(dir)?;
        let file = Temporary::create(dir, 0o644)?;
        write(file.file())?;
        file.file().sync_all()?;
        match file.persist_new(path) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Err(there()),
            persisted => Ok(persisted.map(drop)?),
        }
    };
    // Again at the end: this only saves the work.
    if fs::symlink_metadata(path).is_ok() {
        return Err(there());
    }
    make().with_context(|| path.display().to_string())
}
