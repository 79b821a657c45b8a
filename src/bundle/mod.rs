//! The bundle: a directory that can be moved, and what is said of it.

pub mod artifact;
pub mod content;
pub mod index;
pub mod inspect;
pub(crate) mod leftover;
pub(crate) mod made;
pub mod open;
pub mod place;
mod rules;
pub mod seal;
pub mod sign;
pub mod signature;
pub mod sound;
pub mod staging;
pub mod start;
mod swap;
pub mod vmdk;

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

/// Path of a layer in its bundle.
pub fn layer_path(diff_id: crate::digest::DiffId) -> String {
    format!("{LAYERS}/sha256-{}.erofs", diff_id.hex())
}
