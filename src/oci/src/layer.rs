//! The layers of an image, as its manifest and its config describe them.

use anyhow::{Result, anyhow, bail, ensure};
use fsimage::digest::{DiffId, Digest};
use oci_spec::image::ImageConfiguration;

use crate::json;
use crate::media_type::DOCKER_LAYER;
use crate::store::Key;

/// The most layers of an image: each is a device of one EROFS, which has 16 bits for their
/// numbers.
const MAX_LAYERS: usize = 65_535;

/// A layer as the image describes it.
#[derive(Clone, Debug)]
pub struct Layer {
    /// Digest of the uncompressed tar stream, as the config has it.
    pub diff_id: DiffId,
    /// Digest of the blob; a classic docker-archive has none.
    pub digest: Option<Digest>,
    /// Bytes of the blob.
    pub size: u64,
    /// Media type of the blob; that of docker's tar layers in a classic docker-archive.
    pub media_type: String,
    /// The store's key for the blob.
    pub(crate) key: Key,
    /// URLs of the blob, which manifests give for foreign layers.
    pub(crate) urls: Vec<String>,
}

impl Layer {
    /// The layer's name in messages and progress: the digest of its blob, else its diff ID.
    pub fn label(&self) -> String {
        self.digest.unwrap_or(self.diff_id.digest()).to_string()
    }

    /// Compares the blob that was read with what the manifest says.
    ///
    /// # Errors
    /// When the size differs, or the digest does where one is known.
    pub fn check(&self, digest: Digest, size: u64) -> Result<()> {
        ensure!(size == self.size, "the blob has {size} bytes, not {}", self.size);
        match self.digest {
            Some(expected) if expected != digest => {
                bail!("the blob has the digest {digest}, not {expected}: it is damaged")
            }
            _ => Ok(()),
        }
    }
}

/// The config's diff IDs, of which there must be as many as layers.
pub(crate) fn diff_ids(config: &ImageConfiguration, layers: usize) -> Result<Vec<DiffId>> {
    let diff_ids = config.rootfs().diff_ids();
    ensure!(layers <= MAX_LAYERS, "it has {layers} layers; an image has at most {MAX_LAYERS}");
    ensure!(
        diff_ids.len() == layers,
        "the manifest has {layers} layers, but the config has {} diff IDs",
        diff_ids.len()
    );
    let bad = |id| anyhow!("the diff ID \"{}\" is not sha256: and 64 hex digits", json::shown(id));
    diff_ids.iter().map(|id| id.parse().map_err(|_| bad(id))).collect()
}

/// Refuses a layer whose media type is not that of a tar that can be read here.
pub(crate) fn known_layer(media_type: &str) -> Result<()> {
    let what = match media_type {
        "application/vnd.oci.image.layer.v1.tar"
        | "application/vnd.oci.image.layer.v1.tar+gzip"
        | "application/vnd.oci.image.layer.v1.tar+zstd"
        | DOCKER_LAYER
        | "application/vnd.docker.image.rootfs.diff.tar.gzip"
        | "application/vnd.docker.image.rootfs.diff.tar.zstd" => return Ok(()),
        foreign if is_foreign(foreign) => return Ok(()),
        "" => bail!("it has no media type"),
        other if other.contains("encrypted") => "is encrypted",
        _ => "is not known",
    };
    bail!("the media type {} {what}", json::shown(media_type))
}

/// Whether a layer is foreign (nondistributable), so that its blob need not be where the
/// image is. If the blob is there, the layer is like any other.
pub(crate) fn is_foreign(media_type: &str) -> bool {
    matches!(
        media_type,
        "application/vnd.oci.image.layer.nondistributable.v1.tar"
            | "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"
            | "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd"
            | "application/vnd.docker.image.rootfs.foreign.diff.tar"
            | "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
            | "application/vnd.docker.image.rootfs.foreign.diff.tar.zstd"
    )
}
