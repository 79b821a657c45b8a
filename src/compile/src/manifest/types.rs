//! A manifest, checked.

use std::fmt;
use std::path::PathBuf;

use bundle::boot::Boot;
use oci::{ImageRef, Platform};

use crate::manifest::patch::Op;
use crate::manifest::place::Place;
use crate::manifest::written::{Upper, VerifyImage};

/// A manifest, checked.
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
    pub upper_at: Place,
    /// How the bundle boots.
    pub boot: Boot,
    /// In the order in which they are applied, those of included files in place.
    pub patches: Vec<Patch>,
    /// Files that the manifest includes.
    pub included: Vec<PathBuf>,
}

/// One patch, and where it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Patch {
    /// The line that the patch begins on.
    pub at: Place,
    /// The operation.
    pub op: Op,
}

impl fmt::Display for Patch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.at, self.op)
    }
}
