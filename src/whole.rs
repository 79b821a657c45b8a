//! Small files that appear whole, for whoever reads them at the same time.

use std::io::{self, Read};
use std::path::Path;

use crate::temporary::Temporary;

/// Writes all of `from` to `path`, in the place of what is there.
pub fn write(path: &Path, from: &mut dyn Read) -> io::Result<()> {
    let temporary = Temporary::create(path.parent().unwrap_or(Path::new("")), 0o644)?;
    io::copy(from, &mut temporary.file())?;
    temporary.file().sync_all()?;
    temporary.replace(path).map(drop)
}
