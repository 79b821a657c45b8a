//! From a repository, a layout or an archive to a bundle.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use bundle::content::ContentHash;
use bundle::index::{FileEntry, Index};
use bundle::layer_at;
use bundle::signature::Key;
use bundle::staging::Staging;
use oci::artifact::Artifact;
use oci::{Access, ImageRef};

use crate::artifact;
use crate::artifact::media_type::{ARTIFACT_TYPE, TITLE};
use crate::artifact::unpack::ArtifactFile;
use crate::cache::store::Cache;

/// Where a bundle goes.
#[derive(Debug)]
pub struct PullTarget {
    /// The directory that the bundle is to be.
    pub output: PathBuf,
    /// Whether a bundle that is there is replaced.
    pub force: bool,
    /// Of which one must have signed it, if there are any.
    pub keys: Vec<Key>,
    /// Bytes of memory that each tree of the bundle may take.
    pub metadata_bytes: u64,
}

/// Brings the bundle that `from` names to `target`, from a registry or a layout.
/// Layers that the cache has are taken from there; `say` is told whom this waits for.
///
/// # Errors
/// It fails when the artifact cannot be fetched or is not a bundle, when the target has keys
/// and none of them signed it, and when the output cannot be made or replaced.
pub fn pull(
    from: &ImageRef,
    target: &PullTarget,
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
            Ok(ArtifactFile {
                path,
                media_type,
                size,
                open: Box::new(move || found.blob(descriptor)),
            })
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
pub(super) fn adopt(
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
    let hash = object.record.blake3;
    if ContentHash::Blake3(hash) != entry.content {
        return Ok(false);
    }
    let path = &entry.path;
    if staging.adopt(&object.file, hash, path)? {
        let adopted = staging.open(path).with_context(|| path.clone())?;
        if entry.content.check_file(&adopted).is_ok() {
            return Ok(true);
        }
        staging.discard(path).with_context(|| path.clone())?;
    }
    say(&format!("the cache's layer {diff_id} is damaged, and not used"));
    Ok(false)
}
