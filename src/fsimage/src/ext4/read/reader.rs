//! An open file system: its superblock, its journal replayed in memory, its blocks.

use std::cell::Cell;
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};

use crate::budget::{Budget, Tally};
use crate::ext4::read::error::{ReadError, Result, bad};
use crate::ext4::read::overlay::Overlay;
use crate::ext4::read::superblock::Superblock;

/// Metadata blocks that even an empty file may ask for. Holes read as zeros, so a
/// small file could otherwise point to any number of them.
pub(super) const LEAST_BUDGET: u64 = 65_536;

/// An ext4 whose superblock is sound.
#[derive(Debug)]
pub struct Reader<'f> {
    pub(super) file: &'f File,
    pub(super) superblock: Superblock,
    pub(super) overlay: Overlay,
    /// Metadata blocks that may still be read.
    pub(super) budget: Cell<u64>,
    /// Of memory, for what is kept.
    kept: Tally<'f>,
}

impl<'f> Reader<'f> {
    /// As [`Reader::new`], but reads everything in its place, whatever the journal holds.
    pub(super) fn without_journal(file: &'f File, memory: &'f Budget) -> Result<Self> {
        let mut reader = Self {
            file,
            superblock: Superblock::default(),
            overlay: Overlay::default(),
            budget: Cell::new(0),
            kept: Tally::new(memory),
        };
        reader.superblock = reader.read_superblock()?;
        // Invariant: the file's allocated blocks bound the work. Some file systems
        // compress, hence the factor.
        let block_size = reader.superblock.block_size as u64;
        let allocated = file.metadata()?.blocks().saturating_mul(512) / block_size;
        reader.budget.set(allocated.saturating_mul(64).saturating_add(LEAST_BUDGET));
        Ok(reader)
    }

    pub(super) fn read_superblock(&self) -> Result<Superblock> {
        let len = self.file.metadata()?.len();
        let mut bytes = [0; crate::ext4::disk::SUPER_SIZE];
        if len < (crate::ext4::disk::SUPER_OFFSET + bytes.len()) as u64 {
            return Err(ReadError::Superblock(format!("the file has only {len} bytes")));
        }
        self.read(crate::ext4::disk::SUPER_OFFSET as u64, &mut bytes)?;
        let superblock = Superblock::decode(&bytes)?;
        let (blocks, block_size) = (superblock.blocks_count, superblock.block_size as u64);
        if blocks.checked_mul(block_size).is_none_or(|size| size > len) {
            let text = format!("{blocks} blocks of {block_size} bytes in a file of {len} bytes");
            return Err(ReadError::Superblock(text));
        }
        Ok(superblock)
    }

    /// Counts `weight` bytes of memory that are kept of inode `ino`, before they are.
    pub(super) fn keep(&self, ino: u32, weight: u64) -> Result<()> {
        self.kept.count(weight).map_err(|error| bad(ino, error.to_string()))
    }

    /// Takes from the budget of memory what was counted, now that inode `ino` is read.
    pub(super) fn pay(&self, ino: u32) -> Result<()> {
        self.kept.pay().map_err(|error| bad(ino, error.to_string()))
    }

    /// The superblock, as it is once the journal is replayed.
    pub fn superblock(&self) -> &Superblock {
        &self.superblock
    }

    /// Fills `bytes` from the file's offset `at` on.
    pub(super) fn read(&self, at: u64, bytes: &mut [u8]) -> Result<()> {
        Ok(self.read_io(at, bytes)?)
    }

    pub(super) fn read_io(&self, at: u64, bytes: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(bytes, at)?;
        if self.overlay.is_empty() {
            return Ok(());
        }
        let read = |at, bytes: &mut [u8]| self.file.read_exact_at(bytes, at);
        self.overlay.apply(self.superblock.block_size as u64, at, bytes, read)
    }

    /// Reads metadata block `block`, which lies in the file system.
    pub(super) fn block(&self, block: u64) -> Result<Vec<u8>> {
        let Some(left) = self.budget.get().checked_sub(1) else {
            let text = "its structures name more blocks than the file has";
            return Err(ReadError::Superblock(text.into()));
        };
        self.budget.set(left);
        let mut bytes = vec![0; self.superblock.block_size];
        self.read(self.offset(block), &mut bytes)?;
        Ok(bytes)
    }

    pub(super) fn offset(&self, block: u64) -> u64 {
        block * self.superblock.block_size as u64
    }
}
