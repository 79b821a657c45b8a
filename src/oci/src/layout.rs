//! OCI image layouts: `index.json`, and blobs by digest.

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use fsimage::digest::Digest;

use crate::document::{self, Descriptor, Document, Entries};
use crate::image::Image;
use crate::layer::{Layer, diff_ids, known_layer};
use crate::layout_file::{INDEX, LAYOUT};
use crate::names::{self, REF_NAME, Unclear};
use crate::platform::Platform;
use crate::reference::ImageRef;
use crate::select::{self, Chosen};
use crate::store::{Key, Store};
use crate::{config, json, media_type};

/// Opens the image that `reference` names.
pub(crate) fn open(
    store: Box<dyn Store>,
    reference: &ImageRef,
    wanted: &Platform,
) -> Result<Image> {
    match find(&*store, reference, wanted)? {
        Found::Image(chosen) => assemble(store, *chosen, wanted),
        Found::Nothing(why) => bail!(why),
    }
}

/// What a reference leads to.
pub(crate) enum Found {
    Image(Box<Chosen>),
    /// Nothing has that name, or that digest.
    Nothing(String),
}

/// Finds the image that `reference` names.
pub(crate) fn find(store: &dyn Store, reference: &ImageRef, wanted: &Platform) -> Result<Found> {
    let entries = entries(store)?;
    // Invalid entries are passed over as long as there is a valid one.
    if let (Some((_, why)), true) = (entries.faults.first(), entries.good.is_empty()) {
        bail!("index.json has no valid entry: {why}");
    }
    let good: Vec<&Descriptor> = entries.good.iter().collect();
    let named = |name: Option<&str>| named(store, &good, name, reference, wanted);
    // A name may itself hold an `@` with a digest behind it (annotations.md), which the
    // reference's parser took for a pin. So the whole text is tried as a name first; its
    // digest stays the pin all the same.
    let whole = reference.name_inside().zip(reference.pin());
    let whole = whole.map(|(name, pin)| format!("{name}@{pin}"));
    if let Some(whole) = whole.filter(|whole| names::has(&good, whole))
        && let Found::Image(chosen) = named(Some(&whole))?
    {
        return Ok(Found::Image(chosen));
    }
    named(reference.name_inside())
}

/// Finds among `entries` the image that is called `name`, and has the digest that
/// `reference` asks for.
fn named(
    store: &dyn Store,
    entries: &[&Descriptor],
    name: Option<&str>,
    reference: &ImageRef,
    wanted: &Platform,
) -> Result<Found> {
    let mut groups = match names::groups(entries, name) {
        Ok(groups) => groups,
        Err(Unclear::Absent(there)) => return Ok(Found::Nothing(absent(reference, &there))),
        Err(Unclear::Ambiguous(names)) => {
            bail!("the name stands for more than one image; write one of: {names}")
        }
    };
    let pin = reference.pin();
    // With a digest, no name is needed: the entries of all names are searched for it.
    if pin.is_some() && groups.len() > 1 {
        let entries = groups.drain(..).flat_map(|group| group.entries).collect();
        groups.push(names::Group { name: None, entries });
    }
    let mut others = Vec::new();
    let chosen = select::choose(store, &groups, pin, wanted, &mut others)?;
    match (chosen, pin) {
        (Some(chosen), _) => Ok(Found::Image(Box::new(chosen))),
        (None, Some(pin)) => {
            let others: Vec<_> = others.iter().map(Digest::to_string).collect();
            let others = json::shown_list(&others);
            Ok(Found::Nothing(format!("nothing here has the digest {pin}; there is: {others}")))
        }
        (None, None) => bail!("the index is empty"),
    }
}

/// The message that there is no such name; `there` lists the names that there are.
pub(crate) fn absent(reference: &ImageRef, there: &str) -> String {
    let wanted = reference.name_inside().unwrap_or_default();
    match there {
        "" => format!("there is no tag {wanted:?}; nothing here has a name"),
        there => format!("there is no tag {wanted:?}; there is: {there}"),
    }
}

/// The entries of `index.json`, or the only one of a store that has no such file.
pub(crate) fn entries(store: &dyn Store) -> Result<Entries> {
    if let Some(entry) = store.entry() {
        return Ok(Entries { good: vec![entry.clone()], ..Entries::default() });
    }
    let bytes = store.document(&Key::file(INDEX))?;
    let bytes = bytes.ok_or_else(|| anyhow!("{INDEX} is missing"))?;
    let read = || {
        let document = Document::parse(&bytes)?;
        document.expect(document::Kind::Index)?;
        document.entries()
    };
    read().context(INDEX)
}

/// Puts the chosen image together from its manifest and its config.
pub(crate) fn assemble(store: Box<dyn Store>, chosen: Chosen, wanted: &Platform) -> Result<Image> {
    let Chosen { digest, manifest, config: bytes, platform, note } = chosen;
    let read = config::read(&bytes, platform.as_ref(), wanted)?;
    let diff_ids = diff_ids(&read.config, manifest.layers.len())?;
    let layers = manifest.layers.iter().zip(diff_ids).enumerate();
    let layers = layers.map(|(i, (descriptor, diff_id))| {
        let Descriptor { digest, size, .. } = *descriptor;
        let media_type = descriptor.media_type.clone();
        known_layer(&media_type).with_context(|| format!("layer {} ({digest})", i + 1))?;
        let (key, urls) = (Key::Blob(digest), descriptor.urls.clone());
        Ok(Layer { diff_id, digest: Some(digest), size, media_type, key, urls })
    });
    Ok(Image {
        manifest_digest: Some(digest),
        named_digest: None,
        config_digest: manifest.config.digest,
        config: read.config,
        platform: read.platform,
        layers: layers.collect::<Result<_>>()?,
        warnings: read.warnings,
        note,
        store,
    })
}

/// Checks that the store is a layout, of a version that is known.
pub(crate) fn version(store: &dyn Store) -> Result<()> {
    let missing = || anyhow!("it is not an OCI layout: the file oci-layout is missing");
    let bytes = store.document(&Key::file(LAYOUT))?.ok_or_else(missing)?;
    let value: serde_json::Value = crate::foreign_json::from_slice(&bytes).context(LAYOUT)?;
    let version = value["imageLayoutVersion"].as_str().unwrap_or_default();
    let shown = json::shown(version);
    ensure!(version.starts_with("1."), "oci-layout has the version \"{shown}\", not 1.0.0");
    Ok(())
}

/// The entry that the manifest or index `bytes`, which is called `tag`, would have in an
/// `index.json`.
pub(crate) fn entry_of(bytes: &[u8], digest: Digest, tag: Option<&str>) -> Result<Descriptor> {
    let value: serde_json::Value =
        crate::foreign_json::from_slice(bytes).with_context(|| format!("{digest} is not JSON"))?;
    let field = |name| json::field(&value, name).with_context(|| digest.to_string());
    // Old manifests need not have a mediaType.
    let usual = match field("manifests")?.is_some_and(serde_json::Value::is_array) {
        true => media_type::INDEX,
        false => media_type::MANIFEST,
    };
    let media_type = field("mediaType")?.and_then(serde_json::Value::as_str).unwrap_or(usual);
    let name = tag.map(|tag| (REF_NAME.to_owned(), tag.to_owned()));
    Ok(Descriptor {
        media_type: media_type.to_owned(),
        digest,
        size: bytes.len() as u64,
        annotations: name.into_iter().collect(),
        urls: Vec::new(),
        platform: None,
    })
}

#[cfg(test)]
mod tests;
