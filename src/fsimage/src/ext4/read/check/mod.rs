//! Whether a file is an upper as a build writes it.
//!
//! The reader understands the file without a word from the writer: bounds, order,
//! checksums, names, and that no block belongs to two inodes. Then every record is
//! encoded again from what was understood and compared with the file, so that each
//! byte of metadata counts, those that the format leaves free included; and the
//! bitmaps and counts of each block group must say what the tree uses. What regular
//! files hold, and blocks that nothing uses, are not looked at: their holes may be
//! larger than any disk.

mod groups;
mod marks;
mod records;
mod super_block;
mod upper;

use std::fs::File;

use self::upper::Upper;
use super::inode::Inodes;
use crate::budget::Budget;
use crate::ext4::disk::{FIRST_INO, JOURNAL_INO, ROOT_INO, Seed};
use crate::ext4::read::error::Result;
use crate::ext4::read::reader::Reader;

/// Checks the upper of a bundle: an ext4 with just the features, the geometry and
/// the records of the writer, never mounted, in which `/upper` and `/work` are the
/// directories that overlayfs gets. What is kept of it in memory is taken from `memory`.
///
/// # Errors
/// The first thing that is not so, with the inode, block group or path it is about.
pub fn check(file: &File, memory: &Budget) -> Result<()> {
    // No build leaves changes in the journal, so everything is read in its place.
    let reader = Reader::without_journal(file, memory)?;
    let (superblock, geometry) = super_block::profile(&reader)?;
    let walked = reader.walk()?;
    let last_ino = superblock.inodes_count - superblock.free_inodes_count;
    let mut upper = Upper {
        inodes: Inodes::new(&reader),
        seed: Seed::of_file_system(&superblock.uuid),
        reader: &reader,
        superblock,
        geometry,
        walked,
        last_ino,
    };
    upper.all().map_err(|error| upper.walked.located(error))
}

const _: () = assert!(ROOT_INO < FIRST_INO && JOURNAL_INO < FIRST_INO);
