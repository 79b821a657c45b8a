//! A file or directory that a bundle was made of, and whether it is as it was.

use std::ffi::OsString;
use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use anyhow::{Context as _, Result};
use fsimage::io::dir;
use serde::{Deserialize, Serialize};

/// What is known of a path. One where nothing is, is an input as well: something
/// may come to be there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct InputFile {
    /// Absolute.
    path: OsString,
    /// A hash of what tells cheaply that nothing was written: inodes, sizes, times.
    stamps: String,
    /// A hash of names, modes and contents.
    contents: String,
    /// The last change of any inode, in seconds since 1970.
    newest: i64,
}

/// A change within the same tick of the clock leaves the times as they were. What
/// changed so shortly before it was looked at is compared by its contents.
const TICK_SECONDS: i64 = 2;

impl InputFile {
    /// What is at `path` now.
    pub(super) fn now(path: &Path) -> Result<Self> {
        let look = || -> io::Result<Self> {
            let path = std::path::absolute(path)?;
            let (stamps, newest) = stamps(&path)?;
            let contents = contents(&path)?;
            Ok(Self { path: path.into(), stamps, contents, newest })
        };
        look().with_context(|| path.display().to_string())
    }

    /// Nothing if the input is not as it was when it was looked at, which was not
    /// before `made`; else whether something new was learned of it.
    pub(super) fn check(&mut self, made: i64) -> Option<bool> {
        let (stamps, newest) = stamps(Path::new(&self.path)).ok()?;
        if stamps == self.stamps && newest.saturating_add(TICK_SECONDS) <= made {
            return Some(false);
        }
        if contents(Path::new(&self.path)).ok()? != self.contents {
            return None;
        }
        (self.stamps, self.newest) = (stamps, newest);
        Some(true)
    }
}

fn stamps(path: &Path) -> io::Result<(String, i64)> {
    let mut hasher = blake3::Hasher::new();
    let mut newest = i64::MIN;
    walk(path, &mut |name, metadata| {
        hash_name(&mut hasher, name);
        let m = metadata;
        for number in [m.dev(), m.ino(), m.size(), u64::from(m.mode())] {
            hasher.update(&number.to_le_bytes());
        }
        for number in [m.mtime(), m.mtime_nsec(), m.ctime(), m.ctime_nsec()] {
            hasher.update(&number.to_le_bytes());
        }
        newest = newest.max(m.ctime()).max(m.mtime());
        Ok(())
    })?;
    Ok((hasher.finalize().to_hex().to_string(), newest))
}

fn contents(path: &Path) -> io::Result<String> {
    let mut hasher = blake3::Hasher::new();
    walk(path, &mut |name, metadata| {
        hash_name(&mut hasher, name);
        hasher.update(&metadata.mode().to_le_bytes());
        if metadata.is_symlink() {
            hash_name(&mut hasher, &fs::read_link(path.join(name))?);
        } else if metadata.is_file() {
            let at = if name.as_os_str().is_empty() { path } else { &path.join(name) };
            hasher.update(&metadata.len().to_le_bytes());
            hasher.update_reader(File::open(at)?)?;
        } else {
            hasher.update(&metadata.rdev().to_le_bytes());
        }
        Ok(())
    })?;
    Ok(hasher.finalize().to_hex().to_string())
}

/// With its length, so that no name runs into what follows.
fn hash_name(hasher: &mut blake3::Hasher, name: &Path) {
    let bytes = name.as_os_str().as_bytes();
    hasher.update(&(bytes.len() as u64).to_le_bytes()).update(bytes);
}

/// Shows what is at `path` and, if that is a directory, below, by paths relative to
/// it and in a fixed order. Links are followed only by `path` itself.
fn walk(path: &Path, visit: &mut dyn FnMut(&Path, &Metadata) -> io::Result<()>) -> io::Result<()> {
    let top = match fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    visit(Path::new(""), &top)?;
    let mut directories = Vec::new();
    if top.is_dir() {
        directories.push(Path::new("").to_owned());
    }
    while let Some(directory) = directories.pop() {
        for name in dir::names(&path.join(&directory))? {
            let name = directory.join(name);
            let metadata = fs::symlink_metadata(path.join(&name))?;
            visit(&name, &metadata)?;
            if metadata.is_dir() {
                directories.push(name);
            }
        }
    }
    Ok(())
}
