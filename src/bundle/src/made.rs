//! Tells which files of a directory a build made, so that nothing else is ever removed.

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;

use anyhow::{Context as _, Result, bail, ensure};
use fsimage::io::dir::{names_in, open_dir};
use fsimage::io::{regular, temporary};
use rustix::fs::{AtFlags, FileType};
use rustix::io::Errno;
use serde::Deserialize;

use super::index::FORMAT;
use crate::names::{FSMETA, INDEX, LAYERS, SIGNATURE, UPPER, VMDK};

/// The most bytes of an index of any version.
const MAX_INDEX: u64 = 256 << 20;

/// The files of a bundle's directory that are not layers. The index is last, because it tells
/// which other files belong to the bundle, and so is removed last.
pub const FILES: [&str; 5] = [FSMETA, UPPER, VMDK, SIGNATURE, INDEX];

/// The fields that an index of every version has, and nothing else, so that little memory is
/// needed whatever the file holds.
#[derive(Deserialize)]
struct AnyIndex {
    format: String,
    #[serde(default)]
    files: Vec<AnyFile>,
}

#[derive(Deserialize)]
struct AnyFile {
    path: String,
}

/// The files that make up a bundle.
#[derive(Debug)]
pub enum Made {
    /// The files that its index names.
    Indexed(HashSet<String>),
    /// The build did not get to the index: the files with names that a build gives.
    Unfinished,
}

impl Made {
    /// The files that a build made in the directory `dir`; `None` if the index is not that of
    /// a bundle.
    ///
    /// # Errors
    /// When the file in the index's place is not a regular one, has more than 256 MiB, or
    /// cannot be read.
    pub fn read(dir: &File) -> Result<Option<Self>> {
        let bytes = match regular::read_at(dir, INDEX, MAX_INDEX) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(Some(Self::Unfinished));
            }
            Err(error) => return Err(error).context(INDEX),
        };
        // Bundles of other versions can be replaced, too.
        let Ok(index) = serde_json::from_slice::<AnyIndex>(&bytes) else {
            return Ok(None);
        };
        if index.format != FORMAT {
            return Ok(None);
        }
        Ok(Some(Self::Indexed(index.files.into_iter().map(|file| file.path).collect())))
    }

    /// The path in `dir` of the first file or directory that no build made.
    ///
    /// # Errors
    /// When one of the directories, or the metadata of a file in it, cannot be read.
    pub fn stranger(&self, dir: &File) -> Result<Option<OsString>> {
        for name in names_in(dir)? {
            if name != LAYERS {
                if !self.made_top(dir, &name)? {
                    return Ok(Some(name));
                }
                continue;
            }
            let Ok(layers) = open_dir(dir, LAYERS) else {
                return Ok(Some(name));
            };
            for layer in names_in(&layers)? {
                if !self.made_layer(&layers, &layer)? {
                    let mut path = OsString::from("layers/");
                    path.push(layer);
                    return Ok(Some(path));
                }
            }
        }
        Ok(None)
    }

    fn made_top(&self, dir: &File, name: &OsStr) -> io::Result<bool> {
        let own = FILES.iter().any(|own| name == *own);
        // A run that was killed while it signed the bundle leaves a temporary file.
        Ok(own && is_regular(dir, name)? || temporary::is_left(dir, name))
    }

    fn made_layer(&self, layers: &File, name: &OsStr) -> io::Result<bool> {
        let own = match (self, name.to_str()) {
            (_, None) => false,
            (Self::Indexed(paths), Some(name)) => paths.contains(&format!("{LAYERS}/{name}")),
            (Self::Unfinished, Some(name)) => is_layer_name(name),
        };
        Ok(own && is_regular(layers, name)?)
    }

    /// Removes from `dir` what a build made, and nothing else. The index goes last, so that it
    /// still tells which files belong to the bundle if this is interrupted.
    ///
    /// # Errors
    /// When something else is in `dir`; it stays, with the index.
    pub fn remove(&self, dir: &File) -> Result<()> {
        if let Some(stranger) = self.stranger(dir)? {
            bail!("{} is there, which no build made; move it elsewhere", stranger.display());
        }
        match open_dir(dir, LAYERS) {
            Ok(layers) => {
                for name in names_in(&layers)? {
                    // Checked again: the file may have come since the first listing.
                    ensure!(self.made_layer(&layers, &name)?, "{LAYERS} has a new file");
                    unlink(&layers, &name, AtFlags::empty())?;
                }
                unlink(dir, LAYERS, AtFlags::REMOVEDIR)?;
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error).context(LAYERS),
        }
        temporary::remove_left_in(dir)?;
        for name in FILES {
            unlink(dir, name, AtFlags::empty())?;
        }
        Ok(())
    }
}

/// Whether `name` is that of a layer's file: sha256-<64 hex digits>.erofs.
fn is_layer_name(name: &str) -> bool {
    let hex = name.strip_prefix("sha256-").and_then(|rest| rest.strip_suffix(".erofs"));
    let digit = |b: u8| matches!(b, b'0'..=b'9' | b'a'..=b'f');
    hex.is_some_and(|hex| hex.len() == 64 && hex.bytes().all(digit))
}

fn is_regular(dir: &File, name: &OsStr) -> io::Result<bool> {
    match rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile),
        // It is gone since, so that it cannot be lost.
        Err(Errno::NOENT) => Ok(true),
        Err(error) => Err(error.into()),
    }
}

/// Removes `name` from `dir`. It is not an error if it is gone already.
///
/// # Errors
/// When the name is there and cannot be removed.
pub fn unlink(dir: &File, name: impl AsRef<OsStr>, flags: AtFlags) -> io::Result<()> {
    match rustix::fs::unlinkat(dir, name.as_ref(), flags) {
        Err(Errno::NOENT) => Ok(()),
        result => Ok(result?),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    /// A directory as a build makes it, with one layer.
    fn bundle(dir: &Path) -> String {
        let layer = format!("layers/sha256-{}.erofs", "0f".repeat(32));
        fs::create_dir_all(dir.join(LAYERS)).unwrap();
        for name in [FSMETA, UPPER, VMDK, &layer] {
            fs::write(dir.join(name), "x").unwrap();
        }
        let files = [FSMETA, UPPER, VMDK, &layer].map(|path| serde_json::json!({ "path": path }));
        let index = serde_json::json!({ "format": FORMAT, "version": 0, "files": files });
        fs::write(dir.join(INDEX), index.to_string()).unwrap();
        layer
    }

    fn made(dir: &File) -> Made {
        Made::read(dir).unwrap().unwrap()
    }

    #[test]
    fn what_no_build_made_is_seen_at_every_level_and_stays() {
        let other = format!("layers/sha256-{}.erofs", "1f".repeat(32));
        for stranger in ["notes.txt", "layers/notes.txt", "layers/sub", &other, UPPER] {
            let tmp = tempfile::tempdir().unwrap();
            bundle(tmp.path());
            let path = tmp.path().join(stranger);
            if stranger == UPPER {
                fs::remove_file(&path).unwrap();
                std::os::unix::fs::symlink("elsewhere", &path).unwrap();
            } else if stranger.ends_with("sub") {
                fs::create_dir(&path).unwrap();
            } else {
                fs::write(&path, "mine").unwrap();
            }
            let dir = File::open(tmp.path()).unwrap();
            assert_eq!(made(&dir).stranger(&dir).unwrap().unwrap(), stranger);
            let error = made(&dir).remove(&dir).unwrap_err().to_string();
            assert!(error.contains(stranger), "{error}");
            for name in [FSMETA, VMDK, INDEX, stranger] {
                assert!(tmp.path().join(name).symlink_metadata().is_ok(), "{name}");
            }
        }
    }

    #[test]
    fn a_bundle_goes_as_a_whole_finished_or_not() {
        for finished in [true, false] {
            let tmp = tempfile::tempdir().unwrap();
            bundle(tmp.path());
            if !finished {
                fs::remove_file(tmp.path().join(INDEX)).unwrap();
            }
            // And what a run left that was killed while it signed.
            fs::write(tmp.path().join(".rootfs-compile-tmp-abcdefgh"), "x").unwrap();
            let dir = File::open(tmp.path()).unwrap();
            assert_eq!(made(&dir).stranger(&dir).unwrap(), None);
            made(&dir).remove(&dir).unwrap();
            assert_eq!(fs::read_dir(tmp.path()).unwrap().count(), 0);
            // Whatever is gone already.
            made(&dir).remove(&dir).unwrap();
        }
    }

    #[test]
    fn another_programs_index_makes_no_bundle() {
        let tmp = tempfile::tempdir().unwrap();
        for text in ["{}", "[1", "{\"format\":\"cnab\"}"] {
            fs::write(tmp.path().join(INDEX), text).unwrap();
            assert!(Made::read(&File::open(tmp.path()).unwrap()).unwrap().is_none());
        }
    }
}
