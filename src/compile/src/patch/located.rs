//! Patches, and where each is written.

use std::fmt;
use std::path::PathBuf;

use crate::patch::op::Op;

/// A line of a manifest, or of a file that it includes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Location {
    /// The path of the file, or the name of the image where there is no manifest.
    pub file: PathBuf,
    /// From 1; 0 if it is not known.
    pub line: usize,
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "{}", self.file.display()),
            line => write!(f, "{}:{line}", self.file.display()),
        }
    }
}

/// One patch, and where it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Patch {
    /// The line that the patch begins on.
    pub at: Location,
    /// The operation.
    pub op: Op,
}

impl fmt::Display for Patch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.at, self.op)
    }
}
