//! Staging directories that killed runs left beside a bundle's place: they are removed, and a
//! bundle that was set aside is brought back.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use anyhow::{Context as _, Result, bail, ensure};
use fsimage::io::dir::{names_in, open_dir};
use fsimage::io::{flock, regular};
use rustix::fs::{AtFlags, OFlags};

use super::made::{Made, unlink};
use super::swap::{BUNDLE, OLD, SWAPPED, exists, put_back};

/// The file in a staging directory that is locked as long as its run lives.
pub const LOCK: &str = "lock";

/// Random characters at the end of a staging directory's name.
pub const RANDOM: usize = 8;

/// The middle part of a staging directory's name.
const MARK: &[u8] = b".rootfs-compile-";

/// Bytes of the longest name of a bundle that is a part of its staging directory's name; of a
/// longer one, the hash is.
const MAX_NAME: usize = 180;

/// The beginning of the names of staging directories for a bundle called `name`.
pub fn prefix(name: &OsStr) -> OsString {
    let mut prefix = b".".to_vec();
    match name.len() {
        ..=MAX_NAME => prefix.extend_from_slice(name.as_bytes()),
        // A name has 255 bytes at most.
        _ => prefix.extend_from_slice(blake3::hash(name.as_bytes()).to_hex().as_bytes()),
    }
    prefix.extend_from_slice(MARK);
    OsString::from_vec(prefix)
}

fn is_staging(name: &OsStr, prefix: &OsStr) -> bool {
    let random = name.as_bytes().strip_prefix(prefix.as_bytes());
    random.is_some_and(|random| {
        random.len() == RANDOM && random.iter().all(u8::is_ascii_alphanumeric)
    })
}

/// The name of the bundle that a staging directory called `staging` is for. `None` if it is
/// not the name of a staging directory, or has only the hash of the bundle's name.
pub fn target(staging: &OsStr) -> Option<&OsStr> {
    let marked = staging.as_bytes().get(1..staging.len().checked_sub(RANDOM)?)?;
    let target = OsStr::from_bytes(marked.strip_suffix(MARK)?);
    is_staging(staging, &prefix(target)).then_some(target)
}

/// Removes from `parent`, the directory at `parent_path`, what killed runs left that were to
/// make the bundle `name`.
///
/// # Errors
/// When another run is making that bundle now, or what a run left cannot be brought back or
/// removed.
pub fn clear(parent: &File, parent_path: &Path, name: &OsStr) -> Result<()> {
    let prefix = prefix(name);
    let shown = |staging: &OsStr| parent_path.join(staging).display().to_string();
    for staging in names_in(parent).with_context(|| parent_path.display().to_string())? {
        if !is_staging(&staging, &prefix) {
            continue;
        }
        let Some((dir, lock)) = open(parent, &staging) else {
            continue;
        };
        let Ok(free) = flock::try_lock(&lock, flock::LockKind::Exclusive) else {
            continue;
        };
        if !free {
            let holder = flock::holder_name(&lock);
            bail!("another build is making this bundle ({holder} holds {})", shown(&staging));
        }
        let mut lock = Some(lock);
        remove(&dir, parent, &staging, name, &mut lock)
            .with_context(|| format!("{}, left by a run that was killed", shown(&staging)))?;
    }
    Ok(())
}

/// Opens the staging directory `staging` and its lock, if both belong to this user. Anything
/// else of such a name is left alone.
fn open(parent: &File, staging: &OsStr) -> Option<(File, File)> {
    let own = rustix::process::geteuid().as_raw();
    let dir = open_dir(parent, staging).ok()?;
    if dir.metadata().ok()?.uid() != own {
        return None;
    }
    match regular::open_with(&dir, Path::new(LOCK), OFlags::RDWR) {
        Ok(lock) => (lock.metadata().ok()?.uid() == own).then_some((dir, lock)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            // The run was killed before it made the lock or after it removed it; the directory
            // is empty then.
            let _ = rustix::fs::unlinkat(parent, staging, AtFlags::REMOVEDIR);
            None
        }
        Err(_) => None,
    }
}

/// Removes the staging directory `name` of `parent`, which is open as `dir`, with the bundles
/// in it. A bundle that was set aside, and was not replaced yet, is brought back to its place
/// `target`. What no build made stays, and is an error.
///
/// `lock` is closed when nothing but the lock's file is left: file systems of FUSE do not
/// remove a directory with an open file in it.
///
/// # Errors
/// When something in it was not made by a build, what was set aside cannot be brought
/// back, or something cannot be removed.
pub fn remove(
    dir: &File,
    parent: &File,
    name: &OsStr,
    target: &OsStr,
    lock: &mut Option<File>,
) -> Result<()> {
    let shown = || target.display();
    if exists(dir, BUNDLE)? {
        let back = || format!("bringing {OLD} back to {}, where it was", shown());
        put_back(dir, parent, target).with_context(back)?;
    }
    let came = exists(dir, SWAPPED)?;
    for part in [OLD, BUNDLE] {
        let bundle = match open_dir(dir, part) {
            Ok(bundle) => bundle,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error).context(part),
        };
        let made = Made::read(&bundle).context(part)?;
        // A bundle that was being made has no index yet, or a part of one. A bundle that came
        // from its place has its index as long as anything is in it.
        if (came || part == OLD) && !matches!(made, Some(Made::Indexed(_))) {
            let is_empty = names_in(&bundle).context(part)?.is_empty();
            ensure!(is_empty, "{part}, which was at {}, is not a bundle; move it back", shown());
        }
        made.unwrap_or(Made::Unfinished).remove(&bundle).context(part)?;
        unlink(dir, part, AtFlags::REMOVEDIR).context(part)?;
    }
    unlink(dir, SWAPPED, AtFlags::empty()).context(SWAPPED)?;
    *lock = None;
    unlink(dir, LOCK, AtFlags::empty()).context(LOCK)?;
    Ok(unlink(parent, name, AtFlags::REMOVEDIR)?)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::PathBuf;

    use super::*;
    use crate::names::{FSMETA, INDEX, LAYERS};

    /// A place for the bundle `out`, and a staging directory as a run leaves it.
    fn left(parts: &[&str]) -> (tempfile::TempDir, PathBuf) {
        let tmp = tempfile::tempdir().unwrap();
        let staging = tmp.path().join(".out.rootfs-compile-abcdefgh");
        fs::create_dir(&staging).unwrap();
        fs::write(staging.join(LOCK), "").unwrap();
        for part in parts {
            let part = staging.join(part);
            fs::create_dir_all(part.join(LAYERS)).unwrap();
            fs::write(part.join(FSMETA), "x").unwrap();
            if part.ends_with(OLD) {
                let index = serde_json::json!({ "format": super::super::index::FORMAT });
                fs::write(part.join(INDEX), index.to_string()).unwrap();
            }
        }
        (tmp, staging)
    }

    #[test]
    fn a_staging_tells_the_bundle_that_it_is_for() {
        for name in ["out", ".rootfs-compile-", "a.rootfs-compile-abcdefgh"] {
            let mut staging = prefix(OsStr::new(name));
            staging.push("abcdEF12");
            assert_eq!(target(&staging), Some(OsStr::new(name)));
        }
        for other in
            ["", ".", "out", ".out", ".out.rootfs-compile-abcdefg", "out.rootfs-compile-abcdefgh"]
        {
            assert_eq!(target(OsStr::new(other)), None, "{other}");
        }
    }

    fn clear_out(tmp: &Path) -> Result<()> {
        clear(&File::open(tmp).unwrap(), tmp, OsStr::new("out"))
    }

    #[test]
    fn what_a_killed_run_left_goes_and_what_it_had_set_aside_comes_back() {
        for (parts, back) in [
            (&[][..], false),
            (&[BUNDLE], false),
            // Killed after the new bundle was in its place, so the old one goes.
            (&[OLD], false),
            (&[BUNDLE, OLD], true),
        ] {
            let (tmp, staging) = left(parts);
            clear_out(tmp.path()).unwrap();
            assert!(!staging.exists(), "{parts:?}");
            assert_eq!(tmp.path().join("out").join(INDEX).exists(), back, "{parts:?}");
        }
    }

    /// Killed after a swap, before what came was looked at.
    #[test]
    fn what_came_from_the_place_and_is_no_bundle_stays() {
        for (part, name, index, goes) in [
            (BUNDLE, FSMETA, None, false),
            (BUNDLE, FSMETA, Some("{}"), false),
            (BUNDLE, "notes.txt", None, false),
            (OLD, FSMETA, None, false),
            (BUNDLE, FSMETA, Some(r#"{"format":"rootfs-compile bundle"}"#), true),
        ] {
            let (tmp, staging) = left(&[]);
            fs::write(staging.join(SWAPPED), "").unwrap();
            fs::create_dir(staging.join(part)).unwrap();
            fs::write(staging.join(part).join(name), "mine").unwrap();
            if let Some(index) = index {
                fs::write(staging.join(part).join(INDEX), index).unwrap();
            }
            let cleared = clear_out(tmp.path());
            assert_eq!(cleared.is_ok(), goes, "{part} {name} {index:?} {cleared:?}");
            assert_eq!(staging.join(part).join(name).exists(), !goes, "{part} {name} {index:?}");
            assert_eq!(staging.exists(), !goes);
        }
    }

    #[test]
    fn whatever_else_has_such_a_name_stays() {
        let (tmp, staging) = left(&[BUNDLE]);
        let at = |name: &str| tmp.path().join(name);
        fs::create_dir(at("victim")).unwrap();
        fs::write(at("victim/lock"), "").unwrap();
        std::os::unix::fs::symlink("victim", at(".out.rootfs-compile-linklink")).unwrap();
        std::os::unix::fs::symlink("absent", at(".out.rootfs-compile-dangling")).unwrap();
        fs::write(at(".out.rootfs-compile-afileitis"), "").unwrap();
        fs::create_dir(at(".out.rootfs-compile-aaaaaaaa")).unwrap();
        fs::write(at(".out.rootfs-compile-aaaaaaaa/precious"), "").unwrap();
        fs::rename(&staging, at(".other.rootfs-compile-abcdefgh")).unwrap();
        let before = fs::read_dir(tmp.path()).unwrap().count();
        clear_out(tmp.path()).unwrap();
        assert_eq!(fs::read_dir(tmp.path()).unwrap().count(), before);
        // In a directory of ours, a file that no build made stays and is named.
        fs::rename(at(".other.rootfs-compile-abcdefgh"), &staging).unwrap();
        fs::write(staging.join(BUNDLE).join("notes.txt"), "").unwrap();
        let error = format!("{:#}", clear_out(tmp.path()).unwrap_err());
        assert!(error.contains("notes.txt") && error.contains("abcdefgh"), "{error}");
        assert!(staging.join(BUNDLE).join(FSMETA).exists());
    }

    #[test]
    fn a_living_run_is_left_alone() {
        let (tmp, staging) = left(&[BUNDLE]);
        let lock = File::open(staging.join(LOCK)).unwrap();
        assert!(flock::try_lock(&lock, flock::LockKind::Exclusive).unwrap());
        let error = clear_out(tmp.path()).unwrap_err().to_string();
        assert!(error.contains("another build is making this bundle"), "{error}");
        assert!(error.contains(&format!("process {}", std::process::id())), "{error}");
        assert!(staging.join(BUNDLE).exists());
    }

    #[test]
    fn names_of_any_length_have_a_staging_directory() {
        let long = "x".repeat(255);
        assert!(prefix(OsStr::new(&long)).len() + RANDOM <= 255);
        assert!(is_staging(OsStr::new(".out.rootfs-compile-AB12cd34"), &prefix(OsStr::new("out"))));
    }
}
