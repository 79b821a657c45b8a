//! Why a manifest could not be read.

use std::path::PathBuf;

use crate::patch::located::Patch;

/// Why a manifest could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// The manifest or a file that it includes cannot be read.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// The file is not YAML.
    #[error("{}{}: {source}", path.display(), yaml_place(source))]
    Yaml {
        /// The file.
        path: PathBuf,
        /// What the parser says, with the line and column if it knows them.
        source: serde_yaml::Error,
    },
    /// The text is too large or nested too deeply, or a key or a value is not one that a
    /// manifest has. `place` is empty or `:LINE:COLUMN`.
    #[error("{}{place}: {what}", path.display())]
    Value {
        /// The file.
        path: PathBuf,
        /// Where in the file: empty if that is not known.
        place: String,
        /// What is wrong, for the user.
        what: String,
    },
    /// A patch that cannot be applied to any image, and why.
    #[error("{0}: {1}")]
    Patch(Box<Patch>, String),
    /// A variable of `--set` that is misnamed or unused, and how.
    #[error("--set {0}")]
    Set(String),
}

pub(super) fn yaml_place(error: &serde_yaml::Error) -> String {
    error.location().map_or_else(String::new, |at| format!(":{}:{}", at.line(), at.column()))
}
