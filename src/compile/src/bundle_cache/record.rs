//! The record of a question: which bundle answers it, and of what it was made.

use std::ffi::OsString;
use std::io;
use std::os::unix::fs::MetadataExt as _;

use anyhow::{Context as _, Result};
use fsimage::digest::Digest;
use fsimage::io::dir::Dir;
use fsimage::io::{atomic_file, seal};
use fsimage::io::{flock, regular, shared_dir};
use rustix::fs::FileType;
use serde::{Deserialize, Serialize};

use crate::bundle_cache::input::InputFile;

/// What is known of an answer.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AnswerRecord {
    pub(super) version: u32,
    /// The number of the bundle.
    pub(super) bundle: u64,
    pub(super) origin: Origin,
    /// Seconds since 1970: when looking at the inputs began.
    pub(super) made: i64,
    pub(super) inputs: Vec<InputFile>,
}

/// Readers take another version for no record.
pub(super) const VERSION: u32 = 1;

/// Bytes of a record at most: patches may read many files.
pub(super) const MAX_RECORD: u64 = 64 << 20;

/// The file of a place that says which bundle is the answer.
pub(super) const RECORD: &str = "record.json";

/// The record of the place `dir`, if it is as this user wrote it.
pub(super) fn read_record(dir: &Dir) -> Option<AnswerRecord> {
    parse_record(dir, &record_bytes(dir)?)
}

/// What the record's file of the place `dir` holds, if it is this user's.
pub(super) fn record_bytes(dir: &Dir) -> Option<Vec<u8>> {
    let file = regular::open_at(dir.file(), RECORD).ok()?;
    if file.metadata().ok()?.uid() != rustix::process::geteuid().as_raw() {
        return None;
    }
    regular::bytes(&file, MAX_RECORD).ok()
}

pub(super) fn parse_record(dir: &Dir, bytes: &[u8]) -> Option<AnswerRecord> {
    let record: AnswerRecord = seal::read(&subject(dir), bytes)?;
    (record.version == VERSION).then_some(record)
}

/// Writes `record` in place of the one that was read as `read`: neither over the record
/// of a newer bundle, nor while one is being compiled, for which the old one is wanted.
pub(super) fn refresh(dir: &Dir, read: &[u8], record: &AnswerRecord) -> Result<()> {
    let lock = shared_dir::open_lock(dir, "lock")?;
    let Some(lock) = lock.file.filter(|_| lock.writable) else {
        return Ok(());
    };
    let is_free = flock::try_lock(&lock, flock::LockKind::Exclusive)?;
    if is_free && record_bytes(dir).is_some_and(|there| there == read) {
        write_record(dir, record)?;
    }
    Ok(())
}

pub(super) fn write_record(dir: &Dir, record: &AnswerRecord) -> Result<()> {
    let json = seal::write(&subject(dir), record)?;
    let written = atomic_file::write_shared(dir, RECORD.as_ref(), &json);
    written.with_context(|| dir.path.join(RECORD).display().to_string())
}

/// What the record of the place `dir` is about.
pub(super) fn subject(dir: &Dir) -> String {
    format!("bundles of {}", dir.path.file_name().unwrap_or_default().display())
}

/// The directories in the place `dir` that have a number, and so a bundle.
pub(super) fn numbered(dir: &Dir) -> io::Result<Vec<OsString>> {
    let mut found = dir.names()?;
    found.retain(|name| {
        let is_number = name.to_str().is_some_and(|name| name.parse::<u64>().is_ok());
        is_number && matches!(dir.kind(name), Ok(FileType::Directory))
    });
    Ok(found)
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
