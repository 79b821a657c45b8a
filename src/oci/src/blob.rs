//! Reads small blobs: manifests, indexes and configs.

use anyhow::{Context as _, Result, ensure};
use fsimage::digest::Digest;

use crate::document::Descriptor;
use crate::not_there::NotThere;
use crate::store::{Key, Store};

/// The blob of `descriptor`, whose size and digest were checked; `None` if it is not there.
pub(crate) fn blob(store: &dyn Store, descriptor: &Descriptor) -> Result<Option<Vec<u8>>> {
    let digest = descriptor.digest;
    let read = || {
        let bytes = match store.document(&Key::Blob(digest)) {
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
