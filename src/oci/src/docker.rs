//! What `docker save` writes: `manifest.json`, configs and layers by name.
//!
//! From Docker 25 on, the archive is an OCI layout with a `manifest.json` beside it. The
//! layout says more (manifests, platforms), but some versions leave images out of it that
//! are in `manifest.json`.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use fsimage::digest::Digest;
use serde_json::Value;

use crate::image::Image;
use crate::json::{self, kind, shown, shown_list};
use crate::layer::{Layer, diff_ids};
use crate::layout::{self, Found};
use crate::layout_file::{INDEX, LAYOUT, digest_of};
use crate::media_type::DOCKER_LAYER;
use crate::platform::Platform;
use crate::reference::ImageRef;
use crate::store::{Key, Store};
use crate::{config, names};

/// An entry of `manifest.json`, which describes one image.
struct Saved {
    /// The file of its config.
    config: String,
    tags: Vec<String>,
    /// The files of its layers.
    layers: Vec<String>,
}

impl Saved {
    fn parse(value: &Value) -> Result<Self> {
        ensure!(value.is_object(), "it is {}, and not an object", kind(value));
        let config = json::text(value, "Config")?.context("it names no config")?.to_owned();
        let tags = json::texts(value, "RepoTags")?;
        Ok(Self { config, tags, layers: json::texts(value, "Layers")? })
    }
}

/// Opens the image in a docker-archive. A pin is compared with the manifest's digest where
/// there is one, and in the classic form with the config's, which is the image ID.
pub(crate) fn open(
    store: Box<dyn Store>,
    reference: &ImageRef,
    wanted: &Platform,
) -> Result<Image> {
    let saved = saved(&*store).context("manifest.json")?;
    let mut nowhere = None;
    if has_layout(&*store)? {
        // The layout is asked first, and `manifest.json` for what the layout lacks. If the
        // choice between several images is open, `manifest.json` alone is asked: it lists
        // all of them for the error.
        let clear = reference.name_inside().is_some() || reference.pin().is_some();
        let configs: BTreeSet<&str> = saved.iter().map(|image| &*image.config).collect();
        if clear || configs.len() < 2 {
            match layout::find(&*store, reference, wanted)? {
                Found::Image(chosen) => return layout::assemble(store, *chosen, wanted),
                Found::Nothing(why) => nowhere = Some(why),
            }
        }
    }
    let image = choose(&*store, &saved, reference, nowhere)?;
    classic(store, image, wanted)
}

fn saved(store: &dyn Store) -> Result<Vec<Saved>> {
    let bytes =
        store.document(&Key::file("manifest.json"))?.ok_or_else(|| anyhow!("it is missing"))?;
    let value: Value = crate::foreign_json::from_slice(&bytes)?;
    let list = value.as_array();
    let list = list.with_context(|| format!("it is {}, and not a list", kind(&value)))?;
    let image = |(i, value)| Saved::parse(value).with_context(|| format!("image {}", i + 1));
    list.iter().enumerate().map(image).collect()
}

/// Whether there is a layout that holds anything: `docker save ID` of Docker 25
/// writes an empty one.
fn has_layout(store: &dyn Store) -> Result<bool> {
    if store.document(&Key::file(LAYOUT))?.is_none() || store.document(&Key::file(INDEX))?.is_none()
    {
        return Ok(false);
    }
    layout::version(store)?;
    let entries = layout::entries(store)?;
    Ok(entries.bad > 0 || !entries.good.is_empty())
}

/// The image that `reference` means. `nowhere` says why it is not in the layout, if there is
/// one.
fn choose<'s>(
    store: &dyn Store,
    images: &'s [Saved],
    reference: &ImageRef,
    nowhere: Option<String>,
) -> Result<&'s Saved> {
    let all: Vec<Vec<&str>> =
        images.iter().map(|image| image.tags.iter().map(String::as_str).collect()).collect();
    let positions = match reference.name_inside() {
        Some(wanted) => names::matching(&all, wanted),
        None => (0..images.len()).collect(),
    };
    ensure!(
        !positions.is_empty(),
        "{}",
        match images.is_empty() {
            true => "manifest.json lists no image".to_owned(),
            false => layout::absent(reference, &listed(store, images)?),
        }
    );
    let mut found: Vec<&Saved> = positions.into_iter().map(|i| &images[i]).collect();
    if let Some(pin) = reference.pin() {
        let mut others = Vec::new();
        let mut pinned = Vec::new();
        for image in found {
            let id = Digest::of(&document(store, &image.config)?);
            if id == pin { pinned.push(image) } else { others.push(id.to_string()) }
        }
        found = pinned;
        ensure!(
            !found.is_empty(),
            "{}",
            nowhere.unwrap_or_else(|| {
                format!("the image ID is {}, not {pin}", shown_list(&others))
            })
        );
    }
    found.dedup_by(|a, b| a.config == b.config);
    match found[..] {
        [image] => Ok(image),
        _ => bail!("more than one image; name one: {}", listed(store, images)?),
    }
}

/// A list of the images for a message: their names, or the ID of one that has no name.
fn listed(store: &dyn Store, images: &[Saved]) -> Result<String> {
    let mut names = Vec::new();
    for image in images {
        names.extend(image.tags.iter().cloned());
        if image.tags.is_empty() {
            names.push(format!("@{}", Digest::of(&document(store, &image.config)?)));
        }
    }
    Ok(shown_list(&names))
}

fn document(store: &dyn Store, name: &str) -> Result<Vec<u8>> {
    let missing = || anyhow!("the config {} is missing", shown(name));
    store.document(&Key::file(name))?.ok_or_else(missing)
}

/// Opens the image that `manifest.json` describes as `image`.
fn classic(store: Box<dyn Store>, image: &Saved, wanted: &Platform) -> Result<Image> {
    let bytes = document(&*store, &image.config)?;
    let config_digest = Digest::of(&bytes);
    if let Some(named) = digest_of(&image.config) {
        ensure!(
            named == config_digest,
            "the config {named} has the digest {config_digest}: it is damaged"
        );
    }
    let mut read = config::read(&bytes, None, wanted)?;
    // The name of a config's file need not be its digest, though docker writes it so: other
    // tools change configs and keep the name, and `docker load` accepts that.
    let named = image.config.rsplit('/').next().unwrap_or_default().trim_end_matches(".json");
    let named = format!("sha256:{named}").parse::<Digest>();
    if named.is_ok_and(|named| named != config_digest) {
        let name = shown(&image.config);
        let text = format!("the config {name} is not what its name says: it has {config_digest}");
        read.warnings.push(text);
    }
    let diff_ids = diff_ids(&read.config, image.layers.len())?;
    let layers = image.layers.iter().zip(diff_ids).map(|(name, diff_id)| {
        let key = Key::file(name);
        let opened = store.open(&key)?;
        let size = opened.ok_or_else(|| anyhow!("the layer {} is missing", shown(name)))?.1;
        let media_type = DOCKER_LAYER.to_owned();
        Ok(Layer { diff_id, digest: None, size, media_type, key, urls: Vec::new() })
    });
    Ok(Image {
        manifest_digest: None,
        named_digest: None,
        config_digest,
        layers: layers.collect::<Result<_>>()?,
        config: read.config,
        platform: read.platform,
        warnings: read.warnings,
        note: None,
        store,
    })
}
