//! Reads an ext4 and believes nothing.
//!
//! Shares only the on-disk structures with the writer. [`Reader`] takes any ext4
//! that holds no changes in its journal: the upper of a bundle, one that a guest
//! has written to, and what mke2fs makes, with block maps, inline data, xattrs in
//! inodes of their own and hashed directories. [`check`] is stricter: it accepts
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
    /// Metadata blocks that may still be read.
    budget: Cell<u64>,
}

impl<'f> Reader<'f> {
    /// Checks the superblock, and that the file holds the whole file system.
    ///
    /// # Errors
    /// Also when the file system has a feature that changes how it is to be read
    /// and that this reader does not know.
    pub fn new(file: &'f File) -> Result<Self> {
        let metadata = file.metadata()?;
        let mut bytes = [0; super::disk::SUPER_SIZE];
        match file.read_exact_at(&mut bytes, super::disk::SUPER_OFFSET as u64) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                let text = format!("the file has only {} bytes", metadata.len());
                return Err(ReadError::Superblock(text));
            }
            read => read?,
        }
        let superblock = Superblock::decode(&bytes).map_err(ReadError::Superblock)?;
        let block_size = superblock.block_size as u64;
        let size = superblock.blocks_count.checked_mul(block_size);
        if size.is_none_or(|size| size > metadata.len()) {
            let (blocks, len) = (superblock.blocks_count, metadata.len());
            let text = format!("{blocks} blocks of {block_size} bytes in a file of {len} bytes");
            return Err(ReadError::Superblock(text));
        }
        // Invariant: the file's allocated blocks bound the work. Some file systems
        // compress, hence the factor.
        let allocated = metadata.blocks().saturating_mul(512) / block_size;
        let budget = Cell::new(allocated.saturating_mul(64).saturating_add(LEAST_BUDGET));
        Ok(Self { file, superblock, budget })
    }

    pub fn superblock(&self) -> &Superblock {
        &self.superblock
    }

    /// Fills `bytes` from the file's offset `at` on.
    fn read(&self, at: u64, bytes: &mut [u8]) -> Result<()> {
        Ok(self.file.read_exact_at(bytes, at)?)
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
