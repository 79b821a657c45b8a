//! Chooses the image for a platform among all that an index leads to.
//!
//! An index holds more than images: attestations, signatures, other artifacts, documents of
//! older and newer kinds. Whatever is not an image for the platform is passed over as long
//! as there is one; if there is none, an error says what was there. What cannot be read
//! stops the build instead, so that the choice never depends on a failing network.

use std::collections::{BTreeSet, HashMap, HashSet};

use anyhow::{Result, bail, ensure};
use fsimage::digest::Digest;

use crate::blob::blob;
use crate::config;
use crate::document::{Declared, Descriptor, Document, FEW, Kind, Manifest};
use crate::json::{shown, shown_list};
use crate::layer::known_layer;
use crate::names::Group;
use crate::platform::Platform;
use crate::store::Store;

/// The most levels of indexes within indexes.
const MAX_NESTING: usize = 8;
/// The most indexes and manifests below what a reference names.
const MAX_DESCRIPTORS: usize = 10_000;

/// The chosen image.
pub(crate) struct Chosen {
    pub digest: Digest,
    pub manifest: Manifest,
    /// The bytes of the config.
    pub config: Vec<u8>,
    /// The platform that the index gives for it.
    pub platform: Option<Platform>,
    /// How it was chosen, where there was a choice.
    pub note: Option<String>,
}

/// What the entries of a group lead to.
#[derive(Default)]
struct Collected {
    manifests: Vec<Descriptor>,
    /// Digests that were met and are not the pinned one.
    others: Vec<Digest>,
    /// What was visited already, each with whether it has the pinned digest or is below it.
    seen: HashSet<(Digest, bool)>,
    /// How many descriptors were visited, some perhaps of the same document.
    visits: usize,
    /// What documents are whose descriptors do not say it. Each is read once for that.
    kinds: HashMap<Digest, Option<Kind>>,
    /// Whether anything has the pinned digest.
    is_pinned: bool,
    /// What is not an image for the platform, and why.
    passed: Passed,
}

/// What was passed over, for the error if no image fits.
#[derive(Default)]
struct Passed {
    /// Platforms of images that are for others than the wanted one.
    platforms: BTreeSet<String>,
    /// What is not an image, and why: as many as the error lists.
    reasons: Vec<String>,
    /// How many more reasons there are.
    more: usize,
    attestations: usize,
}

impl Passed {
    fn note(&mut self, digest: Digest, why: impl std::fmt::Display) {
        self.reason(format_args!("{digest} ({why:#})"));
    }

    fn reason(&mut self, reason: impl ToString) {
        match self.reasons.len() < FEW {
            true => self.reasons.push(reason.to_string()),
            false => self.more += 1,
        }
    }

    fn join(&mut self, other: Self) {
        self.platforms.extend(other.platforms);
        other.reasons.into_iter().for_each(|reason| self.reason(reason));
        self.more += other.more;
        self.attestations += other.attestations;
    }

    /// The error that there is no image for `wanted`.
    fn error(mut self, wanted: &Platform) -> anyhow::Error {
        if self.attestations > 0 && self.platforms.is_empty() {
            self.reason(format!("{} attestations", self.attestations));
        }
        let there: Vec<String> = self.platforms.into_iter().collect();
        let mut text = format!("there is no image for {wanted}");
        if !there.is_empty() {
            text += &format!("; there are some for: {}", shown_list(&there));
        }
        if !self.reasons.is_empty() {
            text += &format!("; passed over: {}", self.reasons.join(", "));
            if self.more > 0 {
                text += &format!(", and {} more", self.more);
            }
        }
        if there.is_empty() && self.reasons.is_empty() {
            text += "; the index is empty";
        }
        anyhow::anyhow!(text)
    }
}

/// The image for `wanted`; if `pin` is given, only the manifest or index with that digest
/// counts. `None` if nothing has that digest; `others` then has the digests that there are.
pub(crate) fn choose(
    store: &dyn Store,
    groups: &[Group<'_>],
    pin: Option<Digest>,
    wanted: &Platform,
    others: &mut Vec<Digest>,
) -> Result<Option<Chosen>> {
    let mut first: Option<Chosen> = None;
    let mut names: Vec<String> = Vec::new();
    let mut passed = Passed::default();
    let mut pinned = pin.is_none();
    for group in groups {
        let mut found = Collected::default();
        for descriptor in &group.entries {
            found.walk(store, descriptor, pin, pin.is_none(), 0)?;
        }
        pinned |= found.is_pinned;
        let best = found.best(store, wanted)?;
        others.append(&mut found.others);
        passed.join(found.passed);
        let Some(best) = best else { continue };
        let name = group.name.clone().unwrap_or_else(|| format!("@{}", best.digest));
        match &first {
            Some(first) if first.digest == best.digest => {}
            Some(_) => names.push(name),
            None => {
                names.push(name);
                first = Some(best);
            }
        }
    }
    if names.len() > 1 {
        bail!("more than one image for {wanted}; name one: {}", shown_list(&names));
    }
    match first {
        Some(chosen) => Ok(Some(chosen)),
        None if !pinned => Ok(None),
        None => Err(passed.error(wanted)),
    }
}

impl Collected {
    /// Collects the manifests below `descriptor`. Terminates because the entries of each index
    /// are visited at most twice: below the pinned digest and elsewhere.
    fn walk(
        &mut self,
        store: &dyn Store,
        descriptor: &Descriptor,
        pin: Option<Digest>,
        pinned: bool,
        depth: usize,
    ) -> Result<()> {
        let digest = descriptor.digest;
        let pinned = pinned || pin == Some(digest);
        self.visits += 1;
        ensure!(self.visits <= MAX_DESCRIPTORS, "more than {MAX_DESCRIPTORS} manifests");
        let is_new = self.seen.insert((digest, pinned));
        match pinned {
            true => self.is_pinned = true,
            false if is_new => self.others.push(digest),
            false => {}
        }
        let media_type = &descriptor.media_type;
        let kind = match Kind::of(media_type) {
            // If the descriptor has no media type, the document itself tells its kind.
            None if media_type.is_empty() => match self.kinds.get(&digest) {
                Some(known) => *known,
                None => match self.document(store, descriptor)? {
                    Some(document) => *self.kinds.entry(digest).or_insert(document.kind),
                    None => return Ok(()),
                },
            },
            kind => kind,
        };
        match kind {
            // Two entries may say of one manifest that it is for two platforms.
            Some(Kind::Manifest) if pinned => self.manifests.push(descriptor.clone()),
            Some(Kind::Manifest) => {}
            Some(Kind::Index) if !is_new => {}
            Some(Kind::Index) => {
                ensure!(depth < MAX_NESTING, "{digest}: more than {MAX_NESTING} nested indexes");
                return self.descend(store, descriptor, pin, pinned, depth);
            }
            None if pinned && media_type.is_empty() => {
                self.passed.note(digest, "it is neither a manifest nor an index");
            }
            None if pinned => {
                self.passed.note(digest, format!("its media type is {}", shown(media_type)));
            }
            None => {}
        }
        Ok(())
    }

    fn descend(
        &mut self,
        store: &dyn Store,
        descriptor: &Descriptor,
        pin: Option<Digest>,
        pinned: bool,
        depth: usize,
    ) -> Result<()> {
        let Some(document) = self.document(store, descriptor)? else {
            return Ok(());
        };
        document.expect(Kind::Index)?;
        let entries = match document.entries() {
            Ok(entries) => entries,
            Err(why) => {
                self.passed.note(descriptor.digest, why);
                return Ok(());
            }
        };
        if pinned {
            self.passed.more += entries.bad - entries.faults.len();
            for (place, why) in entries.faults {
                self.passed.note(descriptor.digest, format_args!("entry {place}: {why}"));
            }
        }
        for entry in &entries.good {
            self.walk(store, entry, pin, pinned, depth + 1)?;
        }
        Ok(())
    }

    /// The document that `descriptor` leads to, if it is there.
    fn document(&mut self, store: &dyn Store, descriptor: &Descriptor) -> Result<Option<Document>> {
        match blob(store, descriptor)? {
            Some(bytes) => Ok(Some(parse(&bytes, descriptor.digest)?)),
            None => {
                self.passed.note(descriptor.digest, "the blob is missing");
                Ok(None)
            }
        }
    }

    /// The best image for `wanted`. Manifests for which the index gives a fitting platform
    /// come first, then those whose config alone tells the platform, and last those that
    /// claim to be artifacts. Of several that are equally good, the first is taken, as
    /// image-index.md wants it.
    fn best(&mut self, store: &dyn Store, wanted: &Platform) -> Result<Option<Chosen>> {
        let mut fitting: Vec<(u32, Platform, &Descriptor)> = Vec::new();
        let mut undeclared: Vec<&Descriptor> = Vec::new();
        for descriptor in &self.manifests {
            match &descriptor.platform {
                _ if descriptor.is_attestation() => self.passed.attestations += 1,
                None => undeclared.push(descriptor),
                Some(declared) if declared.architecture.is_empty() => undeclared.push(descriptor),
                Some(declared) => {
                    if let Some((rank, platform)) = self.passed.rank(declared, wanted) {
                        fitting.push((rank, platform, descriptor));
                    }
                }
            }
        }
        fitting.sort_by_key(|(rank, ..)| *rank);
        // One manifest is read once, however many entries lead to it.
        let mut read = HashSet::new();
        fitting.retain(|(_, _, descriptor)| read.insert(descriptor.digest));
        undeclared.retain(|descriptor| read.insert(descriptor.digest));
        let count = fitting.len();
        let mut artifact = None;
        for (_, platform, descriptor) in fitting {
            let Some(mut chosen) = self.passed.load(store, descriptor)? else { continue };
            chosen.platform = Some(platform);
            if count > 1 {
                chosen.note = Some(format!(
                    "{count} entries of the index fit {wanted}; {} was taken, the first of the best",
                    chosen.digest
                ));
            }
            match chosen.manifest.claims_artifact() {
                true => drop(artifact.get_or_insert(chosen)),
                false => return Ok(Some(chosen)),
            }
        }
        let mut best: Option<(u32, Chosen)> = None;
        for descriptor in undeclared {
            let Some(chosen) = self.passed.load(store, descriptor)? else { continue };
            let declared = match config::declared(&chosen.config) {
                Ok(declared) => declared,
                Err(why) => {
                    self.passed.note(chosen.digest, why);
                    continue;
                }
            };
            let Some(rank) = self.passed.rank_alone(&declared, wanted) else { continue };
            if chosen.manifest.claims_artifact() {
                artifact.get_or_insert(chosen);
            } else if best.as_ref().is_none_or(|(known, _)| rank < *known) {
                best = Some((rank, chosen));
            }
        }
        Ok(best.map(|(_, chosen)| chosen).or(artifact))
    }
}

impl Passed {
    /// How well an entry that the index declares for `declared` serves. One that needs
    /// features of the operating system (`os.features`) never does.
    fn rank(&mut self, declared: &Declared, wanted: &Platform) -> Option<(u32, Platform)> {
        let Some(platform) = declared.platform() else {
            let (os, architecture) = (shown(&declared.os), shown(&declared.architecture));
            self.platforms.insert(format!("{os}/{architecture}"));
            return None;
        };
        if !declared.features.is_empty() {
            let features = shown_list(&declared.features);
            self.platforms.insert(format!("{platform} that needs os.features {features}"));
            return None;
        }
        let rank = platform.rank(wanted);
        if rank.is_none() {
            self.platforms.insert(platform.to_string());
        }
        Some((rank?, platform))
    }

    /// The same for what a config declares. An image is not refused for its variant there,
    /// but one that fits is taken before it; and a config without an architecture may be for
    /// any platform, and is taken last.
    fn rank_alone(&mut self, declared: &Declared, wanted: &Platform) -> Option<u32> {
        if declared.is_unknown() {
            self.attestations += 1;
            return None;
        }
        if declared.architecture.is_empty() {
            return Some(u32::MAX);
        }
        let own = declared.platform().filter(|_| declared.features.is_empty());
        if own.is_some_and(|own| own.is_same_machine(wanted) && own.rank(wanted).is_none()) {
            return Some(u32::MAX - 1);
        }
        self.rank(declared, wanted).map(|(rank, _)| rank)
    }

    /// Reads the manifest and the config of an image; `None`, with a note of the reason, if it
    /// is not one.
    fn load(&mut self, store: &dyn Store, descriptor: &Descriptor) -> Result<Option<Chosen>> {
        let digest = descriptor.digest;
        let Some(bytes) = blob(store, descriptor)? else {
            self.note(digest, "the blob is missing");
            return Ok(None);
        };
        let document = parse(&bytes, digest)?;
        document.expect(Kind::Manifest)?;
        let read = || -> Result<Manifest> {
            let manifest = document.manifest()?;
            manifest.is_of_image()?;
            for (i, layer) in manifest.layers.iter().enumerate() {
                known_layer(&layer.media_type)
                    .map_err(|why| why.context(format!("layer {} ({})", i + 1, layer.digest)))?;
            }
            Ok(manifest)
        };
        let manifest = match read() {
            Ok(manifest) => manifest,
            Err(why) => {
                self.note(digest, why);
                return Ok(None);
            }
        };
        let Some(config) = blob(store, &manifest.config)? else {
            self.note(digest, format!("its config {} is missing", manifest.config.digest));
            return Ok(None);
        };
        Ok(Some(Chosen { digest, manifest, config, platform: None, note: None }))
    }
}

fn parse(bytes: &[u8], digest: Digest) -> Result<Document> {
    Document::parse(bytes).map_err(|error| error.context(digest.to_string()))
}
