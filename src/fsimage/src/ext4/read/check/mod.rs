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

use std::fs::File;

use super::inode::Inodes;
use super::tree::Walked;
use super::{ReadError, Reader, Result, bad};
use crate::ext4::disk::{self, BLOCK, FIRST_INO, JOURNAL_INO, ROOT_INO, Seed};
use crate::ext4::geometry::Geometry;

/// Checks the upper of a bundle: an ext4 with just the features, the geometry and
/// the records of the writer, never mounted, in which `/upper` and `/work` are the
/// directories that overlayfs gets.
///
/// # Errors
/// The first thing that is not so, with the inode, block group or path it is about.
pub fn check(file: &File) -> Result<()> {
    // No build leaves changes in the journal, so everything is read in its place.
    let reader = Reader::without_journal(file)?;
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

/// An upper whose superblock and tree are understood.
struct Upper<'r> {
    reader: &'r Reader<'r>,
    inodes: Inodes<'r>,
    seed: Seed,
    superblock: disk::Superblock,
    geometry: Geometry,
    walked: Walked,
    /// All numbers up to here are taken.
    last_ino: u32,
}

impl Upper<'_> {
    fn all(&mut self) -> Result<()> {
        marks::check(&self.walked)?;
        self.journal()?;
        for ino in 1..=self.last_ino {
            match self.walked.ids.get(&ino) {
                Some(id) => self.record(ino, *id)?,
                None if ino == JOURNAL_INO => {}
                None => self.unused(ino)?,
            }
        }
        if let Some(ino) = self.walked.inos.iter().find(|ino| **ino > self.last_ino) {
            let text = format!("it has a name, but only inodes up to {} are in use", self.last_ino);
            return Err(bad(*ino, text));
        }
        self.groups()
    }

    /// A number that nothing has: one of the reserved ones, with an empty record.
    fn unused(&mut self, ino: u32) -> Result<()> {
        let at = self.place_of(ino);
        let mut bytes = [0; disk::INODE_SIZE];
        self.reader.read(at, &mut bytes)?;
        if ino >= FIRST_INO {
            return Err(bad(ino, "it is in use, but no name leads to it"));
        }
        same_record(&bytes, &[0; disk::INODE_SIZE], |at, _| {
            bad(ino, format!("byte {at:#x} of a reserved inode is set"))
        })
    }

    /// The offset of an inode's record.
    fn place_of(&self, ino: u32) -> u64 {
        let per_group = self.geometry.inodes_per_group;
        let table = self.geometry.inode_table((ino - 1) / per_group);
        let index = (ino - 1) % per_group;
        u64::from(table) * BLOCK as u64 + u64::from(index) * disk::INODE_SIZE as u64
    }

    /// Takes a block for an inode, which nothing else may have.
    fn claim(&mut self, ino: u32, block: u64, len: u64) -> Result<()> {
        self.walked
            .claims
            .claim(block, len)
            .map_err(|block| bad(ino, format!("block {block} belongs to something else too")))
    }
}

/// The first offset at which the two differ becomes an error, with the byte found.
fn same_record(
    found: &[u8],
    wanted: &[u8],
    error: impl FnOnce(usize, u8) -> ReadError,
) -> Result<()> {
    if found == wanted {
        return Ok(());
    }
    let at = found.iter().zip(wanted).position(|(a, b)| a != b).unwrap_or(wanted.len());
    Err(error(at, found.get(at).copied().unwrap_or(0)))
}

/// The name of the field that offset `at` lies in, of fields by their offsets.
fn field(fields: &[(usize, &'static str)], at: usize) -> &'static str {
    let behind = fields.partition_point(|(start, _)| *start <= at);
    behind.checked_sub(1).map_or("", |i| fields[i].1)
}

const _: () = assert!(ROOT_INO < FIRST_INO && JOURNAL_INO < FIRST_INO);
