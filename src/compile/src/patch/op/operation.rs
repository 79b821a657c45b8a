//! What all operations have in common.

use std::path::PathBuf;

use anyhow::{Result, bail, ensure};

use crate::patch::work::Work;

/// An operation: what a manifest says of it is the type that implements this.
pub(in crate::patch) trait Operation {
    /// The key that names the operation, and what it is about.
    fn title(&self) -> (&'static str, String);

    /// Finds what is wrong before any image is opened: each field by itself, and all
    /// of them together.
    fn check(&self) -> Result<()>;

    /// Changes the tree of `work`.
    fn apply(&self, work: &mut Work<'_>) -> Result<()>;
}

/// Checks a path of the guest.
pub(super) fn guest_path(path: &str) -> Result<()> {
    ensure!(path.starts_with('/'), "the path {path:?} is not absolute");
    ensure!(!path.contains('\0'), "the path holds a NUL");
    ensure!(path.len() < 4096, "the path has {} bytes; Linux allows 4095", path.len());
    match path.split('/').find(|name| name.len() > 255) {
        Some(name) => bail!("a name of {} bytes; Linux allows 255", name.len()),
        None => Ok(()),
    }
}

/// A path whose components may be globs. Whether they are sound ones counts only
/// where no file has such a name.
pub(super) fn guest_glob(path: &str) -> Result<()> {
    match path.contains(['*', '?', '[', '{']) {
        true if path.starts_with('/') && !path.contains('\0') && path.len() < 4096 => Ok(()),
        _ => guest_path(path),
    }
}

/// Checks that one of two ways to give a content was chosen.
pub(super) fn one_source(content: Option<&String>, from: Option<&PathBuf>) -> Result<()> {
    match (content, from) {
        (Some(_), Some(_)) => bail!("it has both content and from; one of them is enough"),
        (None, None) => bail!("it needs content, or from with a file of the host"),
        _ => Ok(()),
    }
}

/// The default of a path that is the root.
pub(super) fn root() -> String {
    "/".into()
}
