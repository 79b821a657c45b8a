//! What `docker save` writes: `manifest.json`, configs and layers by name.
//!
//! Newer versions write an OCI layout with a `manifest.json` beside it.

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use serde::Deserialize;

use super::store::Store;
use super::{Image, Layer, config, diff_ids, layout};
use crate::digest::Digest;
use crate::manifest::{ImageRef, Platform};

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Saved {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

/// The image in a docker-archive. A pin means the manifest's digest where there
/// is one; in the classic form the config's, which is the image ID.
pub fn open(store: Box<dyn Store>, reference: &ImageRef, platform: &Platform) -> Result<Image> {
    let Some(bytes) = store.document("manifest.json")? else {
        bail!("no docker-archive: manifest.json is missing");
    };
    let images: Vec<Saved> = serde_json::from_slice(&bytes).context("manifest.json")?;
    if store.document("index.json")?.is_some() && store.document("oci-layout")?.is_some() {
        return layout::open(store, reference, platform);
    }
    let image = choose(images, reference.reference.as_deref())?;
    let bytes = store.document(&image.config)?;
    let bytes = bytes.ok_or_else(|| anyhow!("the config {} is missing", image.config))?;
    let config_digest = Digest::of(&bytes);
    let named = image.config.rsplit('/').next().unwrap_or_default().trim_end_matches(".json");
    if let Ok(named) = format!("sha256:{named}").parse::<Digest>() {
        ensure!(named == config_digest, "the config {named} has the digest {config_digest}");
    }
    if let Some(pin) = reference.pin {
        ensure!(pin == config_digest, "the image ID is {config_digest}, not {pin}");
    }
    let (config, platform) = config(&bytes, platform)?;
    let diff_ids = diff_ids(&config, image.layers.len())?;
    let layers = image.layers.into_iter().zip(diff_ids).map(|(name, diff_id)| {
        let opened = store.open(&name)?;
        let size = opened.ok_or_else(|| anyhow!("the layer {name} is missing"))?.1;
        let media_type = "application/vnd.docker.image.rootfs.diff.tar".to_owned();
        Ok(Layer { diff_id, digest: None, size, media_type, name })
    });
    let layers = layers.collect::<Result<_>>()?;
    Ok(Image { manifest_digest: None, config_digest, config, platform, layers, store })
}

fn choose(images: Vec<Saved>, wanted: Option<&str>) -> Result<Saved> {
    let tags = |image: &Saved| image.repo_tags.clone().unwrap_or_default();
    let there: Vec<String> = images.iter().flat_map(tags).collect();
    let mut found: Vec<Saved> = match wanted {
        Some(wanted) => {
            images.into_iter().filter(|i| tags(i).iter().any(|t| t == wanted)).collect()
        }
        None => images,
    };
    match (found.pop(), found.is_empty(), wanted) {
        (Some(image), true, _) => Ok(image),
        (None, _, Some(wanted)) => bail!("there is no {wanted}; there is: {}", there.join(", ")),
        (None, ..) => bail!("manifest.json names no image"),
        _ => bail!("more than one image; name one: {}", there.join(", ")),
    }
}
