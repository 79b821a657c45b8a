//! Blobs: their names in a layout, and small ones, checked.

use anyhow::{Context as _, Result, ensure};
use fsimage::digest::Digest;

use crate::document::Descriptor;
use crate::not_there::NotThere;
use crate::store::Store;

/// What a layout calls a blob.
pub(crate) fn blob_name(digest: Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

/// The digest in the name of a layout's blob.
pub(crate) fn digest_of(name: &str) -> Option<Digest> {
    format!("sha256:{}", name.strip_prefix("blobs/sha256/")?).parse().ok()
}

/// A small blob, checked; `None` if it is not there.
pub(crate) fn blob(store: &dyn Store, descriptor: &Descriptor) -> Result<Option<Vec<u8>>> {
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
