//! Compiled layers, kept by diff ID and format version.
//!
//! `v<N>/<hex>.erofs` is an object, `<hex>.json` what is known of it, and
//! `<hex>.lock` is locked by whoever makes or uses it. Objects are mode 0444
//! and appear by rename, the record last: an object without one does not count.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};

use crate::digest::DiffId;
use crate::erofs::layer::FORMAT_VERSION;
use crate::map;

/// A directory of compiled layers. Any number of builds may share it.
pub struct Cache {
    dir: PathBuf,
}

/// What is known of an object.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Record {
    /// Bytes of the object.
    pub size: u64,
    /// BLAKE3 of the object, as hex.
    pub blake3: String,
    /// Bytes of the layer's tar stream.
    pub uncompressed: u64,
    /// The object's inode when it was last seen to have this hash.
    stamp: Stamp,
}

/// Whatever writes to a file changes one of these. That its inode got or lost
/// a name, as with each bundle that is made or removed, does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Stamp {
    ino: u64,
    mtime: i64,
    mtime_nsec: i64,
}

impl Stamp {
    fn of(file: &File) -> io::Result<Self> {
        let m = file.metadata()?;
        Ok(Self { ino: m.ino(), mtime: m.mtime(), mtime_nsec: m.mtime_nsec() })
    }
}

/// One layer's place in the cache, locked until it is dropped.
pub struct Slot {
    dir: PathBuf,
    hex: String,
    _lock: File,
}

/// An object that has the content its record says.
pub struct Object {
    pub file: File,
    pub path: PathBuf,
    pub record: Record,
}

impl Cache {
    /// `$XDG_CACHE_HOME/rootfs-compile`, or the same under `~/.cache`.
    pub fn default_dir() -> Option<PathBuf> {
        let set = |name| std::env::var_os(name).map(PathBuf::from).filter(|p| p.is_absolute());
        let base = set("XDG_CACHE_HOME").or_else(|| Some(set("HOME")?.join(".cache")))?;
        Some(base.join("rootfs-compile"))
    }

    /// Uses `dir`, which need not exist yet.
    pub fn open(dir: &Path) -> Result<Self> {
        let dir = dir.join(format!("v{FORMAT_VERSION}"));
        fs::create_dir_all(&dir).with_context(|| format!("cache {}", dir.display()))?;
        Ok(Self { dir })
    }

    /// A new file beside the objects, without a name and gone with the process.
    pub fn scratch(&self) -> Result<File> {
        tempfile::tempfile_in(&self.dir).with_context(|| format!("cache {}", self.dir.display()))
    }

    /// Whether `dir` seems to hold an object for `diff_id`; nothing is locked
    /// or verified.
    pub fn has(dir: &Path, diff_id: DiffId) -> bool {
        let record = dir.join(format!("v{FORMAT_VERSION}")).join(format!("{}.json", diff_id.hex()));
        record.with_extension("erofs").exists() && record.exists()
    }

    /// Locks the place of `diff_id`, waiting for whoever has it.
    pub fn slot(&self, diff_id: DiffId) -> Result<Slot> {
        let hex = diff_id.hex();
        let path = self.dir.join(format!("{hex}.lock"));
        let lock = || -> io::Result<File> {
            let file = File::options().create(true).truncate(false).write(true).open(&path)?;
            rustix::io::retry_on_intr(|| rustix::fs::flock(&file, FlockOperation::LockExclusive))?;
            Ok(file)
        };
        let lock = lock().with_context(|| format!("locking {}", path.display()))?;
        Ok(Slot { dir: self.dir.clone(), hex, _lock: lock })
    }
}

impl Slot {
    fn path(&self, extension: &str) -> PathBuf {
        self.dir.join(format!("{}.{extension}", self.hex))
    }

    /// The object, if there is one with the content that its record says.
    ///
    /// An inode that nothing touched since it was last hashed is taken as it
    /// is; any other is hashed again.
    pub fn object(&self) -> Result<Option<Object>> {
        let path = self.path("erofs");
        let Ok(record) = fs::read(self.path("json")) else {
            return Ok(None);
        };
        let Ok(record) = serde_json::from_slice::<Record>(&record) else {
            return Ok(None);
        };
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).with_context(|| path.display().to_string()),
        };
        if file.metadata()?.len() != record.size {
            return Ok(None);
        }
        let object = Object { file, path, record };
        if Stamp::of(&object.file)? != object.record.stamp {
            let bytes = map::file(&object.file)?;
            if blake3::hash(&bytes).to_hex().as_str() != object.record.blake3 {
                return Ok(None);
            }
            return self.record(object).map(Some);
        }
        Ok(Some(object))
    }

    /// A file to write a new object into.
    pub fn create(&self) -> Result<File> {
        let path = self.path("tmp");
        // Left by a build that was killed; whoever holds the lock may take it.
        let _ = fs::remove_file(&path);
        let mut options = File::options();
        options.read(true).write(true).create_new(true);
        options.open(&path).with_context(|| format!("creating {}", path.display()))
    }

    /// Gives up what [`Slot::create`] made.
    pub fn discard(&self) {
        let _ = fs::remove_file(self.path("tmp"));
    }

    /// Makes the file of [`Slot::create`] the object.
    pub fn publish(&self, file: File, blake3: blake3::Hash, uncompressed: u64) -> Result<Object> {
        let path = self.path("erofs");
        let publish = || -> io::Result<()> {
            file.set_permissions(fs::Permissions::from_mode(0o444))?;
            file.sync_all()?;
            // An older record must not speak for the new object.
            match fs::remove_file(self.path("json")) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            fs::rename(self.path("tmp"), &path)
        };
        publish().with_context(|| format!("publishing {}", path.display()))?;
        let record = Record {
            size: file.metadata()?.len(),
            blake3: blake3.to_hex().to_string(),
            uncompressed,
            stamp: Stamp::of(&file)?,
        };
        self.record(Object { file, path, record })
    }

    /// Writes down what is known of the object, whose data are on the disk. Should
    /// the record itself be lost, the layer is compiled again.
    fn record(&self, mut object: Object) -> Result<Object> {
        let write = |object: &mut Object| -> io::Result<()> {
            object.record.stamp = Stamp::of(&object.file)?;
            let temporary = self.path("json.tmp");
            fs::write(&temporary, serde_json::to_vec(&object.record)?)?;
            fs::rename(temporary, self.path("json"))
        };
        let path = object.path.display().to_string();
        write(&mut object).with_context(|| format!("recording {path}"))?;
        Ok(object)
    }
}
