//! A bundle appears whole or not at all.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::thread::ScopedJoinHandle;

use anyhow::{Context as _, Result, bail, ensure};
use rustix::fs::{FlockOperation, RenameFlags};

use super::index::FORMAT;
use super::sound::{self, Depth};
use super::{FSMETA, INDEX, LAYERS, SIGNATURE, UPPER, VMDK};
use crate::threads;

/// A directory beside the bundle's place, in which it is made.
pub struct Staging {
    /// Where the bundle will be.
    target: PathBuf,
    dir: PathBuf,
    /// Locked as long as the build runs.
    _lock: File,
    published: bool,
}

impl Staging {
    /// Prepares to make a bundle at `target`. Something that is there already
    /// stops this at once, unless it is empty, or a bundle and `force` is set.
    pub fn new(target: &Path, force: bool) -> Result<Self> {
        let target = match fs::canonicalize(target) {
            Ok(real) => real,
            Err(_) => std::path::absolute(target)?,
        };
        check_target(&target, force)?;
        let (Some(parent), Some(name)) = (target.parent(), target.file_name()) else {
            bail!("{} cannot be a bundle", target.display());
        };
        fs::create_dir_all(parent).with_context(|| parent.display().to_string())?;
        let dir = parent.join(format!(".{}.rootfs-compile", name.to_string_lossy()));
        let lock = lock(&dir)?;
        // What a killed build left. Nobody else is at it: the lock says so.
        for entry in fs::read_dir(&dir)? {
            let path = entry?.path();
            if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) }
                .with_context(|| path.display().to_string())?;
        }
        fs::create_dir(dir.join(LAYERS))?;
        for path in [&dir, &dir.join(LAYERS)] {
            fs::set_permissions(path, fs::Permissions::from_mode(0o755))?;
        }
        Ok(Self { target, dir, _lock: lock, published: false })
    }

    /// Path of the bundle's file `name` while it is being made.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Where the bundle is made, and one that it replaces: device and inode.
    pub fn directories(&self) -> Vec<(u64, u64)> {
        let there = [&self.dir, &self.target].into_iter().filter_map(|dir| fs::metadata(dir).ok());
        there.map(|metadata| (metadata.dev(), metadata.ino())).collect()
    }

    /// A new file of the bundle.
    pub fn create(&self, name: &str) -> Result<File> {
        let path = self.path(name);
        let create = || {
            let file = File::options().read(true).write(true).create_new(true).open(&path)?;
            file.set_permissions(fs::Permissions::from_mode(0o644))?;
            io::Result::Ok(file)
        };
        create().with_context(|| format!("creating {}", path.display()))
    }

    /// Puts a file of the cache into the bundle: shared blocks, else a second
    /// name, else a copy.
    pub fn adopt(&self, from: &File, from_path: &Path, name: &str) -> Result<()> {
        let path = self.path(name);
        let adopt = || -> io::Result<()> {
            let file = File::options().write(true).create_new(true).open(&path)?;
            if rustix::fs::ioctl_ficlone(&file, from).is_ok() {
                file.set_permissions(fs::Permissions::from_mode(0o444))?;
                return file.sync_all();
            }
            fs::remove_file(&path)?;
            if fs::hard_link(from_path, &path).is_ok() {
                return Ok(());
            }
            fs::copy(from_path, &path)?;
            fs::set_permissions(&path, fs::Permissions::from_mode(0o444))?;
            File::open(&path)?.sync_all()
        };
        adopt().with_context(|| format!("{}", path.display()))
    }

    /// Brings all but the layers to the disk, at once: that is little, and each
    /// wait is for the disk alone.
    fn sync(&self) -> io::Result<()> {
        let names = [FSMETA, UPPER, VMDK, INDEX, LAYERS, ""];
        std::thread::scope(|scope| {
            let sync = |name| {
                threads::spawn_scoped(scope, "sync", move || {
                    File::open(self.path(name))?.sync_all()
                })
            };
            let threads = names.map(sync);
            let join = |thread: io::Result<ScopedJoinHandle<'_, _>>| {
                thread?.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            };
            threads.into_iter().try_for_each(join)
        })
    }

    /// Makes the bundle, whose layers are on the disk, appear at its place, for good.
    pub fn publish(mut self, force: bool) -> Result<()> {
        let publish = || -> Result<()> {
            // Invariant: a bundle that is written is one that opens.
            sound::check(&self.dir, Depth::Written)
                .context("this program made a bundle that it cannot read")?;
            self.sync()?;
            // Again: a build takes time, and others write too.
            check_target(&self.target, force)?;
            if self.target.exists() && fs::read_dir(&self.target)?.next().is_some() {
                replace(&self.dir, &self.target)?;
            } else {
                fs::rename(&self.dir, &self.target)?;
            }
            let parent = self.target.parent().expect("the staging is beside the target");
            Ok(File::open(parent)?.sync_all()?)
        };
        publish().with_context(|| format!("publishing {}", self.target.display()))?;
        self.published = true;
        Ok(())
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        if !self.published {
            // An error is on its way already; what is left, the next build takes away.
            let _ = fs::remove_dir_all(&self.dir);
        }
    }
}

/// Locks the directory `dir`, made if need be.
fn lock(dir: &Path) -> Result<File> {
    loop {
        match fs::create_dir(dir) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(error).with_context(|| format!("creating {}", dir.display()));
            }
            _ => {}
        }
        let Ok(file) = File::open(dir) else {
            continue;
        };
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                bail!("another build is making this bundle (it holds {})", dir.display())
            }
            Err(error) => return Err(error).with_context(|| format!("locking {}", dir.display())),
        }
        // The build before may have published or removed what was opened here.
        let locked = file.metadata()?;
        if fs::metadata(dir).is_ok_and(|m| (m.dev(), m.ino()) == (locked.dev(), locked.ino())) {
            return Ok(file);
        }
    }
}

/// Writes a small file of the bundle.
pub fn write_file(staging: &Staging, name: &str, bytes: &[u8]) -> Result<()> {
    let mut file = staging.create(name)?;
    file.write_all(bytes).with_context(|| name.to_owned())
}

/// Swaps `new` and `old`, then removes what `old` was.
fn replace(new: &Path, old: &Path) -> Result<()> {
    let cwd = rustix::fs::CWD;
    match rustix::fs::renameat_with(cwd, new, cwd, old, RenameFlags::EXCHANGE) {
        Ok(()) => {}
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) => {
            // A file system that cannot swap: the name is free for a moment.
            let aside = new.with_extension("old");
            fs::rename(old, &aside)?;
            fs::rename(new, old)?;
            fs::rename(&aside, new)?;
        }
        Err(error) => return Err(error.into()),
    }
    fs::remove_dir_all(new)
        .with_context(|| format!("removing the bundle that was at {}", old.display()))
}

/// Refuses to touch what is not a bundle's place.
fn check_target(target: &Path, force: bool) -> Result<()> {
    let shown = target.display();
    let Ok(metadata) = fs::symlink_metadata(target) else {
        return Ok(());
    };
    ensure!(metadata.is_dir(), "{shown} is there and no directory; it stays as it is");
    let mut names = Vec::new();
    for entry in fs::read_dir(target).with_context(|| shown.to_string())? {
        names.push(entry?.file_name());
    }
    if names.is_empty() {
        return Ok(());
    }
    let index = fs::read(target.join(INDEX)).ok();
    let index = index.and_then(|bytes| serde_json::from_slice::<serde_json::Value>(&bytes).ok());
    ensure!(
        index.is_some_and(|index| index["format"] == FORMAT),
        "{shown} is no bundle and not empty; it stays as it is"
    );
    let own = [FSMETA, UPPER, VMDK, INDEX, SIGNATURE, LAYERS];
    if let Some(other) = names.iter().find(|name| !own.iter().any(|own| *name == *own)) {
        bail!("{shown} also holds {}, which no build made; it stays as it is", other.display());
    }
    ensure!(force, "{shown} is a bundle already; --force replaces it");
    Ok(())
}
