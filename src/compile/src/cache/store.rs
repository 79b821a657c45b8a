//! Objects by diff ID: finding one, making one, recording what is known of it.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use fsimage::digest::{Blake3, DiffId};
use fsimage::erofs::layer::FORMAT_VERSION;
use fsimage::io::dir::Dir;
use fsimage::io::shared_dir::{self, LockFile, may_not_write};
use fsimage::io::temporary::{Temporary, set_mode};
use fsimage::io::{flock, hash, regular};

use crate::cache::record::{self, Record, Stamp};

/// A directory of compiled layers. Any number of builds may share it.
#[derive(Debug)]
pub struct Cache {
    dir: Dir,
}

/// One layer's place in the cache, locked until it is dropped.
#[derive(Debug)]
pub struct Slot {
    pub(super) dir: Dir,
    pub(super) hex: String,
    _lock: Option<File>,
    writable: bool,
}

/// An object that has the content its record says.
#[derive(Debug)]
pub struct Object {
    /// The EROFS image of the layer, open.
    pub file: File,
    /// Size, hash and age of what `file` holds.
    pub record: Record,
    /// Whether it is in the cache.
    pub kept: bool,
}

impl Cache {
    /// `$XDG_CACHE_HOME/rootfs-compile`, or the same under `~/.cache`.
    pub fn default_dir() -> Option<PathBuf> {
        let set = |name| std::env::var_os(name).map(PathBuf::from).filter(|p| p.is_absolute());
        let base = set("XDG_CACHE_HOME").or_else(|| Some(set("HOME")?.join(".cache")))?;
        Some(base.join("rootfs-compile"))
    }

    /// Where the cache `root` keeps the documents of registries.
    pub fn documents_dir(root: &Path) -> PathBuf {
        root.join("registry")
    }

    /// Uses `root`, which need not exist yet.
    ///
    /// # Errors
    /// It fails when the cache's directory cannot be made or opened.
    pub fn open(root: &Path) -> Result<Self> {
        let dir = layers_dir(root);
        let made = shared_dir::create(root, &dir);
        Ok(Self { dir: made.with_context(|| format!("cache {}", dir.display()))? })
    }

    /// A new file without a name, gone with the process: beside the objects, or
    /// where temporary files are if this user cannot write there.
    ///
    /// # Errors
    /// It fails when no file can be made there.
    pub fn scratch(&self) -> Result<File> {
        let file = match tempfile::tempfile_in(&self.dir.path) {
            Err(error) if may_not_write(&error) => tempfile::tempfile(),
            file => file,
        };
        file.with_context(|| format!("cache {}", self.dir.path.display()))
    }

    /// Whether `root` seems to hold an object for `diff_id`; nothing is locked
    /// or verified.
    pub fn has(root: &Path, diff_id: DiffId) -> bool {
        let record = layers_dir(root).join(format!("{}.json", diff_id.hex()));
        record.with_extension("erofs").exists() && record.exists()
    }

    /// Locks the place of `diff_id`. If another process has it, this waits, and
    /// tells `say` so after a second.
    ///
    /// # Errors
    /// It fails when the lock of the layer cannot be opened or taken.
    pub fn slot(&self, diff_id: DiffId, say: &(dyn Fn(&str) + Sync)) -> Result<Slot> {
        Slot::lock(&self.dir, diff_id.hex(), say)
    }
}

/// Where the objects of this format are in the cache `root`.
pub(super) fn layers_dir(root: &Path) -> PathBuf {
    root.join(format!("v{FORMAT_VERSION}"))
}

impl Slot {
    pub(super) fn lock(dir: &Dir, hex: String, say: &(dyn Fn(&str) + Sync)) -> Result<Self> {
        let name = format!("{hex}.lock");
        let lock = || -> io::Result<LockFile> {
            let lock = shared_dir::open_lock(dir, &name)?;
            if let Some(file) = &lock.file {
                // Who only reads needs no more than that nobody writes.
                let kind = match lock.writable {
                    true => flock::LockKind::Exclusive,
                    false => flock::LockKind::Shared,
                };
                flock::wait(file, kind, &format!("the layer {hex} of the cache"), say)?;
            }
            Ok(lock)
        };
        let lock = lock().with_context(|| format!("locking {}", dir.path.join(&name).display()))?;
        Ok(Self { dir: dir.clone(), hex, _lock: lock.file, writable: lock.writable })
    }

    pub(super) fn name(&self, extension: &str) -> String {
        format!("{}.{extension}", self.hex)
    }

    fn path(&self, extension: &str) -> PathBuf {
        self.dir.path.join(self.name(extension))
    }

    /// The object, if there is one with the content that its record says.
    ///
    /// An inode that nothing touched since it was hashed, within the last week, is
    /// taken as it is; any other is hashed again.
    ///
    /// # Errors
    /// It fails when the object cannot be opened or read, or its record cannot be renewed for
    /// another reason than that this user may not write to the cache.
    pub fn object(&self) -> Result<Option<Object>> {
        let Ok(record) = regular::read_at(self.dir.file(), self.name("json"), record::MAX_BYTES)
        else {
            return Ok(None);
        };
        let Some(record) = Record::parse(&self.hex, &record) else {
            return Ok(None);
        };
        let path = self.path("erofs");
        let file = match regular::open_at(self.dir.file(), self.name("erofs")) {
            Ok(file) => file,
            Err(error) if is_none(&error) => return Ok(None),
            Err(error) => return Err(error).with_context(|| path.display().to_string()),
        };
        if file.metadata()?.len() != record.size {
            return Ok(None);
        }
        if record.is_fresh(&file)? {
            return Ok(Some(Object { file, record, kept: true }));
        }
        // Before it is hashed: what is written meanwhile is not what was hashed.
        let stamp = Stamp::of(&file)?;
        if hash::of_file(&file)? != record.blake3 {
            return Ok(None);
        }
        let object = self.object_since(stamp, file, &record)?;
        match self.record(&object) {
            // It is hashed each time, then.
            Err(error) if !may_not_write(&error) => Err(error).with_context(|| self.recording()),
            _ => Ok(Some(object)),
        }
    }

    /// A file to write a new object into.
    ///
    /// # Errors
    /// It fails when this user may not write to the cache, or the file cannot be made.
    pub fn create(&self) -> Result<Temporary> {
        let dir = self.dir.path.display();
        ensure!(self.writable, "the cache {dir} lacks this layer, and cannot be written to");
        Temporary::create_in(self.dir.file(), 0o644).with_context(|| format!("cache {dir}"))
    }

    /// Makes `file` the object. Where another user's file is in its place that this
    /// user may not remove, it is not kept, and is gone when nobody uses it any more.
    ///
    /// # Errors
    /// It fails when the file cannot be synced or take the object's place, or the record cannot
    /// be written.
    pub fn publish(&self, file: Temporary, blake3: Blake3, uncompressed: u64) -> Result<Object> {
        let path = self.path("erofs");
        let prepare = || -> io::Result<()> {
            set_mode(file.file(), 0o444)?;
            file.file().sync_all()
        };
        prepare().with_context(|| path.display().to_string())?;
        // The record first: it must not speak for the new object.
        for old in ["json", "erofs"] {
            match shared_dir::remove(&self.dir, self.name(old)) {
                Err(error) if may_not_write(&error) => {
                    let object = self.object_of(file.into_file(), blake3, uncompressed)?;
                    return Ok(Object { kept: false, ..object });
                }
                removed => {
                    removed.with_context(|| format!("removing {}", self.path(old).display()))?;
                }
            }
        }
        let file = file.persist_new(&path);
        let file = file.with_context(|| format!("publishing {}", path.display()))?;
        let object = self.object_of(file, blake3, uncompressed)?;
        self.record(&object).with_context(|| self.recording())?;
        Ok(object)
    }

    fn object_of(&self, file: File, blake3: Blake3, uncompressed: u64) -> Result<Object> {
        let record = Record::new(&file, blake3, uncompressed);
        let record = record.with_context(|| self.path("erofs").display().to_string())?;
        Ok(Object { file, record, kept: true })
    }

    /// The object `file`, which was seen to be what `record` says since it had `stamp`.
    pub(super) fn object_since(&self, stamp: Stamp, file: File, record: &Record) -> Result<Object> {
        let record = Record::since(stamp, &file, record.blake3, record.uncompressed);
        let record = record.with_context(|| self.path("erofs").display().to_string())?;
        Ok(Object { file, record, kept: true })
    }

    fn recording(&self) -> String {
        format!("recording {}", self.path("erofs").display())
    }

    /// Writes down what is known of the object, whose data are on the disk. Should
    /// the record itself be lost, the layer is compiled again.
    pub(super) fn record(&self, object: &Object) -> io::Result<()> {
        use std::io::Write as _;
        shared_dir::is_ours(&self.dir, self.name("json").as_ref())?;
        let file = Temporary::create_in(self.dir.file(), 0o644)?;
        file.file().write_all(&object.record.to_bytes(&self.hex)?)?;
        // Whoever shares the cache reads it, whatever the umask is.
        set_mode(file.file(), 0o644)?;
        file.replace(&self.path("json")).map(drop)
    }
}

/// Whether `error` says that there is no file that this user could read.
pub(super) fn is_none(error: &io::Error) -> bool {
    use io::ErrorKind::{InvalidInput, NotFound, PermissionDenied};
    matches!(error.kind(), NotFound | InvalidInput | PermissionDenied)
}
