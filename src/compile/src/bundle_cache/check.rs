//! Checks the bundles of a cache, and takes away what killed runs left.

use std::ffi::OsStr;
use std::io;
use std::path::Path;

use anyhow::{Context as _, Result, anyhow};
use bundle::opened::Place;
use bundle::sound::{Problem, verify};
use fsimage::io::checked::Checked;
use fsimage::io::dir::Dir;
use fsimage::io::{flock, shared_dir, temporary};
use rustix::fs::FileType;

use super::remove;
use crate::bundle_cache::place::BUNDLES;
use crate::bundle_cache::record::{RECORD, numbered, read_record};

/// Checks every bundle of the cache `root` that answers a question of this user;
/// `remove` takes away what is wrong. A tree may take `metadata_bytes` of memory.
///
/// # Errors
/// It fails when the directory of bundles cannot be opened or listed; what is wrong with a
/// bundle goes to `checked`.
pub fn check(
    root: &Path,
    remove: bool,
    metadata_bytes: u64,
    say: &(dyn Fn(&str) + Sync),
    checked: &mut Checked,
) -> Result<()> {
    let path = root.join(BUNDLES);
    let Some(dir) = checked.open(root, &path)? else {
        return Ok(());
    };
    for name in dir.names().with_context(|| path.display().to_string())? {
        let bytes = name.as_encoded_bytes();
        // Whatever else is there is none of this program's.
        if bytes.len() != 32 || !bytes.iter().all(u8::is_ascii_hexdigit) {
            continue;
        }
        let place = match dir.sub(&name) {
            Ok(place) => place,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => {
                checked.stays(&path.join(&name), &error.into());
                continue;
            }
        };
        // Users who share a cache have bundles of their own, and check those.
        let Ok(place) = place.own() else {
            continue;
        };
        let check = Check { remove, metadata_bytes, say };
        if let Err(error) = check.place(&place, checked) {
            checked.stays(&place.path, &error);
        }
    }
    Ok(())
}

struct Check<'s> {
    remove: bool,
    metadata_bytes: u64,
    say: &'s (dyn Fn(&str) + Sync),
}

impl Check<'_> {
    fn place(&self, place: &Dir, checked: &mut Checked) -> Result<()> {
        let lock = shared_dir::open_lock(place, "lock").context("lock")?;
        // What this user may not write to is not looked at.
        let Some(file) = lock.file.filter(|_| lock.writable) else {
            return Ok(());
        };
        let shown = place.path.display().to_string();
        flock::wait(&file, flock::LockKind::Exclusive, &shown, self.say)?;
        checked.leftovers += temporary::remove_left_in(place.file())?;
        let record = read_record(place);
        if record.is_none() && place.kind(RECORD.as_ref()).is_ok() {
            let error = anyhow!("its {RECORD} is not as it was written");
            checked.wrong(&place.path, &error, self.remove, || remove::answers(place));
            return Ok(());
        }
        for number in numbered(place)? {
            match &record {
                Some(record) if number == *record.bundle.to_string() => {
                    self.answer(place, &number, checked)?;
                }
                // The answer before it stays until the next one, for a machine that uses it.
                Some(_) => {}
                None => match remove::answer(place, &number) {
                    Ok(()) => checked.leftovers += 1,
                    Err(error) => checked.stays(&place.path.join(&number), &error),
                },
            }
        }
        Ok(())
    }

    /// Checks the bundle `number`, which the record says is the answer.
    fn answer(&self, place: &Dir, number: &OsStr, checked: &mut Checked) -> Result<()> {
        let dir = place.sub(number)?.own()?;
        for name in dir.names()? {
            if name.as_encoded_bytes().starts_with(b".") {
                continue;
            }
            let bundle = dir.path.join(&name);
            let is_dir = matches!(dir.kind(&name), Ok(FileType::Directory));
            match is_dir.then(|| sound(&dir.sub(&name)?.own()?, self.metadata_bytes)) {
                Some(Ok(())) => checked.good += 1,
                Some(Err(error)) => {
                    checked.wrong(&bundle, &error, self.remove, || remove::bundle(&dir, &name));
                }
                None => {
                    checked
                        .stays(&bundle, &anyhow!("it is not a directory, where a bundle is to be"));
                }
            }
        }
        Ok(())
    }
}

fn sound(bundle: &Dir, metadata_bytes: u64) -> Result<()> {
    match verify(&Place::of(bundle)?.within(metadata_bytes), &[]).into_iter().next() {
        None => Ok(()),
        Some(Problem { path, error }) => Err(error.context(path)),
    }
}
