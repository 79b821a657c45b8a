//! Bundles that were compiled to be run, kept by what was asked for.
//!
//! `bundles/<hex>/` belongs to one question: a hash of all that was typed. In it,
//! `<number>/<name>` is a bundle, `record.json` says which one is the answer and of
//! which files it was made, and `lock` is locked by whoever compiles. The answer
//! holds as long as those files are as they were.
//!
//! A new answer has a new number, so that a bundle never changes under a machine
//! that is about to open it; the answer before the last is removed. The record
//! appears by rename when its bundle is there, and its mtime is when it was last
//! used. All of it may be deleted at any time.

mod input;

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result};
use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};

use self::input::Input;
use crate::bundle::{self, open};
use crate::digest::Digest;
use crate::erofs::layer::FORMAT_VERSION;
use crate::whole;

/// The place of one question.
pub struct Place {
    dir: PathBuf,
    /// How the bundle's directory is called, which is also the machine's name.
    name: String,
}

/// What is known of an answer.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    version: u32,
    /// The number of the bundle.
    bundle: u64,
    origin: Origin,
    /// Seconds since 1970: when looking at the inputs began.
    made: i64,
    inputs: Vec<Input>,
}

/// The image that was compiled.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Origin {
    /// Of its manifest, or of its config where it has none.
    pub digest: Digest,
    /// In docker's own store: its name, and what docker told it apart by.
    pub daemon: Option<(String, String)>,
}

/// Readers take another version for no record.
const VERSION: u32 = 1;

/// A bundle that answers the question, and what was compiled for it.
#[derive(Clone, Debug)]
pub struct Found {
    pub bundle: PathBuf,
    pub origin: Origin,
}

impl Place {
    /// The place in the cache `dir` of what `asked` spells, part by part.
    pub fn new(dir: &Path, asked: &[&[u8]], name: &str) -> Self {
        let mut hasher = blake3::Hasher::new();
        let version = FORMAT_VERSION.to_string();
        let program = [env!("CARGO_PKG_VERSION").as_bytes(), version.as_bytes()];
        for part in program.into_iter().chain(asked.iter().copied()) {
            // With its length, no part runs into the next.
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part);
        }
        let hex = hasher.finalize().to_hex();
        Self { dir: dir.join("bundles").join(&hex[..32]), name: host_name(name) }
    }

    /// The answer, if there is one whose inputs are as they were.
    pub fn find(&self) -> Option<Found> {
        let path = self.record_path();
        let mut record = self.record()?;
        let bundle = self.bundle(record.bundle);
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
            let _ = self.write(&record);
        } else {
            let _ = File::open(&path).and_then(|file| file.set_modified(SystemTime::now()));
        }
        Some(Found { bundle, origin: record.origin })
    }

    /// Locks the place, waiting for whoever has it.
    pub fn lock(&self) -> Result<Guard<'_>> {
        let path = self.dir.join("lock");
        let lock = || -> io::Result<File> {
            fs::create_dir_all(&self.dir)?;
            let file = File::options().create(true).truncate(false).write(true).open(&path)?;
            rustix::io::retry_on_intr(|| rustix::fs::flock(&file, FlockOperation::LockExclusive))?;
            Ok(file)
        };
        let lock = lock().with_context(|| format!("locking {}", path.display()))?;
        Ok(Guard { place: self, _lock: lock })
    }

    fn record_path(&self) -> PathBuf {
        self.dir.join("record.json")
    }

    fn record(&self) -> Option<Record> {
        let bytes = fs::read(self.record_path()).ok()?;
        let record: Record = serde_json::from_slice(&bytes).ok()?;
        (record.version == VERSION).then_some(record)
    }

    fn write(&self, record: &Record) -> Result<()> {
        let json = serde_json::to_vec(record)?;
        let path = self.record_path();
        whole::write(&path, &mut &json[..]).with_context(|| path.display().to_string())
    }

    fn bundle(&self, number: u64) -> PathBuf {
        self.dir.join(number.to_string()).join(&self.name)
    }
}

/// A locked place: nobody else compiles for it.
pub struct Guard<'p> {
    place: &'p Place,
    _lock: File,
}

/// Room for a new answer, and what its inputs are like before it is compiled.
pub struct Attempt<'g> {
    place: &'g Place,
    number: u64,
    made: i64,
    inputs: Vec<Input>,
}

impl Guard<'_> {
    /// Prepares to compile from the files `inputs`.
    pub fn attempt(&self, inputs: &[PathBuf]) -> Result<Attempt<'_>> {
        let place = self.place;
        let last = place.record().map(|record| record.bundle);
        self.keep_only(last)?;
        let made = now();
        let inputs = inputs.iter().map(|path| Input::now(path)).collect::<Result<_>>()?;
        let number = last.map_or(1, |last| last.wrapping_add(1));
        Ok(Attempt { place, number, made, inputs })
    }

    /// Removes what runs left that were killed, and answers before the last.
    fn keep_only(&self, last: Option<u64>) -> Result<()> {
        let last = last.map(|number| number.to_string());
        for entry in fs::read_dir(&self.place.dir)? {
            let entry = entry?;
            let is_last = last.as_ref().is_some_and(|last| entry.file_name() == last.as_str());
            if !is_last && entry.file_type()?.is_dir() {
                fs::remove_dir_all(entry.path())
                    .with_context(|| entry.path().display().to_string())?;
            }
        }
        Ok(())
    }
}

impl Attempt<'_> {
    /// Where the bundle is to be.
    pub fn target(&self) -> PathBuf {
        self.place.bundle(self.number)
    }

    /// What is to be removed if there will be no bundle.
    pub fn dir(&self) -> PathBuf {
        self.place.dir.join(self.number.to_string())
    }

    /// Makes the bundle that is now at the target the answer.
    pub fn publish(self, origin: Origin) -> Result<Found> {
        let bundle = self.target();
        let record = Record {
            version: VERSION,
            bundle: self.number,
            origin: origin.clone(),
            made: self.made,
            inputs: self.inputs,
        };
        self.place.write(&record)?;
        Ok(Found { bundle, origin })
    }
}

/// Whether all files of the bundle are there with their sizes; what is in them is
/// checked by whoever boots it.
fn is_whole(dir: &Path) -> bool {
    let Ok(index) = open::read_index(dir) else {
        return false;
    };
    let is = |path: &str, size: u64| {
        fs::metadata(dir.join(path)).is_ok_and(|metadata| metadata.len() == size)
    };
    dir.join(bundle::VMDK).is_file() && index.files.iter().all(|file| is(&file.path, file.size))
}

/// `name` as the name of a machine, and of a directory.
fn host_name(name: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
    let name: String = name.chars().map(plain).take(63).collect();
    let name = name.trim_matches('-');
    if name.is_empty() { "rootfs".to_owned() } else { name.to_owned() }
}

fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
