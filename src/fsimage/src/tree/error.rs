//! Why layers do not make a tree.

use super::journal;
use crate::budget::{Exhausted, TooManySteps};
use crate::tree::arena::TooManyInodes;

/// Why layers do not make a tree.
#[derive(Debug, thiserror::Error)]
pub enum MergeError {
    /// More than 40 symbolic links are on the way of this entry's path, or of its target.
    #[error("{0}: symbolic links lead in a circle")]
    Loop(String),
    /// A symbolic link on the way of this entry's path has a target with a component that is
    /// not a name.
    #[error("{0}: a symbolic link on the way has a target that cannot be a path")]
    LinkTarget(String),
    /// The target of a hard link is in no layer so far.
    #[error("{path}: a hard link to {target}, which neither this layer nor one below has")]
    LinkNowhere {
        /// Where the hard link is.
        path: String,
        /// The path that it names.
        target: String,
    },
    /// The target of the hard link at this path is a directory.
    #[error("{0}: a hard link to a directory")]
    LinkToDir(String),
    /// Hard links name each other, and none of them a file.
    #[error("{path}: its target {target} is a hard link too, and they lead in a circle")]
    LinkLoop {
        /// Where the first of the hard links is.
        path: String,
        /// The target of the one that is met twice.
        target: String,
    },
    /// A path has more components than are allowed once its symbolic links are followed.
    #[error(
        "{path}: deeper than {max} directories when symbolic links are followed (raise --max-depth \
         to allow it)"
    )]
    TooDeep {
        /// The path as the layer has it.
        path: String,
        /// How many components are allowed.
        max: u64,
    },
    /// The merge needs more memory than its budget allows.
    #[error(transparent)]
    Exhausted(#[from] Exhausted),
    /// The merge walks more components of paths than are allowed.
    #[error(transparent)]
    Steps(#[from] TooManySteps),
    /// The layer's journal is not one that this compiler wrote.
    #[error(transparent)]
    Journal(#[from] journal::Damaged),
    /// The merged tree would need more than 2³² inodes.
    #[error(transparent)]
    TooMany(#[from] TooManyInodes),
}
