//! The place of one question: its answer, and the making of a new one.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result};
use fsimage::erofs::layer::FORMAT_VERSION;
use fsimage::io::dir::Dir;
use fsimage::io::{flock, regular, shared_dir, temporary};
use rustix::fs::{AtFlags, Mode};
use rustix::io::Errno;

use crate::bundle_cache::input::InputFile;
use crate::bundle_cache::record::Origin;
use crate::bundle_cache::record::{
    AnswerRecord, RECORD, VERSION, numbered, parse_record, read_record, record_bytes, refresh,
    write_record,
};
use crate::bundle_cache::remove;

/// The place of one question.
#[derive(Debug)]
pub struct BundleSlot {
    /// The cache that it is in.
    root: PathBuf,
    pub(super) dir: PathBuf,
    /// How the bundle's directory is called, which is also the machine's name.
    name: String,
}

/// The directory of a cache that bundles are in.
pub(super) const BUNDLES: &str = "bundles";

/// A bundle that answers the question, and what was compiled for it.
#[derive(Clone, Debug)]
pub struct CachedBundle {
    /// The bundle's directory, open.
    pub bundle: Dir,
    /// The image that the bundle was compiled from.
    pub origin: Origin,
}

impl BundleSlot {
    /// The place in the cache `dir` of what `asked` spells, part by part.
    pub fn new(dir: &Path, asked: &[&[u8]], name: &str) -> Self {
        let mut hasher = blake3::Hasher::new();
        let version = FORMAT_VERSION.to_string();
        // Users who share a cache share its layers; their bundles are their own.
        let user = rustix::process::geteuid().as_raw().to_string();
        let program = [env!("CARGO_PKG_VERSION"), &version, &user].map(str::as_bytes);
        for part in program.into_iter().chain(asked.iter().copied()) {
            // With its length, no part runs into the next.
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part);
        }
        let hex = hasher.finalize().to_hex();
        let root = dir.to_owned();
        Self { dir: dir.join(BUNDLES).join(&hex[..32]), root, name: host_name(name) }
    }

    /// The answer, if there is one whose inputs are as they were.
    pub fn find(&self) -> Option<CachedBundle> {
        let dir = self.open().ok()?;
        let read = record_bytes(&dir)?;
        let mut record = parse_record(&dir, &read)?;
        let number = dir.sub(record.bundle.to_string()).and_then(Dir::own).ok()?;
        let bundle = number.sub(&self.name).and_then(Dir::own).ok()?;
        if !is_whole(&bundle) {
            return None;
        }
        let (mut touched, looked) = (false, now());
        for input in &mut record.inputs {
            touched |= input.check(record.made)?;
        }
        // Neither failure matters: the next use is as slow as this one, and a bundle
        // looks older than it is.
        if touched {
            record.made = looked;
            let _ = refresh(&dir, &read, &record);
        } else {
            let _ = regular::open_at(dir.file(), RECORD)
                .and_then(|file| file.set_modified(SystemTime::now()));
        }
        Some(CachedBundle { bundle, origin: record.origin })
    }

    /// Locks the place. If another process has it, this waits, and tells `say` so
    /// after a second.
    ///
    /// # Errors
    /// It fails when the place cannot be made or is another user's, and when its lock cannot be
    /// opened for writing or be taken.
    pub fn lock(&self, say: &(dyn Fn(&str) + Sync)) -> Result<Guard<'_>> {
        let lock = || -> Result<(Dir, File)> {
            let dir = self.create()?;
            let lock = shared_dir::open_lock(&dir, "lock")?;
            let file = lock.file.filter(|_| lock.writable).context("it cannot be written to")?;
            let what = format!("the cache's place of {}", self.name);
            flock::wait(&file, flock::LockKind::Exclusive, &what, say)?;
            Ok((dir, file))
        };
        let shown = || format!("locking {}", self.dir.join("lock").display());
        let (dir, lock) = lock().with_context(shown)?;
        Ok(Guard { place: self, dir, _lock: lock })
    }

    fn open(&self) -> io::Result<Dir> {
        shared_dir::open(&self.root, &self.dir)?.own()
    }

    /// Opens the directory, and makes it if need be: where a cache is shared, others may
    /// write beside it, and not in it.
    fn create(&self) -> Result<Dir> {
        let bundles = shared_dir::create(&self.root, &self.root.join(BUNDLES))?;
        make(&bundles, self.dir.file_name().unwrap_or_default())
    }
}

/// Opens the directory `name` of `dir`, which is made if need be, and is this user's own.
pub(super) fn make(dir: &Dir, name: &OsStr) -> Result<Dir> {
    match rustix::fs::mkdirat(dir.file(), name, Mode::from_raw_mode(0o755)) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(error) => return Err(error).with_context(|| dir.path.join(name).display().to_string()),
    }
    let own = dir.sub(name)?.own();
    own.context(
        "the bundles of `run` are each user's own: remove it, or choose another --cache-dir",
    )
}

/// A locked place: nobody else compiles for it.
#[derive(Debug)]
pub struct Guard<'p> {
    place: &'p BundleSlot,
    dir: Dir,
    _lock: File,
}

/// Room for a new answer, and what its inputs are like before it is compiled.
#[derive(Debug)]
pub struct Attempt<'g> {
    place: &'g BundleSlot,
    dir: &'g Dir,
    number: u64,
    /// The directory of that number.
    parent: Dir,
    made: i64,
    inputs: Vec<InputFile>,
}

impl Guard<'_> {
    /// Prepares to compile from the files `inputs`.
    ///
    /// # Errors
    /// It fails when what earlier runs left cannot be removed, an input cannot be read, or the
    /// directory of the new bundle cannot be made.
    pub fn attempt(&self, inputs: &[PathBuf]) -> Result<Attempt<'_>> {
        let place = self.place;
        let last = read_record(&self.dir).map(|record| record.bundle);
        self.keep_only(last)?;
        let made = now();
        let inputs = inputs.iter().map(|path| InputFile::now(path)).collect::<Result<_>>()?;
        let number = last.map_or(1, |last| last.wrapping_add(1));
        let parent = make(&self.dir, number.to_string().as_ref())?;
        Ok(Attempt { place, dir: &self.dir, number, parent, made, inputs })
    }

    /// Removes what runs left that were killed, and answers before the last.
    fn keep_only(&self, last: Option<u64>) -> Result<()> {
        let shown = || self.dir.path.display().to_string();
        temporary::remove_left_in(self.dir.file()).with_context(shown)?;
        for number in numbered(&self.dir).with_context(shown)? {
            if last.is_none_or(|last| number != *last.to_string()) {
                remove::answer(&self.dir, &number)?;
            }
        }
        Ok(())
    }
}

impl Attempt<'_> {
    /// The directory that the bundle is to be in.
    pub fn parent(&self) -> &Dir {
        &self.parent
    }

    /// Where the bundle is to be.
    pub fn target(&self) -> PathBuf {
        self.parent.path.join(&self.place.name)
    }

    /// Removes the directory that the bundle is to be in, which is empty if there will be
    /// none.
    pub fn removal(&self) -> impl Fn() + Send + use<> {
        let (dir, number) = (self.dir.clone(), self.number.to_string());
        move || {
            let _ = rustix::fs::unlinkat(dir.file(), &number, AtFlags::REMOVEDIR);
        }
    }

    /// The bundle that was made.
    ///
    /// # Errors
    /// It fails when the bundle is not there, or is another user's.
    pub fn bundle(&self) -> Result<Dir> {
        Ok(self.parent.sub(&self.place.name)?.own()?)
    }

    /// Makes the bundle that was made the answer.
    ///
    /// # Errors
    /// It fails when the bundle is not there, or its record cannot be written.
    pub fn publish(self, origin: Origin) -> Result<CachedBundle> {
        let bundle = self.bundle()?;
        let record = AnswerRecord {
            version: VERSION,
            bundle: self.number,
            origin: origin.clone(),
            made: self.made,
            inputs: self.inputs,
        };
        write_record(self.dir, &record)?;
        Ok(CachedBundle { bundle, origin })
    }
}

/// Whether all files of the bundle are there with their sizes; what is in them is
/// checked by whoever boots it.
pub(super) fn is_whole(bundle: &Dir) -> bool {
    let whole = || -> Result<bool> {
        let place = bundle::opened::Place::of(bundle)?;
        let (_, index) = place.index()?;
        Ok(index.files.iter().all(|file| place.has(&file.path, file.size)))
    };
    whole().unwrap_or(false)
}

/// `name` as the name of a machine, and of a directory.
pub(super) fn host_name(name: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
    let name: String = name.chars().map(plain).take(63).collect();
    let name = name.trim_matches('-');
    if name.is_empty() { "rootfs".to_owned() } else { name.to_owned() }
}

pub(super) fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}
