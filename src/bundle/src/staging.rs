//! The staging directory beside a bundle's place, in which the bundle is made, so that it
//! appears whole or not at all.
//!
//! `.NAME.rootfs-compile-XXXXXXXX` has a random name, is made by one mkdir that fails if
//! something is there, and only this user can open it. Its files are reached through open
//! directories and through no link, so that nothing that somebody else puts or exchanges
//! beside the bundle's place is ever written or removed. It holds `lock`, which is locked as
//! long as the run lives, and `bundle`, which is renamed to the bundle's place.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Seek as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, ScopedJoinHandle};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use fsimage::digest::Blake3;
use fsimage::io::dir::{Dir, open_dir};
use fsimage::io::ending::{self, Undo};
use fsimage::io::temporary::set_mode;
use fsimage::io::{flock, hash, regular, sink, system, threads};
use rustix::fs::{AtFlags, CWD, Mode, OFlags};

use super::leftover::{self, LOCK};
use super::made::{FILES, unlink};
use super::place;
use super::sound::{self, Depth};
use super::swap::{self, BUNDLE};
use crate::names::LAYERS;
use crate::opened::Place;

/// A bundle that is being made, in a directory beside its place.
#[derive(Debug)]
pub struct Staging {
    /// The path at which the bundle will be published.
    target: PathBuf,
    directory: Arc<Directory>,
    bundle: File,
    layers: File,
    _undo: Undo,
}

/// The staging directory.
#[derive(Debug)]
struct Directory {
    /// The directory that holds both it and the bundle's place.
    parent: File,
    parent_path: PathBuf,
    name: OsString,
    dir: File,
    /// Held as long as there is something to remove.
    lock: Mutex<Option<File>>,
    /// The name of the bundle's place.
    target: OsString,
    /// Held while the bundle is put in its place, which nothing must interrupt.
    swapping: Mutex<()>,
}

/// How long a run waits for another that is looking for staging directories in the same
/// parent. The two only keep each other from starting at the same time.
const PATIENCE: Duration = Duration::from_secs(2);

impl Staging {
    /// Prepares to make a bundle at `target`. Fails at once if something is there already,
    /// unless it is empty, or it is a bundle and `force` is set.
    ///
    /// # Errors
    /// When something is in the bundle's place that must stay, another run makes the same
    /// bundle, what a killed run left cannot be cleared, or a directory cannot be made.
    pub fn new(target: &Path, force: bool) -> Result<Self> {
        let target = place::resolve(target)?;
        let (parent, parent_path, name) = place::parent(&target)?;
        Self::beside(parent, parent_path, name, force)
    }

    /// As [`Staging::new`], at `name` in the open directory `parent`, whatever its path leads
    /// to by now.
    ///
    /// # Errors
    /// As [`Staging::new`], or when `parent` cannot be opened again.
    pub fn new_in(parent: &Dir, name: &OsStr, force: bool) -> Result<Self> {
        let opened = open_dir(parent.file(), ".");
        let opened = opened.with_context(|| parent.path.display().to_string())?;
        Self::beside(opened, &parent.path, name, force)
    }

    fn beside(parent: File, parent_path: &Path, name: &OsStr, force: bool) -> Result<Self> {
        let target = parent_path.join(name);
        // Of two runs that start at the same time, the lock makes one wait until the staging
        // directory of the other can be seen. Where the parent cannot be locked, the later of
        // the two finds the bundle of the other when it publishes.
        let order = parent.try_clone()?;
        let _ = flock::within(&order, PATIENCE);
        leftover::clear(&parent, parent_path, name)?;
        // Only now, because clearing may have brought a bundle back to its place.
        place::check(&target, force)?;
        let create = || Directory::create(parent, parent_path, name).map(Arc::new);
        let (directory, undo) = ending::undo_what(create, |directory| {
            let directory = directory.clone();
            move || directory.give_up()
        })?;
        let _ = flock::unlock(&order);
        let make = || -> io::Result<(File, File)> {
            let bundle = make_dir(&directory.dir, BUNDLE)?;
            let layers = make_dir(&bundle, LAYERS)?;
            Ok((bundle, layers))
        };
        match make() {
            Ok((bundle, layers)) => Ok(Self { target, directory, bundle, layers, _undo: undo }),
            Err(error) => {
                directory.give_up();
                Err(error).with_context(|| directory.path().display().to_string())
            }
        }
    }

    /// The path of the bundle's file `name` while the bundle is being made, for reading it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(BUNDLE).join(name)
    }

    /// The bundle that is being made, by its open directory: it is the right one even if
    /// somebody else who may write there has put another under its name.
    ///
    /// # Errors
    /// When the descriptor of the bundle's directory cannot be duplicated.
    pub fn place(&self) -> Result<Place> {
        Ok(Place::at(self.path(""), self.bundle.try_clone()?))
    }

    /// Device and inode of the staging directory, and of what is at the bundle's place.
    pub fn directories(&self) -> Vec<(u64, u64)> {
        let target = open_dir(CWD, &self.target).ok();
        let there = [Some(&self.directory.dir), target.as_ref()].into_iter().flatten();
        let there = there.filter_map(|dir| dir.metadata().ok());
        there.map(|metadata| (metadata.dev(), metadata.ino())).collect()
    }

    /// The open directory of the bundle's file `name`, and the file's name there.
    fn at<'n>(&self, name: &'n str) -> (&File, &'n str) {
        match name.strip_prefix("layers/") {
            Some(name) => (&self.layers, name),
            None => (&self.bundle, name),
        }
    }

    /// Creates a file of the bundle.
    ///
    /// # Errors
    /// When `name` is not that of a file in the bundle's directory or its layers, or the file
    /// exists already or cannot be created.
    pub fn create(&self, name: &str) -> Result<File> {
        let (dir, file_name) = self.at(name);
        let made = create(dir, file_name, 0o644);
        made.with_context(|| format!("creating {}", self.path(name).display()))
    }

    /// Opens a file of the bundle.
    ///
    /// # Errors
    /// When the file is missing, is not a regular one, or cannot be opened.
    pub fn open(&self, name: &str) -> io::Result<File> {
        let (dir, file_name) = self.at(name);
        regular::open_at(dir, file_name)
    }

    /// Removes a file of the bundle.
    ///
    /// # Errors
    /// When the file is there and cannot be removed.
    pub fn discard(&self, name: &str) -> io::Result<()> {
        let (dir, file_name) = self.at(name);
        unlink(dir, file_name, AtFlags::empty())
    }

    /// Puts `from`, a file of the cache whose BLAKE3 is `blake3`, into the bundle: by sharing
    /// its blocks (reflink), else by a hard link, else by a copy, which is hashed on the way.
    ///
    /// A file that somebody else owns is never linked, because its owner could write to the
    /// bundle through it; and its copy is always hashed, because its owner may have written to
    /// it a moment ago. Returns false, and leaves nothing, if the copy has another hash.
    ///
    /// # Errors
    /// When `name` exists already, or the file cannot be created, copied or synced.
    pub fn adopt(&self, from: &File, blake3: Blake3, name: &str) -> Result<bool> {
        let (dir, file_name) = self.at(name);
        let adopt = || -> Result<bool> {
            let file = create(dir, file_name, 0o600)?;
            if system::share_blocks(from, &file) {
                let is_right = || hash::of_file_by_all(&file).is_ok_and(|hash| hash == blake3);
                if !is_own(from)? && !is_right() {
                    rustix::fs::unlinkat(dir, file_name, AtFlags::empty())?;
                    return Ok(false);
                }
                self.finish_copy(&file)?;
                return Ok(true);
            }
            rustix::fs::unlinkat(dir, file_name, AtFlags::empty())?;
            if is_own(from)? {
                let open = format!("/proc/self/fd/{}", from.as_raw_fd());
                let follow = AtFlags::SYMLINK_FOLLOW;
                if rustix::fs::linkat(CWD, open, dir, file_name, follow).is_ok() {
                    return Ok(true);
                }
            }
            let (file, hash) = copy(from, create(dir, file_name, 0o600)?)?;
            if hash != blake3 {
                rustix::fs::unlinkat(dir, file_name, AtFlags::empty())?;
                return Ok(false);
            }
            self.finish_copy(&file)?;
            Ok(true)
        };
        adopt().with_context(|| self.path(name).display().to_string())
    }

    /// Makes a copied layer read-only and syncs it. Whoever may read the bundle's directory,
    /// by the umask, may read the layer.
    fn finish_copy(&self, file: &File) -> io::Result<()> {
        set_mode(file, 0o444 & self.bundle.metadata()?.mode())?;
        file.sync_all()
    }

    /// Syncs all files but the layers, in parallel: they are small, so that each thread only
    /// waits for the disk.
    fn sync(&self) -> io::Result<()> {
        let names = FILES.map(Some);
        let sync = |name: Option<&str>| match name {
            Some(name) => match self.open(name) {
                // The signature is missing in a bundle that is not signed.
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
                file => file?.sync_all(),
            },
            None => {
                self.layers.sync_all()?;
                self.bundle.sync_all()
            }
        };
        thread::scope(|scope| {
            let all = names.into_iter().chain([None]);
            let start = |name| threads::spawn_scoped(scope, "sync", move || sync(name));
            let started: Vec<_> = all.map(start).collect();
            let join = |thread: io::Result<ScopedJoinHandle<'_, _>>| {
                thread?.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            };
            started.into_iter().try_for_each(join)
        })
    }

    /// Publishes the bundle, whose layers are synced: checks and syncs the rest, and renames it
    /// to its place.
    ///
    /// # Errors
    /// When the bundle is not sound, something that must stay came to its place, syncing
    /// fails, or what it replaced cannot be removed (the bundle is published then).
    pub fn publish(self, force: bool) -> Result<()> {
        let directory = &self.directory;
        let publish = || -> Result<()> {
            // Invariant: every published bundle can be opened.
            sound::check(&self.place()?, Depth::Written)
                .context("this program made a bundle that it cannot read")?;
            self.sync()?;
            // Checked again, because others may have written there during the build.
            place::check(&self.target, force)?;
            let name = self.target.file_name().expect("the staging is beside the target");
            let swapping = directory.swapping.lock().unwrap_or_else(PoisonError::into_inner);
            swap::put_in_place(&directory.dir, &directory.parent, name, force)?;
            drop(swapping);
            Ok(directory.parent.sync_all()?)
        };
        publish().with_context(|| format!("publishing {}", self.target.display()))?;
        // The staging directory now holds the bundle that was replaced, if there was one.
        directory.remove().with_context(|| {
            let (target, left) = (self.target.display(), directory.path());
            format!("{target} is published; removing what it replaced, now in {}", left.display())
        })
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        // After publishing, it is gone already.
        self.directory.give_up();
    }
}

impl Directory {
    fn create(parent: File, parent_path: &Path, target: &OsStr) -> Result<Self> {
        let shown = || format!("making a directory in {}", parent_path.display());
        let mut builder = tempfile::Builder::new();
        let prefix = leftover::prefix(target);
        builder.prefix(&prefix).rand_bytes(leftover::RANDOM).disable_cleanup(true);
        let made = builder.make_in(parent_path, |path| {
            let name = path.file_name().unwrap_or_default();
            Ok(rustix::fs::mkdirat(&parent, name, Mode::RWXU)?)
        });
        let path = made.with_context(shown)?.into_temp_path();
        let name = path.file_name().unwrap_or_default().to_owned();
        let open = || -> Result<(File, File)> {
            let dir = open_dir(&parent, &name)?;
            let lock = create(&dir, LOCK, 0o600)?;
            let locked = flock::try_lock(&lock, flock::LockKind::Exclusive)?;
            ensure!(locked, "another process holds {LOCK}");
            Ok((dir, lock))
        };
        match open() {
            Ok((dir, lock)) => {
                let (parent_path, target) = (parent_path.to_owned(), target.to_owned());
                let (lock, swapping) = (Mutex::new(Some(lock)), Mutex::new(()));
                Ok(Self { parent, parent_path, name, dir, lock, target, swapping })
            }
            Err(error) => {
                // Succeeds only if the directory is empty.
                let _ = rustix::fs::unlinkat(&parent, &name, AtFlags::REMOVEDIR);
                Err(error).with_context(|| parent_path.join(&name).display().to_string())
            }
        }
    }

    fn path(&self) -> PathBuf {
        self.parent_path.join(&self.name)
    }

    fn remove(&self) -> Result<()> {
        let mut lock = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        leftover::remove(&self.dir, &self.parent, &self.name, &self.target, &mut lock)
    }

    /// Removes the staging directory. Tries again when that fails, because other threads may
    /// still be making files in it; in the end, it is left to the next run.
    fn give_up(&self) {
        let _swapping = self.swapping.lock().unwrap_or_else(PoisonError::into_inner);
        for _ in 0..10 {
            if !self.is_in_place() || self.remove().is_ok() {
                return;
            }
        }
    }

    /// Whether the staging directory still has its name: it is neither removed nor exchanged.
    fn is_in_place(&self) -> bool {
        let inode = |file: &File| file.metadata().map(|m| (m.dev(), m.ino())).ok();
        let there = open_dir(&self.parent, &self.name).ok();
        there.is_some_and(|there| inode(&there) == inode(&self.dir))
    }
}

/// Whether `file` belongs to this user, and nobody else may write to it.
///
/// # Errors
/// When the host does not tell the file's owner and mode.
pub fn is_own(file: &File) -> io::Result<bool> {
    let metadata = file.metadata()?;
    let own = metadata.uid() == rustix::process::geteuid().as_raw();
    Ok(own && metadata.mode() & 0o022 == 0)
}

/// Copies `from` into `file`, which is new, and returns it with the hash of its content.
fn copy(from: &File, file: File) -> Result<(File, Blake3)> {
    let mut from = from.try_clone()?;
    from.rewind()?;
    let size = from.metadata()?.len();
    let (file, hash, _) = sink::copy(&mut from, size, file)?;
    Ok((file, hash))
}

/// Creates a file `name` in `dir`, for reading and writing, with `mode` less the umask.
fn create(dir: &File, name: &str, mode: u32) -> io::Result<File> {
    if name.contains('/') || matches!(name, "" | "." | "..") {
        // The names that a build uses are plain, but that of a received bundle need not be.
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "is not a name of a file"));
    }
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(dir, name, flags, system::mode(mode))?.into())
}

/// Creates a directory `name` in `dir`, with the mode 0755 less the umask.
fn make_dir(dir: &File, name: &str) -> io::Result<File> {
    rustix::fs::mkdirat(dir, name, Mode::from_raw_mode(0o755))?;
    open_dir(dir, name)
}

/// Creates a small file of the bundle.
///
/// # Errors
/// When the file is there already, or cannot be made or written.
pub fn write_file(staging: &Staging, name: &str, bytes: &[u8]) -> Result<()> {
    let mut file = staging.create(name)?;
    file.write_all(bytes).with_context(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::names::FSMETA;

    #[test]
    fn a_name_that_leads_out_of_the_bundle_is_refused() {
        let tmp = tempfile::tempdir().unwrap();
        let staging = Staging::new(&tmp.path().join("out"), false).unwrap();
        for name in ["../x", "layers/../../x", "layers/", "", ".", "a/b"] {
            assert!(staging.create(name).is_err(), "{name}");
        }
        assert!(staging.create("layers/x").is_ok());
        drop(staging);
        assert!(fs::read_dir(tmp.path()).unwrap().count() == 1, "the file x is not a layer's");
    }

    #[test]
    fn a_staging_without_a_bundle_leaves_nothing() {
        let tmp = tempfile::tempdir().unwrap();
        let out = tmp.path().join("deep/out");
        let staging = Staging::new(&out, false).unwrap();
        staging.create(FSMETA).unwrap();
        let error = Staging::new(&out, false).err().unwrap().to_string();
        assert!(error.contains("another build is making this bundle"), "{error}");
        drop(staging);
        assert_eq!(fs::read_dir(tmp.path().join("deep")).unwrap().count(), 0);
    }

    #[test]
    fn what_somebody_shows_under_the_name_of_a_staging_is_not_its_bundle() {
        let tmp = tempfile::tempdir().unwrap();
        let staging = Staging::new(&tmp.path().join("out"), false).unwrap();
        write_file(&staging, FSMETA, b"mine").unwrap();
        let name = staging.directory.path();
        fs::rename(&name, tmp.path().join("aside")).unwrap();
        fs::create_dir_all(name.join(BUNDLE).join(LAYERS)).unwrap();
        fs::write(staging.path(FSMETA), "another's").unwrap();
        let shown = staging.place().unwrap().open(FSMETA).unwrap().file;
        assert_eq!(regular::bytes(&shown, 100).unwrap(), b"mine");
        drop(staging);
        assert!(name.join(BUNDLE).join(FSMETA).exists());
    }

    #[test]
    fn a_bundle_is_made_in_the_directory_that_was_opened() {
        let tmp = tempfile::tempdir().unwrap();
        let at = |name: &str| tmp.path().join(name);
        fs::create_dir(at("place")).unwrap();
        let parent = Dir::followed(&at("place")).unwrap();
        fs::rename(at("place"), at("aside")).unwrap();
        fs::create_dir(at("place")).unwrap();
        let staging = Staging::new_in(&parent, OsStr::new("out"), false).unwrap();
        assert_eq!(fs::read_dir(at("aside")).unwrap().count(), 1);
        assert_eq!(fs::read_dir(at("place")).unwrap().count(), 0);
        drop(staging);
        assert_eq!(fs::read_dir(at("aside")).unwrap().count(), 0);
    }

    #[test]
    fn a_copy_is_taken_only_if_it_has_the_hash() {
        let tmp = tempfile::tempdir().unwrap();
        let staging = Staging::new(&tmp.path().join("out"), false).unwrap();
        // Without a name, and with bits by which others may write: it is copied.
        let mut from = tempfile::tempfile().unwrap();
        from.write_all(b"layer").unwrap();
        set_mode(&from, 0o666).unwrap();
        let name = format!("layers/sha256-{}.erofs", "0".repeat(64));
        assert!(!staging.adopt(&from, Blake3::of(b"other"), &name).unwrap());
        assert!(staging.open(&name).is_err());
        assert!(staging.adopt(&from, Blake3::of(b"layer"), &name).unwrap());
        let copy = staging.open(&name).unwrap().metadata().unwrap();
        assert_eq!((copy.len(), copy.mode() & 0o777), (5, 0o444));
        assert_ne!(copy.ino(), from.metadata().unwrap().ino());
    }
}
