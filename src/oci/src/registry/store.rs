//! An image in a registry as a store, to be read like a layout.

use std::collections::{HashMap, HashSet};
use std::io::Read;
use std::sync::{Arc, Mutex};

use anyhow::{Context as _, Result, bail, ensure};
use fsimage::digest::Digest;

use super::access::Access;
use super::blob::BlobReader;
use super::client::{Client, Purpose};
use super::documents::Documents;
use crate::distribution::Reference;
use crate::document::Descriptor;
use crate::not_there::NotThere;
use crate::pace::{LEAST, Pace};
use crate::store::{Key, MAX_DOCUMENT, Store};
use crate::{json, layout};

/// The store of what one reference to a registry names.
#[derive(Debug)]
pub struct RegistryStore {
    reference: Reference,
    client: Option<Arc<Client>>,
    documents: Documents,
    /// Digest of what the reference led to.
    named: Digest,
    /// The descriptor of what the reference led to, once that was read.
    entry: Option<Descriptor>,
    known: Mutex<Known>,
    min_rate: u64,
}

/// What the documents that were read say of other blobs.
#[derive(Debug, Default)]
struct Known {
    /// Digests that are manifests or indexes.
    manifests: HashSet<Digest>,
    /// The size of each blob.
    sizes: HashMap<Digest, u64>,
}

impl RegistryStore {
    /// Opens what `reference` names.
    ///
    /// # Errors
    /// When the registry does not have it or cannot be reached, it is not cached while
    /// offline, or it is damaged or not a manifest.
    pub fn open(reference: &Reference, access: &Access) -> Result<Self> {
        let client = match access.offline {
            true => None,
            false => Some(Arc::new(Client::new(reference, access, Purpose::Read)?)),
        };
        let documents = Documents::new(&access.documents);
        let tag = documents.tag(reference);
        let last = if access.known_tags { documents.get_tag(&tag)? } else { None };
        let digest = match (&client, reference.digest().or(last)) {
            (_, Some(digest)) if documents.get(digest)?.is_some() => digest,
            (Some(client), _) => {
                let bytes = client.manifest(reference)?;
                let digest = documents.put(&bytes)?;
                documents.set_tag(&tag, digest)?;
                digest
            }
            (None, Some(digest)) => {
                bail!("{digest} is not cached, and --offline forbids to ask for it")
            }
            (None, None) => match documents.get_tag(&tag)? {
                Some(digest) => digest,
                None => bail!("{reference} is not cached, and --offline forbids to ask for it"),
            },
        };
        let known = Known { manifests: HashSet::from([digest]), ..Known::default() };
        let mut store = Self {
            reference: reference.clone(),
            client,
            documents,
            named: digest,
            entry: None,
            known: Mutex::new(known),
            min_rate: access.min_rate.unwrap_or(LEAST),
        };
        let bytes = store.by_digest(digest)?;
        store.entry = Some(layout::entry_of(&bytes, digest, reference.tag())?);
        Ok(store)
    }

    /// The digest that the reference led to.
    pub fn named(&self) -> Digest {
        self.named
    }

    /// What `tag` of the same repository leads to; `None` if there is no such tag.
    ///
    /// # Errors
    /// When the registry cannot be reached or answers with something other than a
    /// manifest, or the cache cannot be read or written.
    pub fn tagged(&self, tag: &str) -> Result<Option<Vec<u8>>> {
        let reference = self.reference.with_tag(tag);
        let Some(client) = &self.client else {
            return self.known_tag(&reference);
        };
        match client.manifest(&reference) {
            Ok(bytes) => self.keep(&reference, bytes).map(Some),
            Err(error) if error.is::<NotThere>() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The index of what refers to `digest`: by the registry's API for referrers or, where it
    /// has none, by the tag that is made of the digest (OCI distribution 1.1).
    ///
    /// # Errors
    /// When the registry cannot be reached or answers with something other than a
    /// manifest, or the cache cannot be read or written.
    pub fn referrers(&self, digest: Digest) -> Result<Option<Vec<u8>>> {
        let tag = format!("sha256-{}", digest.hex());
        let own = match &self.client {
            Some(client) => client.referrers(digest)?,
            None => None,
        };
        match own {
            Some(bytes) => self.keep(&self.reference.with_tag(tag), bytes).map(Some),
            None => self.tagged(&tag),
        }
    }

    /// The digest of the index that `tag` leads to, if that lists `digest`.
    ///
    /// # Errors
    /// When the registry cannot be reached or answers with something other than a
    /// manifest, or the cache cannot be read or written.
    pub fn index_with(&self, tag: &str, digest: Digest) -> Result<Option<Digest>> {
        let Some(bytes) = self.tagged(tag)? else {
            return Ok(None);
        };
        let value: serde_json::Value = crate::foreign_json::from_slice(&bytes).unwrap_or_default();
        let listed = json::list(&value, "manifests").unwrap_or_default();
        let is_it = |entry| matches!(json::text(entry, "digest"), Ok(Some(text)) if text == digest.to_string());
        let is_there = listed.iter().any(is_it);
        Ok(is_there.then(|| Digest::of(&bytes)))
    }

    /// Stores what `reference` led to, for when there is no connection.
    fn keep(&self, reference: &Reference, bytes: Vec<u8>) -> Result<Vec<u8>> {
        let digest = self.documents.put(&bytes)?;
        self.documents.set_tag(&self.documents.tag(reference), digest)?;
        self.learn(&bytes);
        Ok(bytes)
    }

    /// The stored answer for `reference`.
    fn known_tag(&self, reference: &Reference) -> Result<Option<Vec<u8>>> {
        let digest = self.documents.get_tag(&self.documents.tag(reference))?;
        digest.map(|digest| self.by_digest(digest)).transpose()
    }

    /// A manifest, an index, a config, or another small blob that one of them names.
    ///
    /// # Errors
    /// When it is not cached while offline, no document says its size, it is damaged or
    /// too large, or the registry cannot be reached.
    pub fn by_digest(&self, digest: Digest) -> Result<Vec<u8>> {
        let bytes = match self.documents.get(digest)? {
            Some(bytes) => bytes,
            None => {
                let Some(client) = &self.client else {
                    bail!("{digest} is not cached, and --offline forbids to ask for it");
                };
                let is_manifest = self.known().manifests.contains(&digest);
                let bytes = match is_manifest {
                    true => client.manifest(&self.reference.with_digest(digest))?,
                    false => self.whole_blob(digest)?,
                };
                let is = Digest::of(&bytes);
                ensure!(is == digest, "its content has the digest {is}: it is damaged");
                self.documents.put(&bytes)?;
                bytes
            }
        };
        self.learn(&bytes);
        Ok(bytes)
    }

    fn whole_blob(&self, digest: Digest) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let blob = self.blob(digest)?;
        ensure!(
            blob.1 <= MAX_DOCUMENT,
            "{digest} has {} bytes; {MAX_DOCUMENT} are allowed",
            blob.1
        );
        blob.0.take(MAX_DOCUMENT).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    fn blob(&self, digest: Digest) -> Result<(BlobReader, u64)> {
        let Some(client) = &self.client else {
            bail!("the blob is not cached, and --offline forbids to ask for it");
        };
        let size = self.known().sizes.get(&digest).copied();
        let size = size.context("no manifest says how large it is")?;
        let pace = Pace::new(self.min_rate);
        Ok((BlobReader::new(client.clone(), digest, size, pace), size))
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Known> {
        self.known.lock().expect("no holder panics")
    }

    /// Records what `document` says of other blobs. Bytes that are not a manifest or an index
    /// are ignored here, and refused by whoever reads the layout.
    fn learn(&self, document: &[u8]) {
        let Ok(value) = crate::foreign_json::from_slice::<serde_json::Value>(document) else {
            return;
        };
        let mut known = self.known();
        let mut take = |descriptor: &serde_json::Value, is_manifest: bool| {
            let digest = json::text(descriptor, "digest").ok().flatten();
            let digest = digest.and_then(|text| text.parse().ok());
            let size = json::field(descriptor, "size").ok().flatten();
            if let (Some(digest), Some(size)) = (digest, size.and_then(|size| size.as_u64())) {
                known.sizes.insert(digest, size);
                if is_manifest {
                    known.manifests.insert(digest);
                }
            }
        };
        for (key, are_manifests) in [("manifests", true), ("layers", false)] {
            let list = json::list(&value, key).unwrap_or_default();
            list.iter().for_each(|descriptor| take(descriptor, are_manifests));
        }
        if let Ok(Some(config)) = json::field(&value, "config") {
            take(config, false);
        }
    }
}

impl Store for RegistryStore {
    fn open(&self, key: &Key) -> Result<Option<(Box<dyn Read + Send + '_>, u64)>> {
        let Key::Blob(digest) = *key else {
            return Ok(None);
        };
        let (blob, size) = self.blob(digest)?;
        Ok(Some((Box::new(blob), size)))
    }

    fn has(&self, key: &Key) -> Result<bool> {
        match (&self.client, key) {
            (Some(client), Key::Blob(digest)) => client.has_blob(*digest),
            // Not known without a connection; opening the blob fails then.
            _ => Ok(true),
        }
    }

    /// Not told, because each size would take a request.
    fn size(&self, _key: &Key) -> Result<Option<u64>> {
        Ok(None)
    }

    fn document(&self, key: &Key) -> Result<Option<Vec<u8>>> {
        match key {
            Key::Blob(digest) => self.by_digest(*digest).map(Some),
            Key::File(_) => Ok(None),
        }
    }

    fn entry(&self) -> Option<&Descriptor> {
        self.entry.as_ref()
    }
}
