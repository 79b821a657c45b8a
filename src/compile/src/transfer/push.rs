//! From a bundle to a repository.

use std::fs::File;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use bundle::open::OpenBundle;
use bundle::opened::Place;
use bundle::seal::MAX_INDEX;
use bundle::sound::Depth;
use fsimage::digest::Digest;
use fsimage::io::regular;
use oci::{Access, ImageRef, Reference, Repository, media_type};
use serde_json::json;

use crate::artifact::pack::{Packed, json_blob};
use crate::cache::store::Cache;
use crate::{artifact, provenance};

/// What a push did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pushed {
    /// Blobs of all that was pushed: of the bundle, and of the statement if there is one.
    pub blobs: usize,
    /// Blobs that were sent; the registry had the others.
    pub sent: usize,
    /// Bytes of those that were sent.
    pub bytes: u64,
}

/// Sends the bundle `dir` to a registry, under the name `to`; and the statement
/// `provenance` about it, which can be found from there.
///
/// # Errors
/// It fails when `access` is offline, `to` has a digest, the bundle is not sound or changes
/// meanwhile, the statement is not about it, or the registry cannot be reached or refuses a
/// blob.
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
        repository.name(&packed.manifest, media_type::MANIFEST)?;
        if let Some(statement) = &statement {
            let about = about(&packed, statement, cache)?;
            pushed.send(&repository, &about)?;
            repository.refer(&about.manifest, media_type::MANIFEST)?;
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
pub(super) fn about(packed: &Packed, statement: &[u8], cache: &Cache) -> Result<Packed> {
    let subject = json!({
        "mediaType": media_type::MANIFEST,
        "digest": Digest::of(&packed.manifest).to_string(),
        "size": packed.manifest.len(),
    });
    // What OCI has for artifacts that need no config.
    let config = json_blob(media_type::EMPTY, b"{}", cache.scratch()?)?;
    let statement = json_blob(provenance::STATEMENT_TYPE, statement, cache.scratch()?)?;
    Packed::new(provenance::STATEMENT_TYPE, config, vec![statement], Some(subject))
}

/// The image that the bundle was made of, if `to` is the repository that it is in.
pub(super) fn subject(
    bundle: &OpenBundle,
    to: &Reference,
    repository: &Repository,
) -> Result<Option<serde_json::Value>> {
    let image = bundle.index.image.reference.parse::<ImageRef>().ok();
    let name = image.as_ref().and_then(ImageRef::registry_name);
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
    let own = value["mediaType"].as_str().unwrap_or(media_type::MANIFEST);
    let size = bytes.len();
    Ok(Some(json!({ "mediaType": own, "digest": digest.to_string(), "size": size })))
}

/// Packs the bundle `dir` for a layout.
pub(super) fn pack(place: Place, cache: &Cache) -> Result<Packed> {
    let bundle = OpenBundle::open_found(place, Depth::Full)?;
    let packed = artifact::pack(&bundle, None, &|| cache.scratch())?;
    bundle.unchanged()?;
    Ok(packed)
}
