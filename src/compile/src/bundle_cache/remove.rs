//! Removes bundles from a cache: through open directories of this user, and only what
//! a build made.

use std::ffi::OsStr;

use anyhow::{Context as _, Result};
use bundle::leftover;
use bundle::made::{Made, unlink};
use fsimage::io::dir::Dir;
use rustix::fs::AtFlags;

use crate::bundle_cache::record::{RECORD, numbered};

/// Removes every answer of the place `place`, which is locked, and its record. The
/// record goes first: it must not speak for what is gone.
pub(super) fn answers(place: &Dir) -> Result<()> {
    unlink(place.file(), RECORD, AtFlags::empty()).context(RECORD)?;
    numbered(place)?.iter().try_for_each(|number| answer(place, number))
}

/// Removes the answer `number` of the place `place`, with what killed runs left in it.
/// What no build made stays, and is an error.
pub(super) fn answer(place: &Dir, number: &OsStr) -> Result<()> {
    let remove = || -> Result<()> {
        let dir = place.sub(number)?.own()?;
        for name in dir.names()? {
            if let Some(target) = leftover::target(&name) {
                leftover::clear(dir.file(), &dir.path, target)?;
            }
        }
        dir.names()?.iter().try_for_each(|name| bundle(&dir, name))?;
        Ok(unlink(place.file(), number, AtFlags::REMOVEDIR)?)
    };
    remove().with_context(|| place.path.join(number).display().to_string())
}

/// Removes the bundle `name` of `dir`.
pub(super) fn bundle(dir: &Dir, name: &OsStr) -> Result<()> {
    let bundle = dir.sub(name)?.own()?;
    // Invariant: only bundles are made in directories of this user that have a number.
    let made = Made::read(bundle.file()).ok().flatten().unwrap_or(Made::Unfinished);
    made.remove(bundle.file()).with_context(|| bundle.path.display().to_string())?;
    Ok(unlink(dir.file(), name, AtFlags::REMOVEDIR)?)
}
