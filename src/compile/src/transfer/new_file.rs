//! Files that an export makes, and never replaces.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::Path;

use anyhow::{Context as _, Result, anyhow};
use fsimage::io::temporary::{self, Temporary};

/// Makes a new file at `path`, which appears whole or not at all; one that is
/// there stays as it is.
pub(super) fn new_file(path: &Path, write: impl FnOnce(&File) -> Result<()>) -> Result<()> {
    let there = || anyhow!("{} is there; it stays as it is", path.display());
    let make = || -> Result<()> {
        let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty());
        let dir = dir.unwrap_or(Path::new("."));
        temporary::remove_left(dir)?;
        let file = Temporary::create(dir, 0o644)?;
        write(file.file())?;
        file.file().sync_all()?;
        match file.persist_new(path) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Err(there()),
            persisted => Ok(persisted.map(drop)?),
        }
    };
    // Again at the end: this only saves the work.
    if fs::symlink_metadata(path).is_ok() {
        return Err(there());
    }
    make().with_context(|| path.display().to_string())
}
