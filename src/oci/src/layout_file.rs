//! Names of the files of an OCI image layout (image-layout.md).

use fsimage::digest::Digest;

/// The file that lists the images of the layout.
pub const INDEX: &str = "index.json";

/// The file that makes a directory a layout.
pub const LAYOUT: &str = "oci-layout";

/// The content of [`LAYOUT`] in layouts that this project writes.
pub const LAYOUT_JSON: &[u8] = br#"{"imageLayoutVersion":"1.0.0"}"#;

/// The directory of the blobs that have a SHA-256 digest.
const BLOBS: &str = "blobs/sha256/";

/// The path of the file of the blob `digest`.
pub fn blob(digest: Digest) -> String {
    format!("{BLOBS}{}", digest.hex())
}

/// The digest of the blob whose file has the path `name`.
pub(crate) fn digest_of(name: &str) -> Option<Digest> {
    format!("sha256:{}", name.strip_prefix(BLOBS)?).parse().ok()
}
