//! Stores, which hold the documents and blobs of images: a directory, or an archive.

use std::collections::HashMap;
use std::fmt;
use std::fs::File;
use std::io::{self, Read, Seek as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use fsimage::budget::Budget;
use fsimage::digest::Digest;
use fsimage::io::mmap::{self, Mapped};
use fsimage::io::regular;

use crate::compression::{Compression, Spool};
use crate::document::Descriptor;
use crate::layout_file;
use crate::members::{self, Member};

/// The most bytes of a manifest, an index or a config. Registries allow 4 MiB.
pub const MAX_DOCUMENT: u64 = 16 << 20;

/// What a store is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Key {
    /// The blob with this digest.
    Blob(Digest),
    /// The file of this name, where an image is in files.
    File(String),
}

impl Key {
    pub(crate) fn file(name: &str) -> Self {
        Self::File(name.to_owned())
    }
}

/// Writes the path of the file in a layout.
impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Blob(digest) => f.write_str(&layout_file::blob(*digest)),
            Self::File(name) => f.write_str(name),
        }
    }
}

/// Something that holds an image.
pub(crate) trait Store: fmt::Debug + Send + Sync {
    /// The bytes that `key` stands for and how many there are; `None` if there are none.
    fn open(&self, key: &Key) -> Result<Option<(Box<dyn Read + Send + '_>, u64)>>;

    /// Whether there are bytes that `key` stands for.
    fn has(&self, key: &Key) -> Result<bool> {
        Ok(self.open(key)?.is_some())
    }

    /// How many bytes `key` stands for; `None` if there are none, or if it takes a request to
    /// know.
    fn size(&self, key: &Key) -> Result<Option<u64>> {
        Ok(self.open(key)?.map(|(_, size)| size))
    }

    /// By which factor it grew when it was decompressed; 1 if it is not compressed as a whole.
    fn expanded(&self) -> u64 {
        1
    }

    /// Reads all of a document, which has at most [`MAX_DOCUMENT`] bytes.
    fn document(&self, key: &Key) -> Result<Option<Vec<u8>>> {
        let Some((reader, size)) = self.open(key)? else {
            return Ok(None);
        };
        ensure!(size <= MAX_DOCUMENT, "{key} has {size} bytes; {MAX_DOCUMENT} are allowed");
        let mut bytes = Vec::new();
        reader.take(MAX_DOCUMENT + 1).read_to_end(&mut bytes).with_context(|| key.to_string())?;
        ensure!(bytes.len() as u64 <= MAX_DOCUMENT, "{key} has more than {MAX_DOCUMENT} bytes");
        Ok(Some(bytes))
    }

    /// The only entry of a store that has no `index.json`.
    fn entry(&self) -> Option<&Descriptor> {
        None
    }
}

/// The bytes of the file at `path`, and how many there are; `None` if there are none.
///
/// A symbolic link is followed, to a regular file wherever it is: official layouts
/// have blobs that are links, and build systems make layouts of links alone. What a
/// blob must hold, its digest says.
pub(crate) fn file(path: &Path) -> Result<Option<(Box<dyn Read + Send>, u64)>> {
    let open = || -> io::Result<_> {
        let file = regular::open_followed(path)?;
        let size = file.metadata()?.len();
        Ok((file, size))
    };
    match open() {
        Ok((file, size)) => Ok(Some((Box::new(file), size))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| path.display().to_string()),
    }
}

/// The advice of the message that an image has too many documents.
pub(crate) const RAISE: &str = "raise --max-document-bytes to allow it";

/// Takes from the budget `documents` what it costs to read a document of `bytes`. `advice`
/// is what a user can do when the budget is used up.
pub(crate) fn count(documents: &Budget, bytes: usize, advice: &str) -> Result<()> {
    // Reading an empty one costs something as well.
    let bytes = (bytes as u64).saturating_add(1024);
    ensure!(
        documents.take(bytes).is_ok(),
        "its indexes, manifests and configs have more than {} bytes, each counted as often as it \
         is read ({advice})",
        documents.limit()
    );
    Ok(())
}

/// A store with a budget for the bytes of documents that are read from it: without one, an
/// index of 16 MiB could make a build read a config of 16 MiB 80,000 times.
#[derive(Debug)]
pub(crate) struct Counted {
    store: Box<dyn Store>,
    documents: Budget<'static>,
    advice: &'static str,
}

impl Counted {
    /// `advice` is what a user can do when the budget of `document_bytes` is used up.
    pub(crate) fn new(store: Box<dyn Store>, document_bytes: u64, advice: &'static str) -> Self {
        Self { store, documents: Budget::new(document_bytes), advice }
    }
}

impl Store for Counted {
    fn open(&self, key: &Key) -> Result<Option<(Box<dyn Read + Send + '_>, u64)>> {
        self.store.open(key)
    }

    fn has(&self, key: &Key) -> Result<bool> {
        self.store.has(key)
    }

    fn size(&self, key: &Key) -> Result<Option<u64>> {
        self.store.size(key)
    }

    fn expanded(&self) -> u64 {
        self.store.expanded()
    }

    fn document(&self, key: &Key) -> Result<Option<Vec<u8>>> {
        let document = self.store.document(key)?;
        count(&self.documents, document.as_ref().map_or(0, Vec::len), self.advice)?;
        Ok(document)
    }

    fn entry(&self) -> Option<&Descriptor> {
        self.store.entry()
    }
}

/// A directory.
#[derive(Debug)]
pub(crate) struct DirStore(pub PathBuf);

impl Store for DirStore {
    fn open(&self, key: &Key) -> Result<Option<(Box<dyn Read + Send + '_>, u64)>> {
        file(&self.0.join(key.to_string()))
    }
}

/// A tar archive, which is memory-mapped and not unpacked. One that is compressed as a whole
/// is decompressed into a spool file first.
pub(crate) struct TarStore {
    bytes: Mapped,
    members: HashMap<String, Member>,
    /// The result of [`Store::expanded`].
    expanded: u64,
}

/// Without the bytes and the list of members.
impl fmt::Debug for TarStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TarStore").field("bytes", &self.bytes.len()).finish_non_exhaustive()
    }
}

impl TarStore {
    /// Opens the archive `file`, which is decompressed first if need be.
    pub(crate) fn open(mut file: &File, spool: &Spool) -> Result<Self> {
        let mut start = Vec::new();
        file.take(16).read_to_end(&mut start)?;
        file.rewind()?;
        match Compression::of(&start) {
            Some(compression) => {
                let plain = spool.decompress(file, compression)?;
                let (short, long) = (file.metadata()?.len(), plain.metadata()?.len());
                Ok(Self { expanded: (long / short.max(1)).max(1), ..Self::of(&plain)? })
            }
            None => Self::of(file),
        }
    }

    /// Opens the archive `file`, which is not compressed.
    pub(crate) fn of(file: &File) -> Result<Self> {
        let bytes = mmap::file(file)?;
        if let Some(compression) = Compression::of(&bytes) {
            bail!("the archive is compressed more than once; decompress it first ({compression})");
        }
        ensure!(members::is_tar(&bytes), "it is not a tar archive");
        let members = members::members(&bytes)?;
        Ok(Self { bytes, members, expanded: 1 })
    }

    /// Whether it has a member called `name`.
    pub(crate) fn has_file(&self, name: &str) -> Result<bool> {
        self.has(&Key::file(name))
    }

    /// Whether its members look like a root file system, as `docker export` writes it, and not
    /// like an image.
    pub(crate) fn holds_a_system(&self) -> bool {
        ["etc/", "usr/", "bin/"].iter().any(|dir| self.members.keys().any(|n| n.starts_with(dir)))
    }
}

impl Store for TarStore {
    fn open(&self, key: &Key) -> Result<Option<(Box<dyn Read + Send + '_>, u64)>> {
        Ok(members::find(&self.members, &key.to_string())?.map(|range| {
            let bytes = &self.bytes[range.clone()];
            let reader: Box<dyn Read + Send + '_> = Box::new(bytes);
            (reader, bytes.len() as u64)
        }))
    }

    fn expanded(&self) -> u64 {
        self.expanded
    }
}
