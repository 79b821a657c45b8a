//! Reads an ext4 and believes nothing.
//!
//! Shares only the on-disk structures with the writer. [`Reader`] takes any ext4: the
//! upper of a bundle, one that a guest has written to, unmounted or not, and what
//! mke2fs makes, with block maps, inline data, xattrs in inodes of their own and
//! hashed directories. [`check`] is stricter: it accepts
//! only what the writer of this project would have written.
//!
//! Invariant: what is read is bounded by what the file really holds. Metadata that
//! lie in a hole are an error, every block belongs to one inode, and every
//! directory has one name; so a walk ends, and its tree is no larger than a small
//! multiple of the file's data.

mod check;
mod claims;
mod content;
mod dir;
mod fields;
mod group;
mod inode;
mod journal;
mod mapping;
mod superblock;
mod tree;
mod xattr;

use std::cell::Cell;
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};

pub use self::check::check;
pub use self::content::{FileData, OnDisk};
use self::journal::Overlay;
pub use self::mapping::Run;
pub use self::superblock::Superblock;
pub use self::tree::with_marks;

/// What is wrong with a file system.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error("superblock: {0}")]
    Superblock(String),
    #[error("block group {group}: {what}")]
    Group { group: u32, what: String },
    /// `path` is known once a directory led to the inode.
    #[error("inode {ino}{}: {what}", at(path))]
    Inode { ino: u32, path: Option<String>, what: String },
    #[error("reading the file system")]
    Io(#[from] io::Error),
}

type Result<T, E = ReadError> = std::result::Result<T, E>;

fn bad(ino: u32, what: impl Into<String>) -> ReadError {
    ReadError::Inode { ino, path: None, what: what.into() }
}

fn at(path: &Option<String>) -> String {
    path.as_ref().map(|path| format!(" (/{path})")).unwrap_or_default()
}

/// Metadata blocks that even an empty file may ask for. Holes read as zeros, so a
/// small file could otherwise point to any number of them.
const LEAST_BUDGET: u64 = 65_536;

/// An ext4 whose superblock is sound.
pub struct Reader<'f> {
    file: &'f File,
    superblock: Superblock,
    overlay: Overlay,
    /// Metadata blocks that may still be read.
    budget: Cell<u64>,
}

impl<'f> Reader<'f> {
    /// Checks the superblock, and that the file holds the whole file system. Where its
    /// journal holds changes, everything is read as it will be after the next mount;
    /// the file stays as it is.
    ///
    /// # Errors
    /// Also when the file system has a feature that changes how it is to be read
    /// and that this reader does not know.
    pub fn new(file: &'f File) -> Result<Self> {
        let mut reader = Self::without_journal(file)?;
        if reader.superblock.needs_recovery() {
            let ino = reader.superblock.journal_ino;
            reader.overlay = journal::overlay(&reader, ino)?;
            // The superblock, too, may be in the journal.
            let replayed = reader.read_superblock()?;
            if replayed.block_size != reader.superblock.block_size {
                let text = "the journal changes the size of blocks";
                return Err(ReadError::Superblock(text.into()));
            }
            reader.superblock = replayed;
        }
        Ok(reader)
    }

    /// The same, but reads everything in its place.
    fn without_journal(file: &'f File) -> Result<Self> {
        let (superblock, budget) = (Superblock::default(), Cell::new(0));
        let mut reader = Self { file, superblock, overlay: Overlay::default(), budget };
        reader.superblock = reader.read_superblock()?;
        // Invariant: the file's allocated blocks bound the work. Some file systems
        // compress, hence the factor.
        let block_size = reader.superblock.block_size as u64;
        let allocated = file.metadata()?.blocks().saturating_mul(512) / block_size;
        reader.budget.set(allocated.saturating_mul(64).saturating_add(LEAST_BUDGET));
        Ok(reader)
    }

    fn read_superblock(&self) -> Result<Superblock> {
        let len = self.file.metadata()?.len();
        let mut bytes = [0; super::disk::SUPER_SIZE];
        if len < (super::disk::SUPER_OFFSET + bytes.len()) as u64 {
            return Err(ReadError::Superblock(format!("the file has only {len} bytes")));
        }
        self.read(super::disk::SUPER_OFFSET as u64, &mut bytes)?;
        let superblock = Superblock::decode(&bytes).map_err(ReadError::Superblock)?;
        let (blocks, block_size) = (superblock.blocks_count, superblock.block_size as u64);
        if blocks.checked_mul(block_size).is_none_or(|size| size > len) {
            let text = format!("{blocks} blocks of {block_size} bytes in a file of {len} bytes");
            return Err(ReadError::Superblock(text));
        }
        Ok(superblock)
    }

    pub fn superblock(&self) -> &Superblock {
        &self.superblock
    }

    /// Fills `bytes` from the file's offset `at` on.
    fn read(&self, at: u64, bytes: &mut [u8]) -> Result<()> {
        Ok(self.read_io(at, bytes)?)
    }

    fn read_io(&self, at: u64, bytes: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(bytes, at)?;
        if self.overlay.is_empty() {
            return Ok(());
        }
        let read = |at, bytes: &mut [u8]| self.file.read_exact_at(bytes, at);
        self.overlay.apply(self.superblock.block_size as u64, at, bytes, read)
    }

    /// Reads metadata block `block`, which lies in the file system.
    fn block(&self, block: u64) -> Result<Vec<u8>> {
        let Some(left) = self.budget.get().checked_sub(1) else {
            let text = "its structures name more blocks than the file has";
            return Err(ReadError::Superblock(text.into()));
        };
        self.budget.set(left);
        let mut bytes = vec![0; self.superblock.block_size];
        self.read(self.offset(block), &mut bytes)?;
        Ok(bytes)
    }

    fn offset(&self, block: u64) -> u64 {
        block * self.superblock.block_size as u64
    }
}
