//! The upper that is checked, and its records one by one.

use crate::ext4::disk::{self, BLOCK, FIRST_INO, JOURNAL_INO, Seed};
use crate::ext4::geometry::Geometry;
use crate::ext4::read::check::marks;
use crate::ext4::read::error::{ReadError, Result, bad};
use crate::ext4::read::inode::Inodes;
use crate::ext4::read::reader::Reader;
use crate::ext4::read::tree::Walked;

/// An upper whose superblock and tree are understood.
pub(super) struct Upper<'r> {
    pub(super) reader: &'r Reader<'r>,
    pub(super) inodes: Inodes<'r>,
    pub(super) seed: Seed,
    pub(super) superblock: disk::Superblock,
    pub(super) geometry: Geometry,
    pub(super) walked: Walked,
    /// All numbers up to here are taken.
    pub(super) last_ino: u32,
}

impl Upper<'_> {
    pub(super) fn all(&mut self) -> Result<()> {
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
    pub(super) fn claim(&mut self, ino: u32, block: u64, len: u64) -> Result<()> {
        self.walked
            .claims
            .claim(block, len)
            .map_err(|block| bad(ino, format!("block {block} belongs to something else too")))
    }
}

/// The first offset at which the two differ becomes an error, with the byte found.
pub(super) fn same_record(
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
pub(super) fn field(fields: &[(usize, &'static str)], at: usize) -> &'static str {
    let behind = fields.partition_point(|(start, _)| *start <= at);
    behind.checked_sub(1).map_or("", |i| fields[i].1)
}
