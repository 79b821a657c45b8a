//! Images where they are: which one is meant, what it consists of, its blobs.
//!
//! Everything read here is checked against the digest and size that led to it.
//! A layer's blob is checked by whoever reads it to its end.

pub mod artifact;
mod compression;
mod config;
mod daemon;
mod docker;
mod document;
mod form;
mod json;
mod layout;
mod members;
mod names;
mod pace;
pub mod registry;
mod select;
mod signed;
mod skopeo;
mod store;

use std::io::Read;

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use oci_spec::image::ImageConfiguration;

pub use self::compression::{Compression, Spool};
pub use self::daemon::image_id as daemon_image_id;
pub use self::document::Descriptor;
pub use self::names::REF_NAME;
use self::registry::RegistryStore;
pub use self::registry::{Access, Credentials, NotThere, Repository};
pub use self::signed::ImageKey;
pub use self::store::MAX_DOCUMENT;
use self::store::{Counted, Store};
use crate::digest::{DiffId, Digest};
use crate::manifest::{ImageRef, Platform, Transport};

/// Layers that are devices of one file system.
const MAX_LAYERS: usize = 65_535;

/// One image, for one platform.
pub struct Image {
    /// `None` in a classic docker-archive, which has no manifest to digest.
    pub manifest_digest: Option<Digest>,
    /// What the reference led to, which may be an index; none if it was in no registry.
    pub named_digest: Option<Digest>,
    /// Digest of the config: the image ID.
    pub config_digest: Digest,
    pub config: ImageConfiguration,
    pub platform: Platform,
    /// The lowest first.
    pub layers: Vec<Layer>,
    /// What had to be guessed, and what is not as it should be.
    pub warnings: Vec<String>,
    /// How the image was chosen, where there was a choice.
    pub note: Option<String>,
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
    /// Where else the blob is, as the manifest says of foreign layers.
    urls: Vec<String>,
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
        let counted =
            |store| -> Box<dyn Store> { Box::new(Counted::new(store, access.document_bytes())) };
        let open = || match reference.transport {
            Transport::DockerArchive => {
                let store = form::open(reference, &access.spool())?;
                docker::open(counted(store), reference, platform)
            }
            Transport::Archive => {
                let store = counted(form::open(reference, &access.spool())?);
                // What newer versions of docker save has both, for the same image.
                if store.has("manifest.json")? {
                    return docker::open(store, reference, platform);
                }
                layout::version(&*store)?;
                layout::open(store, reference, platform)
            }
            Transport::DockerDaemon => {
                let store = daemon::save(&reference.path, access)?;
                docker::open(counted(Box::new(store)), reference, platform)
            }
            Transport::Registry => {
                let name = reference.name.as_ref().context("a registry's image has a name")?;
                let store = RegistryStore::open(name, access)?;
                let named_digest = Some(store.named());
                let image = layout::open(counted(Box::new(store)), reference, platform)?;
                Ok(Self { named_digest, ..image })
            }
            Transport::Oci | Transport::OciArchive | Transport::Dir => {
                let store = counted(form::open(reference, &access.spool())?);
                layout::version(&*store)?;
                layout::open(store, reference, platform)
            }
        };
        open().with_context(|| match reference.transport {
            Transport::Registry | Transport::DockerDaemon => reference.to_string(),
            _ => reference.path.display().to_string(),
        })
    }

    /// Refuses the image, which `reference` led to, unless `key` signed it; returns the
    /// digest that is signed: the manifest's, or that of an index which lists it.
    pub fn signed_by(
        &self,
        reference: &ImageRef,
        access: &Access,
        key: &ImageKey,
    ) -> Result<Digest> {
        let check = || -> Result<Digest> {
            let name = reference.name.as_ref().filter(|_| self.named_digest.is_some());
            let name = name.context("signatures are looked for in registries only")?;
            let digest = self.manifest_digest.context("it has no manifest")?;
            // Newer signatures count, even where an older answer of a tag would do.
            let access = Access { known_tags: false, ..access.clone() };
            let pinned = name.clone_with_digest(digest.to_string());
            let store = RegistryStore::open(&pinned, &access)?;
            let mut digests = vec![digest];
            digests.extend(self.named_digest.filter(|named| *named != digest));
            if let [_] = digests[..]
                && let Some(tag) = name.tag()
                && let Some(index) = store.index_with(tag, digest)?
            {
                // A lock has the manifest; what is signed may be the index.
                digests.push(index);
            }
            signed::check(&store, &digests, key)
        };
        check().with_context(|| format!("{reference}: verify-image"))
    }

    /// The blob of layer `index`, as it is stored.
    pub fn blob(&self, index: usize) -> Result<Box<dyn Read + Send + '_>> {
        let layer = &self.layers[index];
        if is_foreign(&layer.media_type) && !self.store.has(&layer.name)? {
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

/// The config's diff IDs, of which there must be as many as layers.
fn diff_ids(config: &ImageConfiguration, layers: usize) -> Result<Vec<DiffId>> {
    let diff_ids = config.rootfs().diff_ids();
    ensure!(layers <= MAX_LAYERS, "it has {layers} layers; an image has at most {MAX_LAYERS}");
    ensure!(
        diff_ids.len() == layers,
        "{layers} layers, but {} diff IDs in the config",
        diff_ids.len()
    );
    let bad = |id| anyhow!("the diff ID \"{}\" is not sha256: and 64 hex digits", json::shown(id));
    diff_ids.iter().map(|id| id.parse().map_err(|_| bad(id))).collect()
}

/// Refuses what cannot be a layer of files.
fn known_layer(media_type: &str) -> Result<()> {
    let what = match media_type {
        "application/vnd.oci.image.layer.v1.tar"
        | "application/vnd.oci.image.layer.v1.tar+gzip"
        | "application/vnd.oci.image.layer.v1.tar+zstd"
        | "application/vnd.docker.image.rootfs.diff.tar"
        | "application/vnd.docker.image.rootfs.diff.tar.gzip"
        | "application/vnd.docker.image.rootfs.diff.tar.zstd" => return Ok(()),
        foreign if is_foreign(foreign) => return Ok(()),
        "" => bail!("it has no media type"),
        other if other.contains("encrypted") => "is encrypted",
        _ => "is not known",
    };
    bail!("the media type {} {what}", json::shown(media_type))
}

/// Whether a layer need not be where the image is. (Where it is, it is like any other.)
fn is_foreign(media_type: &str) -> bool {
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

/// What a layout calls a blob.
fn blob_name(digest: Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

/// The digest in the name of a layout's blob.
fn digest_of(name: &str) -> Option<Digest> {
    format!("sha256:{}", name.strip_prefix("blobs/sha256/")?).parse().ok()
}

/// A small blob, checked; `None` if it is not there.
fn blob(store: &dyn Store, descriptor: &Descriptor) -> Result<Option<Vec<u8>>> {
    let digest = descriptor.digest;
    let read = || {
        let bytes = match store.document(&blob_name(digest)) {
            Err(error) if error.is::<NotThere>() => None,
            read => read?,
        };
        let Some(bytes) = bytes else { return Ok(None) };
        let (size, told) = (bytes.len() as u64, descriptor.size);
        ensure!(size == told, "it has {size} bytes, not {told}: its size is wrong");
        let is = Digest::of(&bytes);
        ensure!(is == digest, "its content has the digest {is}: it is damaged");
        Ok(Some(bytes))
    };
    read().with_context(|| digest.to_string())
}
