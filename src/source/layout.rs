//! OCI image layouts: `index.json`, and blobs by digest.

use std::collections::HashSet;

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use oci_spec::image::{Descriptor, ImageIndex, ImageManifest, MediaType};

use super::store::Store;
use super::{Image, Layer, config, diff_ids};
use crate::digest::Digest;
use crate::manifest::{ImageRef, Platform};

/// The file `oci-layout`.
pub const VERSION: &[u8] = br#"{"imageLayoutVersion":"1.0.0"}"#;

pub const REF_NAME: &str = "org.opencontainers.image.ref.name";
const DOCKER_NAME: &str = "io.containerd.image.name";
const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";

/// Indexes within indexes.
const MAX_NESTING: usize = 8;

/// What an image is in.
pub fn open(store: Box<dyn Store>, reference: &ImageRef, platform: &Platform) -> Result<Image> {
    version(&*store)?;
    let index = store.document("index.json")?.ok_or_else(|| anyhow!("index.json is missing"))?;
    let index: ImageIndex = serde_json::from_slice(&index).context("index.json")?;
    let mut found = Found::default();
    for descriptor in named(&index, reference)? {
        let pinned = reference.pin.is_none();
        manifests(&*store, descriptor, reference.pin, pinned, 0, &mut found)?;
    }
    let descriptor = found.choose(&*store, reference, platform)?;
    let manifest_digest = digest(&descriptor)?;
    let manifest: ImageManifest = parse(&*store, &descriptor)?;
    let config_digest = digest(manifest.config())?;
    let config_bytes = blob(&*store, manifest.config())?;
    let (config, platform) = config(&config_bytes, platform)?;
    let diff_ids = diff_ids(&config, manifest.layers().len())?;
    let layers = manifest.layers().iter().zip(diff_ids).enumerate();
    let layers = layers.map(|(i, (descriptor, diff_id))| {
        let digest = digest(descriptor)?;
        let media_type = descriptor.media_type().to_string();
        known_layer(&media_type).with_context(|| format!("layer {} ({digest})", i + 1))?;
        let name = blob_name(digest);
        Ok(Layer { diff_id, digest: Some(digest), size: descriptor.size(), media_type, name })
    });
    let layers = layers.collect::<Result<_>>()?;
    let manifest_digest = Some(manifest_digest);
    Ok(Image { manifest_digest, config_digest, config, platform, layers, store })
}

fn version(store: &dyn Store) -> Result<()> {
    let missing = || anyhow!("no OCI layout: the file oci-layout is missing");
    let bytes = store.document("oci-layout")?.ok_or_else(missing)?;
    let value: serde_json::Value = serde_json::from_slice(&bytes).context("oci-layout")?;
    let version = value["imageLayoutVersion"].as_str().unwrap_or_default();
    ensure!(version.starts_with("1."), "oci-layout has the version {version:?}, not 1.0.0");
    Ok(())
}

/// Entries of the index that the reference names.
pub fn named<'i>(index: &'i ImageIndex, reference: &ImageRef) -> Result<Vec<&'i Descriptor>> {
    let all = index.manifests();
    let Some(wanted) = &reference.reference else {
        ensure!(!all.is_empty(), "the index is empty");
        return Ok(all.iter().collect());
    };
    let names = |descriptor: &Descriptor| -> Vec<String> {
        let annotations = descriptor.annotations().iter().flatten();
        let names = annotations.filter(|(key, _)| [REF_NAME, DOCKER_NAME].contains(&key.as_str()));
        names.map(|(_, name)| name.clone()).collect()
    };
    let found: Vec<_> = all.iter().filter(|d| names(d).contains(wanted)).collect();
    if found.is_empty() {
        let mut there: Vec<String> = all.iter().flat_map(names).collect();
        there.sort();
        there.dedup();
        bail!("there is no tag {wanted:?}; there is: {}", there.join(", "));
    }
    Ok(found)
}

/// Manifests under what a reference names.
#[derive(Default)]
struct Found {
    manifests: Vec<Descriptor>,
    /// Digests that were met and are not the pinned one.
    others: Vec<Digest>,
    /// What was met already, and whether below the pinned one.
    seen: HashSet<(Digest, bool)>,
}

/// Indexes and manifests below what a reference names.
const MAX_DESCRIPTORS: usize = 10_000;

fn manifests(
    store: &dyn Store,
    descriptor: &Descriptor,
    pin: Option<Digest>,
    pinned: bool,
    depth: usize,
    found: &mut Found,
) -> Result<()> {
    let this = digest(descriptor)?;
    let pinned = pinned || pin == Some(this);
    if !found.seen.insert((this, pinned)) {
        return Ok(());
    }
    ensure!(found.seen.len() <= MAX_DESCRIPTORS, "more than {MAX_DESCRIPTORS} manifests");
    let media_type = descriptor.media_type().to_string();
    match descriptor.media_type() {
        MediaType::ImageIndex => {}
        MediaType::Other(other) if other == DOCKER_LIST => {}
        MediaType::Other(other) if other != DOCKER_MANIFEST => {
            bail!("{this} has the media type {media_type}, which is no image")
        }
        _ => {
            if pinned {
                found.manifests.push(descriptor.clone());
            } else {
                found.others.push(this);
            }
            return Ok(());
        }
    }
    ensure!(depth < MAX_NESTING, "{this}: more than {MAX_NESTING} indexes within each other");
    if !pinned {
        found.others.push(this);
    }
    let index: ImageIndex = parse(store, descriptor)?;
    for descriptor in index.manifests() {
        manifests(store, descriptor, pin, pinned, depth + 1, found)?;
    }
    Ok(())
}

impl Found {
    /// The one manifest that is for `platform`.
    fn choose(
        mut self,
        store: &dyn Store,
        reference: &ImageRef,
        platform: &Platform,
    ) -> Result<Descriptor> {
        if let (Some(pin), true) = (reference.pin, self.manifests.is_empty()) {
            let there: Vec<_> = self.others.iter().map(Digest::to_string).collect();
            bail!("nothing here has the digest {pin}; there is: {}", there.join(", "));
        }
        let mut there = Vec::new();
        for descriptor in std::mem::take(&mut self.manifests) {
            if let Some(is) = platform_of(store, &descriptor)? {
                there.push((is, descriptor));
            }
        }
        let serving: Vec<_> = there.iter().filter(|(is, _)| is.serves(platform)).collect();
        // An index may list the very same manifest twice.
        let first = serving.first().map(|(_, d)| d.digest().clone());
        if serving.iter().any(|(_, d)| Some(d.digest()) != first.as_ref())
            && reference.reference.is_none()
            && reference.pin.is_none()
        {
            let list: Vec<_> = serving.iter().map(|(_, d)| shown(d)).collect();
            bail!("more than one image for {platform}; name one: {}", list.join(", "));
        }
        match serving.first() {
            Some((_, descriptor)) => Ok(descriptor.clone()),
            None => {
                let mut there: Vec<_> = there.iter().map(|(is, _)| is.to_string()).collect();
                there.sort();
                there.dedup();
                ensure!(!there.is_empty(), "there is no image, only what runs on no platform");
                bail!("there is no {platform}; there is: {}", there.join(", "))
            }
        }
    }
}

fn shown(descriptor: &Descriptor) -> String {
    let tag = descriptor.annotations().as_ref().and_then(|all| all.get(REF_NAME));
    tag.map_or_else(|| format!("@{}", descriptor.digest()), |tag| format!(":{tag}"))
}

/// What a manifest is for: as its descriptor says, else as its config does.
/// `None` for an attestation, which is no image.
fn platform_of(store: &dyn Store, descriptor: &Descriptor) -> Result<Option<Platform>> {
    if let Some(platform) = descriptor.platform() {
        let os = platform.os().to_string();
        let architecture = platform.architecture().to_string();
        let unknown = os == "unknown" || architecture == "unknown";
        let variant = platform.variant().clone();
        return Ok((!unknown).then_some(Platform { os, architecture, variant }));
    }
    let manifest: ImageManifest = parse(store, descriptor)?;
    let bytes = blob(store, manifest.config())?;
    let value: serde_json::Value = serde_json::from_slice(&bytes).context("the image config")?;
    let text = |key: &str| value[key].as_str().map(str::to_owned);
    Ok(text("os").zip(text("architecture")).map(|(os, architecture)| Platform {
        os,
        architecture,
        variant: text("variant"),
    }))
}

/// Refuses what cannot be a layer of files.
pub fn known_layer(media_type: &str) -> Result<()> {
    let what = match media_type {
        "application/vnd.oci.image.layer.v1.tar"
        | "application/vnd.oci.image.layer.v1.tar+gzip"
        | "application/vnd.oci.image.layer.v1.tar+zstd"
        | "application/vnd.docker.image.rootfs.diff.tar"
        | "application/vnd.docker.image.rootfs.diff.tar.gzip"
        | "application/vnd.docker.image.rootfs.diff.tar.zstd" => return Ok(()),
        other if other.contains("encrypted") => "is encrypted",
        other if other.contains("foreign") || other.contains("nondistributable") => {
            "is foreign: its bytes are not part of the image"
        }
        _ => "is not known",
    };
    bail!("the media type {media_type} {what}")
}

pub fn digest(descriptor: &Descriptor) -> Result<Digest> {
    Ok(descriptor.digest().to_string().parse()?)
}

pub fn blob_name(digest: Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

/// A small blob, checked.
pub fn blob(store: &dyn Store, descriptor: &Descriptor) -> Result<Vec<u8>> {
    let digest = digest(descriptor)?;
    let read = || {
        let bytes = store.document(&blob_name(digest))?;
        let bytes = bytes.ok_or_else(|| anyhow!("the blob is missing"))?;
        let size = bytes.len() as u64;
        ensure!(size == descriptor.size(), "it has {size} bytes, not {}", descriptor.size());
        let is = Digest::of(&bytes);
        ensure!(is == digest, "its content has the digest {is}: it is damaged");
        Ok(bytes)
    };
    read().with_context(|| digest.to_string())
}

pub fn parse<T: serde::de::DeserializeOwned>(
    store: &dyn Store,
    descriptor: &Descriptor,
) -> Result<T> {
    let bytes = blob(store, descriptor)?;
    serde_json::from_slice(&bytes)
        .with_context(|| format!("{} is not as OCI has it", descriptor.digest()))
}

/// An `index.json` of the one manifest `bytes`.
pub fn index_of(bytes: &[u8], digest: Digest, tag: Option<&str>) -> Result<Vec<u8>> {
    let value: serde_json::Value =
        serde_json::from_slice(bytes).with_context(|| format!("{digest} is no JSON"))?;
    // Old manifests need not say what they are.
    let usual = match value["manifests"].is_array() {
        true => "application/vnd.oci.image.index.v1+json",
        false => "application/vnd.oci.image.manifest.v1+json",
    };
    let media_type = value["mediaType"].as_str().unwrap_or(usual);
    let mut descriptor = serde_json::json!({
        "mediaType": media_type,
        "digest": digest.to_string(),
        "size": bytes.len(),
    });
    if let Some(tag) = tag {
        descriptor["annotations"] = serde_json::json!({ REF_NAME: tag });
    }
    Ok(serde_json::to_vec(&serde_json::json!({ "schemaVersion": 2, "manifests": [descriptor] }))?)
}

/// The digest in the name of a layout's blob.
pub fn digest_of(name: &str) -> Option<Digest> {
    format!("sha256:{}", name.strip_prefix("blobs/sha256/")?).parse().ok()
}
