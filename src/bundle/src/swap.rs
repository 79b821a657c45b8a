//! Replaces an old bundle by a new one, so that there is always one of them at its place.
//!
//! Most file systems can swap two names in one step (RENAME_EXCHANGE). Where they cannot
//! (FAT, and overlayfs for directories of its lower layers), the old bundle is renamed into
//! the staging directory first, and its name is free for a moment. Invariant: as long as the
//! staging directory holds both bundles as [`BUNDLE`] and [`OLD`], the old one belongs back at
//! its place, and [`put_back`] brings it there, in this process or in the next run.
//!
//! Between the last check of the place and the rename, somebody else may put something there
//! (TOCTOU). So what was swapped is checked again, and goes back if it is not a bundle. If
//! this run is killed in between, [`SWAPPED`] keeps the next run from removing it.

use std::ffi::OsStr;
use std::fs::File;
use std::io;

use anyhow::{Context as _, Result, bail, ensure};
use fsimage::io::dir::{make_dir, names_in, open_dir};
use fsimage::io::temporary;
use rustix::fs::{AtFlags, Mode, OFlags, RenameFlags};
use rustix::io::Errno;

use super::made::{FILES, Made, unlink};
use crate::names::{INDEX, LAYERS};

/// The new bundle in the staging directory, and the old one once they are swapped.
pub(crate) const BUNDLE: &str = "bundle";
/// The old bundle in the staging directory, where they cannot be swapped.
pub(crate) const OLD: &str = "old";

/// A file of the staging directory, which marks that a swap has begun: the bundle in there is
/// either the new one, which is finished, or what was at its place.
pub(crate) const SWAPPED: &str = "swapped";

/// Makes the bundle of the staging directory `staging` appear as `name` in `parent`,
/// in place of nothing, an empty directory, or, if `force` is set, a bundle. Anything
/// else that came there stays, and is an error.
pub(crate) fn put_in_place(staging: &File, parent: &File, name: &OsStr, force: bool) -> Result<()> {
    // Succeeds if there is nothing, or an empty directory.
    match rustix::fs::renameat(staging, BUNDLE, parent, name) {
        Err(Errno::NOTEMPTY | Errno::EXIST) => {}
        Err(Errno::NOTDIR) => bail!("a file came there meanwhile; it stays as it is"),
        result => return Ok(result?),
    }
    ensure!(force, "something came there meanwhile; it stays as it is");
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    drop(rustix::fs::openat(staging, SWAPPED, flags, Mode::RUSR | Mode::WUSR)?);
    let exchange =
        || rustix::fs::renameat_with(staging, BUNDLE, parent, name, RenameFlags::EXCHANGE);
    match exchange() {
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP | Errno::XDEV) => {}
        Err(error) => return Err(error.into()),
        Ok(()) => {
            return is_bundle(staging, BUNDLE).or_else(|why| {
                exchange().context("bringing back what came there meanwhile")?;
                Err(why)
            });
        }
    }
    let replace = || -> Result<()> {
        set_aside(staging, parent, name)?;
        is_bundle(staging, OLD)?;
        Ok(rustix::fs::renameat(staging, BUNDLE, parent, name)?)
    };
    replace().inspect_err(|_| {
        // If this fails as well, the next run for this place brings the old bundle back.
        let _ = put_back(staging, parent, name);
    })
}

/// Refuses anything but a finished bundle that holds nothing else.
fn is_bundle(staging: &File, part: &str) -> Result<()> {
    let look = || -> Result<()> {
        let dir = open_dir(staging, part)?;
        match Made::read(&dir)? {
            Some(made @ Made::Indexed(_)) => match made.stranger(&dir)? {
                Some(stranger) => bail!("{} in it was made by no build", stranger.display()),
                None => Ok(()),
            },
            _ => bail!("it has no {INDEX} of a bundle"),
        }
    };
    look().context("what came there meanwhile is not a bundle; it stays as it is")
}

/// Moves the bundle `name` of `parent` into the staging directory.
fn set_aside(staging: &File, parent: &File, name: &OsStr) -> io::Result<()> {
    match rustix::fs::renameat(parent, name, staging, OLD) {
        // overlayfs cannot rename a directory that is in a lower layer, only its files.
        Err(Errno::XDEV) => {}
        result => return Ok(result?),
    }
    let old = open_dir(parent, name)?;
    temporary::remove_left_in(&old)?;
    move_files(&old, &make_dir(staging, OLD, 0o755)?)?;
    unlink(parent, name, AtFlags::REMOVEDIR)
}

/// Brings the old bundle back from the staging directory, if it is there, to the
/// place that a replacement left free.
///
/// # Errors
/// Of the kind [`io::ErrorKind::AlreadyExists`] if something else has come there.
pub(crate) fn put_back(staging: &File, parent: &File, name: &OsStr) -> io::Result<()> {
    if !exists(staging, OLD)? {
        return Ok(());
    }
    // Succeeds if there is nothing, or an empty directory.
    match rustix::fs::renameat(staging, OLD, parent, name) {
        Err(Errno::NOTEMPTY | Errno::EXIST) => {}
        Err(Errno::NOTDIR) => return Err(io::ErrorKind::AlreadyExists.into()),
        result => return Ok(result?),
    }
    let (old, rest) = (open_dir(staging, OLD)?, open_dir(parent, name)?);
    if !is_rest(&old, &rest)? {
        return Err(io::ErrorKind::AlreadyExists.into());
    }
    move_files(&old, &rest)?;
    unlink(staging, OLD, AtFlags::REMOVEDIR)
}

/// Whether `rest` is what was left of a bundle when the move of its files to `old` was
/// interrupted: it holds only files of a bundle, and none that `old` has.
fn is_rest(old: &File, rest: &File) -> io::Result<bool> {
    for name in names_in(rest)? {
        if name == LAYERS {
            let Ok(old_layers) = open_dir(old, LAYERS) else { continue };
            for layer in names_in(&open_dir(rest, LAYERS)?)? {
                if exists(&old_layers, &layer)? {
                    return Ok(false);
                }
            }
        } else if !FILES.iter().any(|own| name == *own) || exists(old, &name)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Moves the files of a bundle from one directory to another. The index goes last, so that it
/// can be told what else belongs to the bundle.
fn move_files(from: &File, to: &File) -> io::Result<()> {
    if exists(from, LAYERS)? {
        let (layers, to_layers) = (open_dir(from, LAYERS)?, make_dir(to, LAYERS, 0o755)?);
        for name in names_in(&layers)? {
            rustix::fs::renameat(&layers, &name, &to_layers, &name)?;
        }
        unlink(from, LAYERS, AtFlags::REMOVEDIR)?;
    }
    for name in FILES {
        match rustix::fs::renameat(from, name, to, name) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

pub(crate) fn exists(dir: &File, name: impl AsRef<OsStr>) -> io::Result<bool> {
    match rustix::fs::statat(dir, name.as_ref(), AtFlags::SYMLINK_NOFOLLOW) {
        Ok(_) => Ok(true),
        Err(Errno::NOENT) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;
    use crate::names::{FSMETA, UPPER, VMDK};

    fn bundle(dir: &Path, content: &str) {
        fs::create_dir_all(dir.join(LAYERS)).unwrap();
        for name in [FSMETA, UPPER, VMDK, INDEX, "layers/one", "layers/two"] {
            fs::write(dir.join(name), content).unwrap();
        }
    }

    fn content(dir: &Path) -> String {
        let names = [FSMETA, UPPER, VMDK, INDEX, "layers/one", "layers/two"];
        let mut all: Vec<_> =
            names.iter().map(|name| fs::read_to_string(dir.join(name)).unwrap()).collect();
        all.dedup();
        all.concat()
    }

    /// Wherever a move of single files is stopped, all of them come back.
    #[test]
    fn an_old_bundle_comes_back_from_wherever_a_replacement_was_stopped() {
        let name = OsStr::new("out");
        for moved in 0..=8 {
            let tmp = tempfile::tempdir().unwrap();
            let (place, staging) = (tmp.path().join("out"), tmp.path().join("staging"));
            bundle(&place, "old");
            bundle(&staging.join(BUNDLE), "new");
            let order = ["layers/one", "layers/two", "", FSMETA, UPPER, VMDK, INDEX];
            fs::create_dir_all(staging.join(OLD).join(LAYERS)).unwrap();
            for name in order.iter().take(moved) {
                if name.is_empty() {
                    fs::remove_dir(place.join(LAYERS)).unwrap();
                } else {
                    fs::rename(place.join(name), staging.join(OLD).join(name)).unwrap();
                }
            }
            if moved == 8 {
                fs::remove_dir(&place).unwrap();
            }
            let (parent, dir) = (File::open(tmp.path()).unwrap(), File::open(&staging).unwrap());
            put_back(&dir, &parent, name).unwrap();
            assert_eq!(content(&place), "old", "{moved}");
            assert!(!staging.join(OLD).exists(), "{moved}");
        }
    }

    #[test]
    fn what_came_to_the_place_meanwhile_stays() {
        let tmp = tempfile::tempdir().unwrap();
        let (place, staging) = (tmp.path().join("out"), tmp.path().join("staging"));
        let (parent, name) = (File::open(tmp.path()).unwrap(), OsStr::new("out"));
        bundle(&staging.join(OLD), "old");
        let dir = File::open(&staging).unwrap();
        for other in [FSMETA, "notes.txt", "layers/two"] {
            fs::create_dir_all(place.join(LAYERS)).unwrap();
            fs::write(place.join(other), "mine").unwrap();
            let error = put_back(&dir, &parent, name).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::AlreadyExists, "{other}");
            assert_eq!(fs::read_to_string(place.join(other)).unwrap(), "mine");
            fs::remove_dir_all(&place).unwrap();
        }
        assert_eq!(content(&staging.join(OLD)), "old");
    }

    #[test]
    fn a_bundle_is_swapped_if_that_is_wanted_and_anything_else_stays() {
        let name = OsStr::new("out");
        for (index, force, swapped) in [
            (Some(r#"{"format":"rootfs-compile bundle"}"#), true, true),
            (Some(r#"{"format":"rootfs-compile bundle"}"#), false, false),
            (Some("{}"), true, false),
            (None, true, false),
        ] {
            let tmp = tempfile::tempdir().unwrap();
            let (place, staging) = (tmp.path().join("out"), tmp.path().join("staging"));
            fs::create_dir(&place).unwrap();
            fs::write(place.join(UPPER), "old").unwrap();
            if let Some(index) = index {
                fs::write(place.join(INDEX), index).unwrap();
            }
            bundle(&staging.join(BUNDLE), "new");
            let (parent, dir) = (File::open(tmp.path()).unwrap(), File::open(&staging).unwrap());
            let result = put_in_place(&dir, &parent, name, force);
            assert_eq!(result.is_ok(), swapped, "{index:?} {force} {result:?}");
            let (here, there) = if swapped {
                (&staging.join(BUNDLE), &place)
            } else {
                (&place, &staging.join(BUNDLE))
            };
            assert_eq!(content(there), "new");
            assert_eq!(fs::read_to_string(here.join(UPPER)).unwrap(), "old");
        }
    }
}
