//! An image that was found: what it consists of, and the blobs of its layers.
//!
//! Manifest and config were checked when they were read, against the descriptors that led to
//! them. The blob of a layer can only be checked at its end, by whoever reads it
//! ([`Layer::check`]).

use std::io::Read;

use anyhow::{Result, anyhow, bail, ensure};
use fsimage::digest::Digest;
use oci_spec::image::ImageConfiguration;

use crate::json;
use crate::layer::{Layer, is_foreign};
use crate::platform::Platform;
use crate::store::Store;

/// One image, for one platform.
#[derive(Debug)]
pub struct Image {
    /// `None` in a classic docker-archive, which has no manifest to digest.
    pub manifest_digest: Option<Digest>,
    /// Digest of what the reference led to, which may be an index; None if the image is not in
    /// a registry.
    pub named_digest: Option<Digest>,
    /// Digest of the config: the image ID.
    pub config_digest: Digest,
    /// The image's config.
    pub config: ImageConfiguration,
    /// The platform that the image is for.
    pub platform: Platform,
    /// The layers, the lowest first.
    pub layers: Vec<Layer>,
    /// What had to be guessed, and what is not as it should be.
    pub warnings: Vec<String>,
    /// How the image was chosen, where there was a choice.
    pub note: Option<String>,
    pub(crate) store: Box<dyn Store>,
}

impl Image {
    /// The blob of layer `index`, as it is stored.
    ///
    /// # Errors
    /// When the blob is missing (a foreign layer's may be), cannot be opened, or has
    /// another size than its descriptor says.
    ///
    /// # Panics
    /// When the image has no layer `index`.
    pub fn blob(&self, index: usize) -> Result<Box<dyn Read + Send + '_>> {
        let layer = &self.layers[index];
        if is_foreign(&layer.media_type) && !self.store.has(&layer.key)? {
            let urls = match &layer.urls[..] {
                [] => "nowhere that its manifest tells".to_owned(),
                urls => json::shown_list(urls),
            };
            bail!(
                "the layer is foreign ({}): its bytes are not where the image is, but at {urls}; an \
                 image that was pushed or saved with its foreign layers has them",
                layer.media_type
            );
        }
        let opened = self.store.open(&layer.key)?;
        let (blob, size) = opened.ok_or_else(|| anyhow!("the blob is missing"))?;
        is_size(layer, size)?;
        Ok(blob)
    }

    /// By which factor the archive that holds the image grew when it was decompressed; 1 if it
    /// is not compressed as a whole.
    pub fn expanded(&self) -> u64 {
        self.store.expanded()
    }

    /// Refuses layer `index` if its blob is there and has another size than its descriptor
    /// says. Does nothing where it would take a request to know that.
    ///
    /// # Errors
    /// When the sizes differ, or what holds the image cannot be read.
    ///
    /// # Panics
    /// When the image has no layer `index`.
    pub fn check_size(&self, index: usize) -> Result<()> {
        let layer = &self.layers[index];
        self.store.size(&layer.key)?.map_or(Ok(()), |size| is_size(layer, size))
    }
}

fn is_size(layer: &Layer, size: u64) -> Result<()> {
    let told = layer.size;
    ensure!(size == told, "the blob has the size {size}, not {told}: it is cut or damaged");
    Ok(())
}
