//! Small files that appear whole, for whoever reads them at the same time.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

/// How the names of files begin that are not whole yet.
const PREFIX: &str = ".whole-";

/// Removes from `dir` what writers left that were stopped. None may be at it.
pub fn remove_left(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_name().as_encoded_bytes().starts_with(PREFIX.as_bytes()) {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// Writes all of `from` to `path`, in the place of what is there.
pub fn write(path: &Path, from: &mut dyn Read) -> io::Result<()> {
    let mut file = temporary(path)?;
    io::copy(from, &mut file)?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    Ok(())
}

/// A file in the directory of `path` that is to become it; gone if it does not.
pub fn temporary(path: &Path) -> io::Result<tempfile::NamedTempFile<File>> {
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty());
    let mut builder = tempfile::Builder::new();
    builder.prefix(PREFIX);
    builder.permissions(fs::Permissions::from_mode(0o644));
    builder.tempfile_in(dir.unwrap_or(Path::new(".")))
}
