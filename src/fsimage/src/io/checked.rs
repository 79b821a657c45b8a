//! What a check of a cache found. Each module that keeps something there checks its own.

use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use crate::io::dir::Dir;
use crate::io::shared_dir;

/// Something wrong, and where.
#[derive(Debug)]
pub struct Problem {
    /// The file or directory that is wrong.
    pub path: PathBuf,
    /// What is wrong with it, and why it could not be removed if that failed.
    pub what: String,
    /// Whether it was removed.
    pub removed: bool,
}

/// What a check found.
#[derive(Debug, Default)]
pub struct Checked {
    /// Things that were looked at and are right.
    pub good: usize,
    /// What is wrong, in the order in which it was found.
    pub problems: Vec<Problem>,
    /// What killed runs left, and is gone now.
    pub leftovers: usize,
    /// What this program did not make; it stays.
    pub strangers: Vec<PathBuf>,
}

impl Checked {
    /// Opens the directory `path` below the cache `root`, through no link. `None` if there
    /// is nothing to look at: it is absent, or a link or a file, which is noted.
    ///
    /// # Errors
    /// When the directory is there and cannot be opened.
    pub fn open(&mut self, root: &Path, path: &Path) -> anyhow::Result<Option<Dir>> {
        match shared_dir::open(root, path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                self.stays(path, &error.into());
                Ok(None)
            }
            dir => dir.map(Some).with_context(|| path.display().to_string()),
        }
    }

    /// Takes down that the files `names` of `dir` are wrong, and removes them if `remove`
    /// is set.
    pub fn problem(&mut self, dir: &Dir, names: &[&OsStr], error: &anyhow::Error, remove: bool) {
        let path = dir.path.join(names.first().unwrap_or(&OsStr::new("")));
        self.wrong(&path, error, remove, || {
            names.iter().try_for_each(|name| Ok(shared_dir::remove(dir, name)?))
        });
    }

    /// Takes down that what is at `path` is wrong, and does `removal` if `remove` is set.
    pub fn wrong(
        &mut self,
        path: &Path,
        error: &anyhow::Error,
        remove: bool,
        removal: impl FnOnce() -> anyhow::Result<()>,
    ) {
        let mut what = format!("{error:#}");
        let mut removed = remove;
        if remove && let Err(error) = removal() {
            what += &format!("; it cannot be removed: {error:#}");
            removed = false;
        }
        self.problems.push(Problem { path: path.to_owned(), what, removed });
    }

    /// Takes down that what is at `path` is wrong, and stays.
    pub fn stays(&mut self, path: &Path, error: &anyhow::Error) {
        let what = format!("{error:#}");
        self.problems.push(Problem { path: path.to_owned(), what, removed: false });
    }

    /// Removes the file `name` of `dir`, which a killed run left, and counts it if that
    /// succeeds.
    pub fn leftover(&mut self, dir: &Dir, name: &str) {
        // What cannot be removed does no harm.
        self.leftovers += usize::from(shared_dir::remove(dir, name).is_ok());
    }
}
