//! The disk as one flat file, for machines that do not read descriptors.

use std::io::{self, Seek as _};
use std::path::Path;

use anyhow::{Context as _, Result};

use super::new_file;
use crate::bundle::open::OpenBundle;

/// Writes the disk of the bundle `dir` to the new file `to`; returns its bytes.
pub fn to_raw(dir: &Path, to: &Path) -> Result<u64> {
    let bundle = OpenBundle::open(dir, true)?;
    let out = new_file(to)?;
    let write = || -> io::Result<u64> {
        let mut bytes = 0;
        for extent in &bundle.disk {
            let mut file = extent.file.try_clone()?;
            file.rewind()?;
            bytes += io::copy(&mut file, &mut &out)?;
        }
        out.sync_all()?;
        Ok(bytes)
    };
    write().with_context(|| to.display().to_string()).inspect_err(|_| {
        // Half a disk is none.
        let _ = std::fs::remove_file(to);
    })
}
