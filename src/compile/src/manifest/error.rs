//! Why there is no manifest.

use std::path::PathBuf;

use crate::manifest::types::Patch;

/// Why there is no manifest.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    #[error("{}: {source}", path.display())]
    Io { path: PathBuf, source: std::io::Error },
    #[error("{}{}: {source}", path.display(), yaml_place(source))]
    Yaml { path: PathBuf, source: serde_yaml::Error },
    /// `place` is empty or `:LINE:COLUMN`.
    #[error("{}{place}: {what}", path.display())]
    Value { path: PathBuf, place: String, what: String },
    #[error("{0}: {1}")]
    Patch(Box<Patch>, String),
    #[error("--set {0}")]
    Set(String),
}

pub(super) fn yaml_place(error: &serde_yaml::Error) -> String {
    error.location().map_or_else(String::new, |at| format!(":{}:{}", at.line(), at.column()))
}
