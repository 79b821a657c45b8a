//! The names of the files of a bundle.

use fsimage::digest::DiffId;

/// The merged metadata.
pub const FSMETA: &str = "fsmeta.erofs";
/// The writable upper.
pub const UPPER: &str = "upper.ext4";
/// The disk descriptor.
pub const VMDK: &str = "bundle.vmdk";
/// The index.
pub const INDEX: &str = "bundle.json";
/// A signature over the index. A bundle need not have one, and the index does not name
/// it.
pub const SIGNATURE: &str = "bundle.json.minisig";
/// The directory of layers.
pub const LAYERS: &str = "layers";

/// The layer whose file in a bundle has the path `path`; the reverse of [`layer_path`].
pub fn layer_at(path: &str) -> Option<DiffId> {
    let name = path.strip_prefix(LAYERS)?.strip_prefix("/sha256-")?;
    format!("sha256:{}", name.strip_suffix(".erofs")?).parse().ok()
}

/// The path of a layer's file in a bundle.
pub fn layer_path(diff_id: DiffId) -> String {
    format!("{LAYERS}/sha256-{}.erofs", diff_id.hex())
}
