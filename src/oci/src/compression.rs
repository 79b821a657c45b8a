//! Archives that are compressed as a whole: how that is detected, and where they are
//! decompressed to.
//!
//! An archive is read by random access, which a compressed stream does not allow. So it is
//! decompressed once, into an unnamed temporary file that disappears with the process.

use std::fmt;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail, ensure};
use fsimage::io::shared_dir;

/// A way to compress a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// gzip (RFC 1952).
    Gzip,
    /// Zstandard (RFC 8878).
    Zstd,
    /// The .xz format.
    Xz,
    /// bzip2.
    Bzip2,
}

impl Compression {
    /// The compression of a file that begins with `start`, by its magic number:
    /// RFC 1952, RFC 8878 (with skippable frames), the .xz format's 2.1.1.1, and
    /// the bzip2 stream's header with the first block's or the stream's end.
    pub fn of(start: &[u8]) -> Option<Self> {
        match start {
            [0x1f, 0x8b, ..] => Some(Self::Gzip),
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Some(Self::Zstd),
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Some(Self::Xz),
            [b'B', b'Z', b'h', b'1'..=b'9', 0x31, 0x41, 0x59, 0x26, ..]
            | [b'B', b'Z', b'h', b'1'..=b'9', 0x17, 0x72, 0x45, 0x38, ..] => Some(Self::Bzip2),
            _ => None,
        }
    }

    /// The most bytes that an archive of `len` bytes may decompress to by default.
    fn allowance(self, len: u64) -> u64 {
        let (times, expanded) = match self {
            Self::Gzip | Self::Zstd => (TIMES, EXPANDED),
            Self::Xz | Self::Bzip2 => (TIMES_SLOWLY, EXPANDED_SLOWLY),
        };
        MAX_ARCHIVE.min(len.saturating_mul(times).saturating_add(expanded))
    }

    /// Decompresses `from`: all of its members, frames or streams.
    fn reader<'r>(self, from: impl BufRead + 'r) -> Result<Box<dyn Read + 'r>> {
        Ok(match self {
            Self::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(from)),
            Self::Zstd => Box::new(zstd::Decoder::with_buffer(from)?),
            Self::Xz => Box::new(lzma_rust2::XzReader::new_mem_limit(from, true, XZ_MEMORY_KIB)),
            Self::Bzip2 => Box::new(bzip2::bufread::MultiBzDecoder::new(from)),
        })
    }
}

/// The most memory that an xz decoder may take. What `xz -9` wrote needs 64 MiB.
const XZ_MEMORY_KIB: u32 = 512 << 10;

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
            Self::Xz => "xz",
            Self::Bzip2 => "bzip2",
        })
    }
}

/// Where archives are decompressed to, and how large one may become.
#[derive(Clone, Debug)]
pub struct Spool {
    /// The directory of the spool files.
    pub dir: PathBuf,
    /// The most bytes that an archive may decompress to, in place of the default.
    pub limit: Option<u64>,
}

/// The most bytes that any archive may decompress to by default: as many as a layer may have.
pub(crate) const MAX_ARCHIVE: u64 = 256 << 30;

/// The default limit of one archive is this and [`TIMES`] the archive's size. With
/// [`MAX_ARCHIVE`] alone, 8 MiB of zstd could become 256 GiB.
const EXPANDED: u64 = 16 << 30;

/// The same for xz and bzip2, which are slower: from the input that expands most, they
/// make 250 to 400 MB a second, zstd and gzip some GB. All that an archive of 10 MiB may
/// become then takes half a minute of processor time; a build promises to take one at most.
const EXPANDED_SLOWLY: u64 = 4 << 30;

/// The part of the default limit that grows with the archive, as a multiple of its size:
/// the ratio at which gzip compresses zeros.
const TIMES: u64 = 1024;
/// The same for xz and bzip2. No archive of ordinary files comes near it.
const TIMES_SLOWLY: u64 = 256;

/// Bytes that are decompressed at a time. A chunk of zeros becomes a hole in the file.
const CHUNK: u64 = 64 << 10;

impl Spool {
    /// Creates an unnamed temporary file in the spool's directory, or in that of the system
    /// where this user may not write to the spool's.
    ///
    /// # Errors
    /// When the directory or the file cannot be created.
    pub fn file(&self) -> Result<File> {
        let shown = || self.dir.display().to_string();
        let root = self.dir.parent().filter(|root| !root.as_os_str().is_empty());
        let make = || {
            shared_dir::create(root.unwrap_or(&self.dir), &self.dir)?;
            tempfile::tempfile_in(&self.dir)
        };
        match make() {
            // The cache may be one that this user can only read.
            Err(error) if shared_dir::may_not_write(&error) => tempfile::tempfile(),
            file => file,
        }
        .with_context(shown)
    }

    /// Decompresses `from`, which is compressed by `compression`, into a new spool file.
    ///
    /// # Errors
    /// When `from` cannot be decompressed, becomes larger than is allowed, or is empty,
    /// or the spool file cannot be written.
    pub fn decompress(&self, from: &File, compression: Compression) -> Result<File> {
        let file = self.file()?;
        let copy = || -> Result<()> {
            let mut reader = compression.reader(BufReader::with_capacity(1 << 18, from))?;
            let limit = match self.limit {
                Some(limit) => limit,
                None => compression.allowance(from.metadata()?.len()),
            };
            let mut chunk = Vec::new();
            let mut len = 0;
            loop {
                chunk.clear();
                reader.by_ref().take(CHUNK).read_to_end(&mut chunk)?;
                if chunk.is_empty() {
                    break;
                }
                if limit - len < chunk.len() as u64 {
                    bail!(
                        "the archive has more than {limit} bytes when decompressed \
                         (--max-archive-bytes allows more)"
                    );
                }
                if chunk.iter().any(|b| *b != 0) {
                    file.write_all_at(&chunk, len)?;
                }
                len += chunk.len() as u64;
            }
            ensure!(len > 0, "it is empty");
            Ok(file.set_len(len)?)
        };
        copy().with_context(|| format!("decompressing the archive ({compression})"))?;
        Ok(file)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write as _;

    use super::*;

    #[test]
    fn a_compression_is_known_by_its_magic_number() {
        // As `printf x | gzip`, zstd, xz and bzip2 begin; then an empty bzip2 stream.
        for (start, compression) in [
            (&b"\x1f\x8b\x08\0"[..], Some(Compression::Gzip)),
            (b"\x28\xb5\x2f\xfd\x24", Some(Compression::Zstd)),
            (b"\x50\x2a\x4d\x18\x04", Some(Compression::Zstd)),
            (b"\xfd7zXZ\0\0\x04", Some(Compression::Xz)),
            (b"BZh91AY&SY", Some(Compression::Bzip2)),
            (b"BZh9\x17\x72\x45\x38\x50\x90", Some(Compression::Bzip2)),
            (b"BZh: a mapping's key", None),
            (b"\xfd7zXz", None),
            (b"image: x", None),
            (b"", None),
        ] {
            assert_eq!(Compression::of(start), compression, "{start:?}");
        }
    }

    #[test]
    fn what_is_slow_to_decompress_may_become_less() {
        const GIB: u64 = 1 << 30;
        let small = 10 << 20;
        for (compression, gibibytes) in [
            (Compression::Gzip, 26 * GIB),
            (Compression::Zstd, 26 * GIB),
            (Compression::Xz, 6 * GIB + GIB / 2),
            (Compression::Bzip2, 6 * GIB + GIB / 2),
        ] {
            assert_eq!(compression.allowance(small), gibibytes, "{compression}");
            assert_eq!(compression.allowance(u64::MAX), MAX_ARCHIVE, "{compression}");
        }
    }

    #[test]
    fn an_archive_larger_than_the_limit_is_refused_and_zeros_cost_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gz.write_all(&vec![0; 1 << 20]).unwrap();
        gz.write_all(b"end").unwrap();
        let path = dir.path().join("zeros.gz");
        fs::write(&path, gz.finish().unwrap()).unwrap();
        let spool = |limit| Spool { dir: dir.path().join("spool"), limit: Some(limit) };
        let decompress =
            |limit| spool(limit).decompress(&File::open(&path).unwrap(), Compression::Gzip);
        let file = decompress((1 << 20) + 3).unwrap();
        let metadata = file.metadata().unwrap();
        assert_eq!(metadata.len(), (1 << 20) + 3);
        assert!(std::os::unix::fs::MetadataExt::blocks(&metadata) < 1024);
        let error = format!("{:#}", decompress((1 << 20) + 2).unwrap_err());
        assert!(error.contains("--max-archive-bytes"), "{error}");
        assert_eq!(fs::read_dir(dir.path().join("spool")).unwrap().count(), 0);
    }
}
