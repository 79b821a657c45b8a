//! Images where they are: which one is meant, what it consists of, its blobs.
//!
//! Everything read here is checked against the digest and size that led to it.
//! A layer's blob is checked by whoever reads it to its end.

pub mod artifact;
mod daemon;
mod docker;
mod layout;
pub mod registry;
mod skopeo;
mod store;

use std::io::Read;

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use oci_spec::image::ImageConfiguration;

pub use self::layout::REF_NAME;
use self::registry::RegistryStore;
pub use self::registry::{Access, NotThere, Repository};
use self::skopeo::SkopeoDir;
use self::store::{DirStore, Store, TarStore};
use crate::digest::{DiffId, Digest};
use crate::manifest::{ImageRef, Platform, Transport};

/// One image, for one platform.
pub struct Image {
    /// `None` in a classic docker-archive, which has no manifest to digest.
    pub manifest_digest: Option<Digest>,
    /// Digest of the config: the image ID.
    pub config_digest: Digest,
    pub config: ImageConfiguration,
    pub platform: Platform,
    /// The lowest first.
    pub layers: Vec<Layer>,
    store: Box<dyn Store>,
}

/// A layer as the image describes it.
#[derive(Clone, Debug)]
pub struct Layer {
    pub diff_id: DiffId,
    /// Digest of the blob; a classic docker-archive has none.
    pub digest: Option<Digest>,
    /// Bytes of the blob.
    pub size: u64,
    pub media_type: String,
    /// What the store calls it.
    name: String,
}

impl Layer {
    /// How to call it in messages and progress.
    pub fn label(&self) -> String {
        self.digest.unwrap_or(self.diff_id).to_string()
    }

    /// Compares the blob that was read with what the manifest says.
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

impl Image {
    /// Finds what `reference` means for `platform`; `access` is how registries
    /// are reached.
    pub fn open(reference: &ImageRef, platform: &Platform, access: &Access) -> Result<Self> {
        let path = &reference.path;
        let open = || match reference.transport {
            Transport::Oci => {
                ensure!(path.is_dir(), "there is no such directory");
                layout::open(Box::new(DirStore(path.clone())), reference, platform)
            }
            Transport::OciArchive => {
                layout::open(Box::new(TarStore::open(path)?), reference, platform)
            }
            Transport::DockerArchive => {
                docker::open(Box::new(TarStore::open(path)?), reference, platform)
            }
            Transport::Dir => layout::open(Box::new(SkopeoDir::open(path)?), reference, platform),
            Transport::DockerDaemon => {
                let store = daemon::save(path, &access.documents)?;
                docker::open(Box::new(store), reference, platform)
            }
            Transport::Registry => {
                let name = reference.name.as_ref().context("a registry's image has a name")?;
                layout::open(Box::new(RegistryStore::open(name, access)?), reference, platform)
            }
        };
        open().with_context(|| match reference.transport {
            Transport::Registry | Transport::DockerDaemon => reference.to_string(),
            _ => path.display().to_string(),
        })
    }

    /// The blob of layer `index`, as it is stored.
    pub fn blob(&self, index: usize) -> Result<Box<dyn Read + Send + '_>> {
        let layer = &self.layers[index];
        let opened = self.store.open(&layer.name)?;
        let (blob, size) = opened.ok_or_else(|| anyhow!("the blob is missing"))?;
        ensure!(
            size == layer.size,
            "the blob has the size {size}, not {}: it is cut or damaged",
            layer.size
        );
        Ok(blob)
    }
}

/// Says once which code does TLS: whoever makes a client needs that, even if it
/// will speak to a socket.
fn choose_tls() {
    // A second call finds the first one's choice, which is the same.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

/// Reads a config and checks that it fits `platform`.
fn config(bytes: &[u8], platform: &Platform) -> Result<(ImageConfiguration, Platform)> {
    let config: ImageConfiguration =
        serde_json::from_slice(bytes).context("the image config is not as OCI has it")?;
    let is = Platform {
        os: config.os().to_string(),
        architecture: config.architecture().to_string(),
        variant: config.variant().clone(),
    };
    ensure!(is.serves(platform), "there is no {platform}; there is {is}");
    Ok((config, is))
}

/// The config's diff IDs, of which there must be as many as layers.
fn diff_ids(config: &ImageConfiguration, layers: usize) -> Result<Vec<DiffId>> {
    let diff_ids = config.rootfs().diff_ids();
    ensure!(
        diff_ids.len() == layers,
        "{layers} layers, but {} diff IDs in the config",
        diff_ids.len()
    );
    diff_ids.iter().map(|id| id.parse().context("a diff ID of the config")).collect()
}
