//! Checks the bundles of a cache, and takes away what killed runs left.

use std::fs;
use std::io;
use std::path::Path;

use anyhow::{Context as _, Result, anyhow};

use super::{BUNDLES, RECORD, numbered, read_record};
use crate::bundle::open::Place;
use crate::bundle::sound::verify;
use crate::{dir, flock, shared_dir, temporary};

/// What a check of bundles tells, one place after the other.
pub enum Seen<'p> {
    Good,
    /// Something is wrong; the directory is that of the bundle, or of its place.
    Problem(&'p Path, anyhow::Error),
    /// Something that a killed run left is gone.
    Leftover,
}

/// Checks every bundle of the cache `root` that answers a question. A tree may take
/// `metadata_bytes` of memory.
pub fn check(
    root: &Path,
    metadata_bytes: u64,
    say: &(dyn Fn(&str) + Sync),
    found: &mut dyn FnMut(Seen<'_>),
) -> Result<()> {
    let dir = root.join(BUNDLES);
    let names = match dir::names(&dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        names => names.with_context(|| dir.display().to_string())?,
    };
    for name in names {
        let (place, name) = (dir.join(&name), name.as_encoded_bytes());
        // Whatever else is there is none of this program's.
        if name.len() == 32 && name.iter().all(u8::is_ascii_hexdigit) && place.is_dir() {
            one_place(&place, metadata_bytes, say, found)
                .with_context(|| place.display().to_string())?;
        }
    }
    Ok(())
}

fn one_place(
    place: &Path,
    metadata_bytes: u64,
    say: &(dyn Fn(&str) + Sync),
    found: &mut dyn FnMut(Seen<'_>),
) -> Result<()> {
    let lock = shared_dir::open_lock(&place.join("lock"))?;
    // What another user is compiling, or this user may not touch, is not looked at.
    let Some(file) = lock.file.filter(|_| lock.writable) else {
        return Ok(());
    };
    flock::wait(&file, flock::Kind::Exclusive, &place.display().to_string(), say)?;
    for _ in 0..temporary::remove_left(place)? {
        found(Seen::Leftover);
    }
    let record = read_record(place);
    if record.is_none() && place.join(RECORD).symlink_metadata().is_ok() {
        let error = anyhow!("its {RECORD} is not as it was written");
        found(Seen::Problem(place, error));
        return Ok(());
    }
    for path in numbered(place)? {
        let is_answer =
            record.as_ref().is_some_and(|record| path.ends_with(record.bundle.to_string()));
        if !is_answer {
            // The answer before it stays until the next one, for a machine that uses it.
            if record.is_none() && fs::remove_dir_all(&path).is_ok() {
                found(Seen::Leftover);
            }
            continue;
        }
        for name in dir::names(&path)? {
            if name.as_encoded_bytes().starts_with(b".") {
                continue;
            }
            let bundle = path.join(name);
            match sound(&bundle, metadata_bytes) {
                Ok(()) => found(Seen::Good),
                Err(error) => found(Seen::Problem(&bundle, error)),
            }
        }
    }
    Ok(())
}

fn sound(bundle: &Path, metadata_bytes: u64) -> Result<()> {
    match verify(&Place::find(bundle)?.within(metadata_bytes), &[]).first() {
        None => Ok(()),
        Some((file, what)) => Err(anyhow!("{file}: {what}")),
    }
}
