//! Fuzz targets: each takes any bytes and panics if something does not hold that must hold
//! of whatever other people's bytes are read as.
//!
//! The programs in `fuzz_targets` take them from libFuzzer, and `ci/fuzz` runs those programs for
//! a while, from the committed corpora on.

mod diff;
mod erofs;
mod image;
mod index;
mod layer;
mod manifest;
mod memory;
mod merge;
mod reference;
mod shape;

pub use self::diff::diff;
pub use self::erofs::erofs;
pub use self::image::{docker_archive, layout};
pub use self::index::{index, vmdk};
pub use self::layer::layer;
pub use self::manifest::manifest;
pub use self::merge::merge;
pub use self::reference::reference;
