//! Which of all that an index leads to is meant.
//!
//! An index holds more than images: what builders say about them, signatures,
//! artifacts, documents of older and newer kinds. Whatever is not an image for the
//! platform is passed over as long as there is one; where there is none, an error
//! says what was there. What cannot be read is another matter: it stops the
//! build, so that the choice never depends on a broken wire.

use std::collections::{BTreeSet, HashSet};

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

/// Indexes within indexes.
const MAX_NESTING: usize = 8;
/// Indexes and manifests below what a reference names.
const MAX_DESCRIPTORS: usize = 10_000;

/// An image, chosen.
pub(crate) struct Chosen {
    pub digest: Digest,
    pub manifest: Manifest,
    /// The bytes of the config.
    pub config: Vec<u8>,
    /// What the index says that it is for.
    pub platform: Option<Platform>,
    /// How it was chosen, where there was a choice.
    pub note: Option<String>,
}

/// What a group leads to.
#[derive(Default)]
struct Collected {
    manifests: Vec<Descriptor>,
    /// Digests that were met and are not the pinned one.
    others: Vec<Digest>,
    /// What was met already, and whether below the pinned one.
    seen: HashSet<(Digest, bool)>,
    /// Descriptors met, some perhaps of the same document.
    visits: usize,
    /// Whether anything has the pinned digest.
    is_pinned: bool,
    /// What is not an image for the platform, and why.
    passed: Passed,
}

#[derive(Default)]
struct Passed {
    /// Platforms of images for others.
    platforms: BTreeSet<String>,
    /// What is not an image, and why, as far as an error lists it.
    reasons: Vec<String>,
    /// How many more there are.
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

    /// Why there is no image for `wanted`.
    fn error(mut self, wanted: &Platform) -> anyhow::Error {
        if self.attestations > 0 && self.platforms.is_empty() {
            self.reason(format!("{} attestations", self.attestations));
        }
        let there: Vec<String> = self.platforms.into_iter().collect();
        let mut text = format!("there is no {wanted}");
        if !there.is_empty() {
            text += &format!("; there is: {}", shown_list(&there));
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

/// The image for `wanted`, of the manifest or index with the digest `pin` if one is
/// given. `None` if nothing has that digest; then `others` are what there is.
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
    /// Collects the manifests below `descriptor`.
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
            // Where the descriptor does not say what it is, the document does.
            None if media_type.is_empty() => match self.document(store, descriptor)? {
                Some(document) => document.kind,
                None => return Ok(()),
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

    /// The best manifest for `wanted`: of those that the index has for it, else of
    /// those of which only the config says what they are for, else of those that
    /// call themselves artifacts; of several that are equally good the first, as
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
    /// How well an entry for `declared` serves. None that needs features of the
    /// system does: there is not one that this program has.
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

    /// The same for what a config declares. There, a variant is no reason against
    /// an image, only against one that has a better one beside it; and a config
    /// that says nothing may be for anything.
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

    /// Reads an image; `None` if it is none.
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
