//! The place at which a bundle is to be, and whether what is there may be replaced.

use std::fs::{self, File};
use std::io;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use fsimage::io::dir::{names_in, open_dir};
use rustix::fs::{Access, AtFlags};

use super::made::Made;
use crate::names::LAYERS;

/// The absolute path that `path` means. Symbolic links are followed as far as the path exists;
/// a `..` behind a name that does not exist cancels that name.
///
/// # Errors
/// When the current directory is not known, or a link on the way leads nowhere.
pub fn resolve(path: &Path) -> Result<PathBuf> {
    if let Ok(real) = fs::canonicalize(path) {
        return Ok(real);
    }
    let shown = || path.display().to_string();
    let mut real = PathBuf::from("/");
    let absolute = std::env::current_dir().map(|here| here.join(path)).with_context(shown)?;
    let mut parts = absolute.components().peekable();
    while let Some(part) = parts.next() {
        match part {
            Component::Normal(name) => real.push(name),
            Component::ParentDir => drop(real.pop()),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => continue,
        }
        // A dangling link as the last name is not followed: it stands in the bundle's place.
        if parts.peek().is_some() && real.symlink_metadata().is_ok() {
            let there = fs::canonicalize(&real);
            real = there.with_context(|| real.display().to_string())?;
        }
    }
    Ok(real)
}

/// Refuses a bundle's place inside the cache, and a cache inside the bundle's place.
///
/// # Errors
/// When one of the two paths lies in the other, or cannot be resolved.
pub fn apart(output: &Path, cache: &Path) -> Result<()> {
    let (output_path, cache_path) = (resolve(output)?, resolve(cache)?);
    let (output, cache) = (output.display(), cache.display());
    ensure!(
        !cache_path.starts_with(&output_path),
        "the cache {cache} lies in {output}, the place of the bundle, which holds nothing else: \
         choose another with --cache-dir"
    );
    ensure!(
        !output_path.starts_with(&cache_path),
        "{output} lies in the cache {cache}, which may be deleted at any time: choose another \
         place for the bundle"
    );
    Ok(())
}

/// Checks that a bundle may be put at `target`: that there is nothing, an empty directory, or,
/// if `force` is set, a bundle that holds nothing else.
///
/// # Errors
/// When something else is at `target`, a bundle is there and `force` is not set, or what
/// is there cannot be read or removed.
pub fn check(target: &Path, force: bool) -> Result<()> {
    let shown = target.display();
    match fs::symlink_metadata(target) {
        Ok(there) => {
            ensure!(there.is_dir(), "{shown} exists and is not a directory; it stays as it is")
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error).with_context(|| shown.to_string()),
    }
    let dir = open_dir(rustix::fs::CWD, target).with_context(|| shown.to_string())?;
    if names_in(&dir).with_context(|| shown.to_string())?.is_empty() {
        return Ok(());
    }
    let made = match Made::read(&dir).with_context(|| shown.to_string())? {
        Some(made @ Made::Indexed(_)) => made,
        _ => bail!("{shown} is neither empty nor a bundle; it stays as it is"),
    };
    if let Some(other) = made.stranger(&dir).with_context(|| shown.to_string())? {
        bail!("{shown} also holds {}, which no build made; it stays as it is", other.display());
    }
    ensure!(force, "{shown} is a bundle already; --force replaces it");
    // The old bundle is removed after it was replaced, which must be possible.
    for (part, name) in [(".", ""), (LAYERS, "/layers")] {
        match rustix::fs::accessat(&dir, part, Access::WRITE_OK, AtFlags::EACCESS) {
            Err(rustix::io::Errno::NOENT) | Ok(()) => {}
            Err(error) => {
                let error = io::Error::from(error);
                return Err(error).with_context(|| {
                    format!("{shown}{name} cannot be removed, and stays as it is")
                });
            }
        }
    }
    Ok(())
}

/// The directory that `target` is in, which is created if need be, and its name there.
///
/// # Errors
/// When `target` has no parent or no name, or its parent cannot be made or opened.
pub fn parent(target: &Path) -> Result<(File, &Path, &std::ffi::OsStr)> {
    let (Some(parent), Some(name)) = (target.parent(), target.file_name()) else {
        bail!("{} cannot be a bundle", target.display());
    };
    fs::create_dir_all(parent).with_context(|| parent.display().to_string())?;
    let dir = File::open(parent).with_context(|| parent.display().to_string())?;
    Ok((dir, parent, name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_there_is_taken_back_by_its_parent() {
        let tmp = tempfile::tempdir().unwrap();
        let top = tmp.path().canonicalize().unwrap();
        fs::create_dir_all(top.join("real/sub")).unwrap();
        std::os::unix::fs::symlink("real/sub", top.join("link")).unwrap();
        std::os::unix::fs::symlink("absent", top.join("dangling")).unwrap();
        for (path, expected) in [
            ("nope/../x", "x"),
            ("nope/no/../../x/.", "x"),
            ("link/../x", "real/x"),
            ("link/x", "real/sub/x"),
            ("link", "real/sub"),
            ("dangling", "dangling"),
            ("new/deep/x/", "new/deep/x"),
        ] {
            assert_eq!(resolve(&top.join(path)).unwrap(), top.join(expected), "{path}");
        }
        assert!(resolve(&top.join("dangling/x")).is_err());
        assert!(!top.join("nope").exists());
    }

    #[test]
    fn neither_lies_in_the_other() {
        let tmp = tempfile::tempdir().unwrap();
        let at = |name: &str| tmp.path().join(name);
        fs::create_dir(at("real")).unwrap();
        std::os::unix::fs::symlink("real", at("link")).unwrap();
        for (output, cache, good) in [
            ("out", "cache", true),
            ("out", "out-cache", true),
            ("out", "out", false),
            ("out", "out/cache", false),
            ("cache/out", "cache", false),
            ("link/out", "real", false),
            ("out", "nope/../out/cache", false),
        ] {
            assert_eq!(apart(&at(output), &at(cache)).is_ok(), good, "{output} {cache}");
        }
    }
}
