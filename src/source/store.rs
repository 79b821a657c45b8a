//! Named bytes: a directory's files, or an archive's members in place.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Cursor, Read, Seek as _};
use std::ops::Range;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;

use anyhow::{Context as _, Result, anyhow, bail, ensure};

use super::compression::{Compression, Spool};
use super::json::shown;
use crate::map::{self, Mapped};

/// Manifests, indexes and configs end here: registries allow 4 MiB.
pub const MAX_DOCUMENT: u64 = 16 << 20;

/// Something that holds an image.
pub trait Store: Send + Sync {
    /// The bytes called `name` and how many there are; `None` if there are none.
    fn open(&self, name: &str) -> Result<Option<(Box<dyn Read + Send + '_>, u64)>>;

    /// Whether there are bytes called `name`.
    fn has(&self, name: &str) -> Result<bool> {
        Ok(self.open(name)?.is_some())
    }

    /// All of a small file.
    fn document(&self, name: &str) -> Result<Option<Vec<u8>>> {
        let Some((reader, size)) = self.open(name)? else {
            return Ok(None);
        };
        ensure!(size <= MAX_DOCUMENT, "{name} has {size} bytes; {MAX_DOCUMENT} are allowed");
        let mut bytes = Vec::new();
        reader.take(MAX_DOCUMENT + 1).read_to_end(&mut bytes).with_context(|| name.to_owned())?;
        ensure!(bytes.len() as u64 <= MAX_DOCUMENT, "{name} has more than {MAX_DOCUMENT} bytes");
        Ok(Some(bytes))
    }
}

/// A directory.
pub struct DirStore(pub PathBuf);

impl Store for DirStore {
    fn open(&self, name: &str) -> Result<Option<(Box<dyn Read + Send + '_>, u64)>> {
        let path = self.0.join(name);
        // No waiting for the other end of a fifo.
        let nonblocking = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
        match File::options().read(true).custom_flags(nonblocking).open(&path) {
            Ok(file) => {
                let metadata = file.metadata()?;
                ensure!(metadata.is_file(), "{} is no regular file", path.display());
                Ok(Some((Box::new(file), metadata.len())))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| path.display().to_string()),
        }
    }
}

/// A tar, mapped; nothing of it is unpacked. One that is compressed as a whole is
/// decompressed into a spool file first.
pub struct TarStore {
    bytes: Mapped,
    members: HashMap<String, Member>,
}

enum Member {
    Bytes(Range<usize>),
    /// Another member, by its name.
    Link(String),
}

/// Links followed from one member to another.
const MAX_LINKS: usize = 10;

impl TarStore {
    /// The archive that `file` is, when it is decompressed.
    pub fn open(mut file: &File, spool: &Spool) -> Result<Self> {
        let mut start = Vec::new();
        file.take(16).read_to_end(&mut start)?;
        file.rewind()?;
        match Compression::of(&start) {
            Some(compression) => Self::of(&spool.decompress(file, compression)?),
            None => Self::of(file),
        }
    }

    /// The archive that `file` is.
    pub fn of(file: &File) -> Result<Self> {
        let bytes = map::file(file)?;
        if let Some(compression) = Compression::of(&bytes) {
            bail!("the archive is compressed more than once; decompress it first ({compression})");
        }
        ensure!(is_tar(&bytes), "it is not a tar archive");
        let mut members = HashMap::new();
        let mut archive = tar::Archive::new(Cursor::new(&bytes[..]));
        for entry in archive.entries_with_seek()? {
            // What the tar crate says of a damaged header quotes its bytes.
            let entry = entry.map_err(|_| anyhow!("the archive is cut or damaged"))?;
            let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
            let kind = entry.header().entry_type();
            let member = if kind.is_file() || kind.is_contiguous() {
                let start = usize::try_from(entry.raw_file_position())?;
                let end = start.checked_add(usize::try_from(entry.size())?);
                match end.filter(|end| *end <= bytes.len()) {
                    Some(end) => Member::Bytes(start..end),
                    None => bail!("the archive is cut inside {}", shown(&name)),
                }
            } else if kind.is_symlink() || kind.is_hard_link() {
                let target = entry.link_name_bytes().unwrap_or_default();
                let target = String::from_utf8_lossy(&target).into_owned();
                let dir = name.rsplit_once('/').map_or("", |(dir, _)| dir);
                let from = if kind.is_symlink() && !target.starts_with('/') { dir } else { "" };
                Member::Link(normal(&format!("{from}/{target}")))
            } else {
                continue;
            };
            members.insert(normal(&name), member);
        }
        Ok(Self { bytes, members })
    }

    /// Whether its files are those of a system, and not of an image.
    pub fn holds_a_system(&self) -> bool {
        ["etc/", "usr/", "bin/"].iter().any(|dir| self.members.keys().any(|n| n.starts_with(dir)))
    }
}

/// Whether `bytes` begin as a tar does: with a header whose checksum is right, or
/// with the zeros of its end.
fn is_tar(bytes: &[u8]) -> bool {
    let Some(block) = bytes.first_chunk::<512>() else {
        return bytes.is_empty();
    };
    let header = tar::Header::from_byte_slice(block);
    let spaced = block.iter().enumerate().map(|(i, byte)| match i {
        148..156 => u32::from(b' '),
        _ => u32::from(*byte),
    });
    let sum: u32 = spaced.sum();
    block.iter().all(|byte| *byte == 0) || header.cksum().is_ok_and(|told| told == sum)
}

/// A member's name without what may be written in more than one way.
fn normal(name: &str) -> String {
    let mut parts = Vec::new();
    for part in name.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join("/")
}

impl Store for TarStore {
    fn open(&self, name: &str) -> Result<Option<(Box<dyn Read + Send + '_>, u64)>> {
        let mut name = normal(name);
        for _ in 0..MAX_LINKS {
            match self.members.get(&name) {
                None => return Ok(None),
                Some(Member::Bytes(range)) => {
                    let bytes = &self.bytes[range.clone()];
                    return Ok(Some((Box::new(bytes), bytes.len() as u64)));
                }
                Some(Member::Link(target)) => name = target.clone(),
            }
        }
        bail!("{}: links of the archive lead in a circle", shown(&name))
    }
}
