//! The bundle: a directory that can be moved, which a virtual machine boots from.
//!
//! [`open`] opens one, [`index`] is its description of itself, [`sound`] checks all of it, and
//! [`signature`] checks who signed it.
//!
//! ```no_run
//! let place = bundle::opened::Place::find("app".as_ref())?;
//! for problem in bundle::sound::verify(&place, &[]) {
//!     println!("{}: {:#}", problem.path, problem.error);
//! }
//! # Ok::<(), anyhow::Error>(())
//! ```
//!
//! A build makes a bundle in a directory beside its place ([`staging`]), and publishes it
//! atomically, by a rename. Nothing is removed that a build did not make ([`made`],
//! [`leftover`]).

#![warn(missing_debug_implementations, missing_docs, clippy::missing_errors_doc)]

pub mod boot;
pub mod content;
pub mod index;
pub mod inspect;
pub mod leftover;
pub mod made;
mod missing;
mod names;
pub mod open;
pub mod opened;
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

pub use self::names::{FSMETA, INDEX, LAYERS, SIGNATURE, UPPER, VMDK, layer_at, layer_path};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layer_is_told_by_its_path() {
        let layer = fsimage::digest::DiffId::of(b"x");
        let path = layer_path(layer);
        assert_eq!(layer_at(&path), Some(layer));
        for other in [FSMETA, LAYERS, "", &path[1..], &path[..path.len() - 1], &path.to_uppercase()]
        {
            assert_eq!(layer_at(other), None, "{other}");
        }
    }
}
