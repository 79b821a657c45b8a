//! The disk as one flat file, for machines that do not read descriptors.

use std::io::{self, Seek as _};
use std::path::Path;

use anyhow::Result;
use bundle::open::OpenBundle;
use bundle::opened::Place;
use bundle::sound::Depth;

use crate::transfer::new_file::new_file;

/// Writes the disk of the bundle `dir` to the new file `to`.
///
/// # Errors
/// It fails when the bundle is not sound or changes meanwhile, and when `to` is there already
/// or cannot be written.
pub fn to_raw(place: Place, to: &Path) -> Result<()> {
    let bundle = OpenBundle::open_found(place, Depth::Full)?;
    new_file(to, |mut out| {
        for extent in &bundle.disk {
            let mut file = extent.file.try_clone()?;
            file.rewind()?;
            io::copy(&mut file, &mut out)?;
        }
        bundle.unchanged()
    })
}
