//! Why layers do not make a tree.

use super::journal;
use crate::budget::{Exhausted, TooManySteps};
use crate::tree::arena::TooManyInodes;

/// Why layers do not make a tree.
#[derive(Debug, thiserror::Error)]
pub enum MergeError {
    #[error("{0}: symbolic links lead in a circle")]
    Loop(String),
    #[error("{0}: a symbolic link on the way has a target that cannot be a path")]
    LinkTarget(String),
    #[error("{path}: a hard link to {target}, which neither this layer nor one below has")]
    LinkNowhere { path: String, target: String },
    #[error("{0}: a hard link to a directory")]
    LinkToDir(String),
    #[error("{path}: its target {target} is a hard link too, and they lead in a circle")]
    LinkLoop { path: String, target: String },
    #[error(
        "{path}: deeper than {max} directories when symbolic links are followed (raise --max-depth \
         to allow it)"
    )]
    TooDeep { path: String, max: u64 },
    #[error(transparent)]
    Exhausted(#[from] Exhausted),
    #[error(transparent)]
    Steps(#[from] TooManySteps),
    #[error(transparent)]
    Journal(#[from] journal::Damaged),
    #[error(transparent)]
    TooMany(#[from] TooManyInodes),
}
