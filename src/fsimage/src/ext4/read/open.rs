//! Opening a file system: the journal is replayed in memory before anything else is read.

use std::fs::File;

use super::error::{ReadError, Result};
use super::journal;
use super::reader::Reader;
use crate::budget::Budget;

impl<'f> Reader<'f> {
    /// Checks the superblock, and that the file holds the whole file system. Where its
    /// journal holds changes, everything is read as it will be after the next mount;
    /// the file stays as it is. What is kept of it in memory is taken from `memory`.
    ///
    /// # Errors
    /// Also when the file system has a feature that changes how it is to be read
    /// and that this reader does not know.
    pub fn new(file: &'f File, memory: &'f Budget) -> Result<Self> {
        let mut reader = Self::without_journal(file, memory)?;
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
}
