//! What is known of an object, and when it is looked at again.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fsimage::digest::Blake3;
use fsimage::erofs::layer::FORMAT_VERSION;
use fsimage::io::seal;
use serde::{Deserialize, Serialize};

/// Bytes of a record's file at most.
pub(super) const MAX_BYTES: u64 = 4096;

/// A disk may rot without a trace in the inode: after so long, an object is hashed
/// again before it is used.
const CHECK_EVERY: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// What the cache keeps beside an object: its size and hash, and when it was hashed last.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// Bytes of the object.
    pub size: u64,
    /// BLAKE3 of the object.
    pub blake3: Blake3,
    /// Bytes of the layer's tar stream.
    pub uncompressed: u64,
    /// The object's inode when it was last seen to have this hash.
    stamp: Stamp,
    /// Seconds since 1970: when that was.
    checked: u64,
}

/// Whatever writes to a file changes one of these. That its inode got or lost
/// a name, as with each bundle that is made or removed, does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stamp {
    ino: u64,
    mtime: i64,
    mtime_nsec: i64,
}

impl Stamp {
    pub fn of(file: &File) -> io::Result<Self> {
        let m = file.metadata()?;
        Ok(Self { ino: m.ino(), mtime: m.mtime(), mtime_nsec: m.mtime_nsec() })
    }
}

impl Record {
    /// Of `file`, which nobody else writes to and has the hash `blake3`.
    ///
    /// # Errors
    /// It fails when the inode of `file` cannot be read.
    pub fn new(file: &File, blake3: Blake3, uncompressed: u64) -> io::Result<Self> {
        Self::since(Stamp::of(file)?, file, blake3, uncompressed)
    }

    /// Of `file`, which was seen to have the hash `blake3` since it had the stamp `stamp`.
    /// Whatever was written meanwhile has changed that, and is looked at again.
    ///
    /// # Errors
    /// It fails when the inode of `file` cannot be read.
    pub fn since(stamp: Stamp, file: &File, blake3: Blake3, uncompressed: u64) -> io::Result<Self> {
        let size = file.metadata()?.len();
        Ok(Self { size, blake3, uncompressed, stamp, checked: now() })
    }

    /// The record that `bytes` are, of the object of the layer `hex`; `None` if it
    /// is not as it was written.
    pub fn parse(hex: &str, bytes: &[u8]) -> Option<Self> {
        seal::read(&subject(hex), bytes)
    }

    /// The JSON of the record, sealed for the layer `hex`, as [`Record::parse`] reads it.
    ///
    /// # Errors
    /// It fails when the record cannot be written as JSON.
    pub fn to_bytes(&self, hex: &str) -> serde_json::Result<Vec<u8>> {
        seal::write(&subject(hex), self)
    }

    /// Whether nothing wrote to `file` since it was hashed, and that was not long ago.
    ///
    /// # Errors
    /// It fails when the inode of `file` cannot be read.
    pub fn is_fresh(&self, file: &File) -> io::Result<bool> {
        // A time in the future is none.
        let age = now().checked_sub(self.checked);
        let lately = age.is_some_and(|age| age < CHECK_EVERY.as_secs());
        Ok(lately && Stamp::of(file)? == self.stamp)
    }
}

fn subject(hex: &str) -> String {
    format!("layer {hex} v{FORMAT_VERSION}")
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_is_hashed_again_when_it_was_touched_or_a_week_has_passed() {
        let file = tempfile::tempfile().unwrap();
        let record = Record::new(&file, Blake3::of(b""), 7).unwrap();
        assert!(record.is_fresh(&file).unwrap());
        let week = CHECK_EVERY.as_secs();
        for (checked, fresh) in [
            (record.checked - week + 1000, true),
            (record.checked - week, false),
            (record.checked + 1000, false),
        ] {
            let record = Record { checked, ..record.clone() };
            assert_eq!(record.is_fresh(&file).unwrap(), fresh, "{checked}");
        }
        file.set_modified(UNIX_EPOCH).unwrap();
        assert!(!record.is_fresh(&file).unwrap());
    }

    #[test]
    fn what_is_written_while_an_object_is_hashed_is_looked_at_again() {
        let file = tempfile::tempfile().unwrap();
        file.set_modified(UNIX_EPOCH).unwrap();
        let stamp = Stamp::of(&file).unwrap();
        let record = Record::since(stamp, &file, Blake3::of(b""), 7).unwrap();
        assert!(record.is_fresh(&file).unwrap());
        file.set_len(1).unwrap();
        let record = Record::since(stamp, &file, Blake3::of(b""), 7).unwrap();
        assert!(!record.is_fresh(&file).unwrap());
    }

    #[test]
    fn a_record_belongs_to_one_layer() {
        let file = tempfile::tempfile().unwrap();
        let bytes = Record::new(&file, Blake3::of(b"x"), 7).unwrap().to_bytes("ab").unwrap();
        assert_eq!(Record::parse("ab", &bytes).unwrap().blake3, Blake3::of(b"x"));
        assert!(Record::parse("cd", &bytes).is_none());
    }
}
