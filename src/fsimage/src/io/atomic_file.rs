//! Small files that appear whole, for whoever reads them at the same time.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use crate::io::dir::Dir;
use crate::io::shared_dir;
use crate::io::temporary::Temporary;

/// Writes all of `from` to `path`, in the place of what is there.
///
/// # Errors
/// When `from` cannot be read, or the file cannot be made, written, synced or renamed to
/// `path`.
pub fn write(path: &Path, from: &mut dyn Read) -> io::Result<()> {
    let temporary = Temporary::create(path.parent().unwrap_or(Path::new("")), 0o644)?;
    finish(temporary, path, from)
}

/// Writes all of `from` to the file `name` of the directory `dir`, in the place of what
/// is there.
///
/// # Errors
/// When `from` cannot be read, or the file cannot be made, written, synced or renamed to
/// `name`.
pub fn write_in(dir: &File, name: &str, from: &mut dyn Read) -> io::Result<()> {
    finish(Temporary::create_in(dir, 0o644)?, Path::new(name), from)
}

/// Writes `bytes` to the file `name` of `dir`, in the place of what is there. All who
/// share the directory may read it.
///
/// # Errors
/// Of the kind [`io::ErrorKind::PermissionDenied`] if what has the name is another user's
/// ([`shared_dir::is_ours`]), and when the file cannot be made, written, synced or renamed.
pub fn write_shared(dir: &Dir, name: &OsStr, bytes: &[u8]) -> io::Result<()> {
    shared_dir::is_ours(dir, name)?;
    let temporary = Temporary::create_in(dir.file(), 0o644)?;
    shared_dir::share(dir, temporary.file())?;
    finish(temporary, Path::new(name), &mut &bytes[..])
}

fn finish(temporary: Temporary, path: &Path, from: &mut dyn Read) -> io::Result<()> {
    io::copy(from, &mut temporary.file())?;
    temporary.file().sync_all()?;
    temporary.replace(path).map(drop)
}
