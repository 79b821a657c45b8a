//! The bundle: a directory that can be moved, which a virtual machine boots from.
//!
//! A bundle is made beside its place ([`staging`]) and gets its name when it is whole.
//! Nothing is removed that this program did not make ([`made`], [`leftover`]).
//! [`signature`] says who vouches for a bundle.

pub mod boot;
pub mod content;
pub mod index;
pub mod inspect;
pub mod leftover;
pub mod made;
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
pub fn layer_path(diff_id: fsimage::digest::DiffId) -> String {
    format!("{LAYERS}/sha256-{}.erofs", diff_id.hex())
}
