//! A manifest, checked.

use std::path::PathBuf;

use bundle::boot::Boot;
use oci::{ImageRef, Platform};

use crate::manifest::written::{Upper, VerifyImage};
use crate::patch::located::{Location, Patch};

/// What an image becomes. One that was read is checked already; the patches of one that code
/// made are checked when it is built. Paths of the host are relative to the working directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// The image that the bundle is made of.
    pub image: ImageRef,
    /// Who must have signed the image.
    pub verify_image: Option<VerifyImage>,
    /// That of the host's architecture when it is not given.
    pub platform: Option<Platform>,
    /// The writable upper: its size.
    pub upper: Upper,
    /// Where the manifest speaks of the upper, or its first line.
    pub upper_at: Location,
    /// How the bundle boots.
    pub boot: Boot,
    /// In the order in which they are applied, those of included files in place.
    pub patches: Vec<Patch>,
    /// Files that the manifest includes.
    pub included: Vec<PathBuf>,
}
