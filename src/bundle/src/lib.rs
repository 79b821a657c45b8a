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

/// The layer whose file in a bundle is called `path`, which is that of [`layer_path`].
pub fn layer_at(path: &str) -> Option<fsimage::digest::DiffId> {
    let name = path.strip_prefix(LAYERS)?.strip_prefix("/sha256-")?;
    format!("sha256:{}", name.strip_suffix(".erofs")?).parse().ok()
}

/// Path of a layer in its bundle.
pub fn layer_path(diff_id: fsimage::digest::DiffId) -> String {
    format!("{LAYERS}/sha256-{}.erofs", diff_id.hex())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layer_is_told_by_its_path() {
        let layer = fsimage::digest::Digest::of(b"x");
        let path = layer_path(layer);
        assert_eq!(layer_at(&path), Some(layer));
        for other in [FSMETA, LAYERS, "", &path[1..], &path[..path.len() - 1], &path.to_uppercase()]
        {
            assert_eq!(layer_at(other), None, "{other}");
        }
    }
}
