//! `struct ext4_inode`: one record of a group's inode table.

use super::group::GroupDesc;
use crate::ext4::disk::{EXTENTS_FL, I_BLOCK, Seed};
use crate::ext4::read::error::{Result, bad};
use crate::ext4::read::reader::Reader;
use crate::fields::Fields;
use crate::tree::inode::Timestamp;

/// `i_flags`: the content is in the inode, and in the xattr `system.data`.
pub(super) const INLINE_DATA_FL: u32 = 0x1000_0000;
/// `i_flags`: the inode holds an xattr's value.
pub(super) const EA_INODE_FL: u32 = 0x20_0000;
/// `i_flags`: a hashed directory.
pub(super) const INDEX_FL: u32 = 0x1000;

/// Where the fields that every inode has end, and what is behind them.
const OLD_SIZE: usize = 128;

/// Bytes of the inode table that are read at once.
const WINDOW: u64 = 16 << 10;

/// An inode as it stands on disk, its checksum proven.
#[derive(Clone)]
pub(super) struct RawInode {
    pub ino: u32,
    /// The whole record.
    pub bytes: Vec<u8>,
    /// Of all that belongs to it.
    pub seed: Seed,
}

impl RawInode {
    fn fields(&self) -> Fields<'_> {
        Fields(&self.bytes)
    }

    /// Type and permissions.
    pub(super) fn mode(&self) -> u16 {
        self.fields().u16(0x0)
    }

    pub(super) fn uid(&self) -> u32 {
        u32::from(self.fields().u16(0x2)) | u32::from(self.fields().u16(0x78)) << 16
    }

    pub(super) fn gid(&self) -> u32 {
        u32::from(self.fields().u16(0x18)) | u32::from(self.fields().u16(0x7a)) << 16
    }

    /// Bytes of content.
    pub(super) fn size(&self) -> u64 {
        self.fields().u64(0x4, 0x6c)
    }

    pub(super) fn links(&self) -> u16 {
        self.fields().u16(0x1a)
    }

    pub(super) fn flags(&self) -> u32 {
        self.fields().u32(0x20)
    }

    pub(super) fn has(&self, flag: u32) -> bool {
        self.flags() & flag != 0
    }

    pub(super) fn i_block(&self) -> &[u8; I_BLOCK] {
        self.bytes[0x28..].first_chunk().expect("a record has 128 bytes")
    }

    /// The block of xattrs, or 0.
    pub(super) fn file_acl(&self) -> u64 {
        u64::from(self.fields().u32(0x68)) | u64::from(self.fields().u16(0x76)) << 32
    }

    /// Bytes that follow the 128 old ones and hold fields.
    fn extra(&self) -> usize {
        if self.bytes.len() > OLD_SIZE { self.fields().u16(0x80).into() } else { 0 }
    }

    /// What lies behind all fields: xattrs.
    pub(super) fn behind(&self) -> &[u8] {
        if self.extra() == 0 { &[] } else { &self.bytes[OLD_SIZE + self.extra()..] }
    }

    pub(super) fn atime_seconds(&self) -> u32 {
        self.fields().u32(0x8)
    }

    /// Seconds with two more bits, and nanoseconds, where the record has a place for them.
    pub(super) fn mtime(&self) -> Result<Timestamp> {
        let low = i64::from(self.fields().u32(0x10) as i32);
        if self.extra() < 0x8c - OLD_SIZE {
            return Ok(Timestamp { sec: low, nsec: 0 });
        }
        let extra = self.fields().u32(0x88);
        let nsec = extra >> 2;
        if nsec >= 1_000_000_000 {
            return Err(bad(self.ino, format!("its time has {nsec} nanoseconds")));
        }
        Ok(Timestamp { sec: low + (i64::from(extra & 3) << 32), nsec })
    }

    /// The sum of `metadata_csum`, and what is written in its place.
    fn checksums(&self) -> (u32, u32) {
        const LOW: usize = 0x7c;
        const HIGH: usize = 0x82;
        let mut bytes = self.bytes.clone();
        let mut told = u32::from(self.fields().u16(LOW));
        bytes[LOW..LOW + 2].fill(0);
        let wide = self.extra() >= HIGH + 2 - OLD_SIZE;
        if wide {
            told |= u32::from(self.fields().u16(HIGH)) << 16;
            bytes[HIGH..HIGH + 2].fill(0);
        }
        let sum = self.seed.then(&bytes).sum();
        (if wide { sum } else { sum & 0xffff }, told)
    }
}

/// Reads inodes, mostly in the order of their numbers.
pub(super) struct Inodes<'r> {
    reader: &'r Reader<'r>,
    /// The group that was needed last.
    group: Option<(u32, GroupDesc)>,
    /// What was read last, and its offset in the file.
    window: (u64, Vec<u8>),
}

impl<'r> Inodes<'r> {
    pub(super) fn new(reader: &'r Reader<'_>) -> Self {
        Self { reader, group: None, window: (0, Vec::new()) }
    }

    fn group(&mut self, group: u32) -> Result<GroupDesc> {
        if let Some((known, desc)) = &self.group
            && *known == group
        {
            return Ok(desc.clone());
        }
        let desc = self.reader.group(group)?;
        self.group = Some((group, desc.clone()));
        Ok(desc)
    }

    /// Inode `ino`, which something says is in use.
    pub(super) fn get(&mut self, ino: u32) -> Result<RawInode> {
        let superblock = &self.reader.superblock;
        if ino == 0 || ino > superblock.inodes_count {
            return Err(bad(ino, format!("there are {} inodes", superblock.inodes_count)));
        }
        let per_group = superblock.inodes_per_group;
        let (number, index) = ((ino - 1) / per_group, (ino - 1) % per_group);
        let size = superblock.inode_size;
        let group = self.group(number)?;
        if index >= group.inodes_used {
            return Err(bad(ino, format!("group {number} says that it was never used")));
        }
        let table = self.reader.offset(group.inode_table);
        let bytes = self.bytes(table + u64::from(index) * size as u64, size)?.to_vec();
        let generation = Fields(&bytes).u32(0x64).to_le_bytes();
        let seed = superblock.seed.then(&ino.to_le_bytes()).then(&generation);
        let inode = RawInode { ino, bytes, seed };
        if OLD_SIZE + inode.extra() > size || !inode.extra().is_multiple_of(4) {
            return Err(bad(ino, format!("i_extra_isize is {}", inode.extra())));
        }
        if superblock.has_metadata_csum() {
            let (found, told) = inode.checksums();
            if found != told {
                let text = format!("its checksum is {found:#010x}, but {told:#010x} is written");
                return Err(bad(ino, text));
            }
        }
        Ok(inode)
    }

    /// `len` bytes at offset `at` of the file: a power of two, and a multiple of it.
    fn bytes(&mut self, at: u64, len: usize) -> Result<&[u8]> {
        let (start, window) = &mut self.window;
        let there = at.checked_sub(*start).is_some_and(|i| i + len as u64 <= window.len() as u64);
        if !there {
            // The superblock told that the file is long enough for every block.
            *start = at - at % (WINDOW.max(len as u64));
            let whole = self.reader.offset(self.reader.superblock.blocks_count);
            window.resize((whole - *start).min(WINDOW.max(len as u64)) as usize, 0);
            self.reader.read(*start, window)?;
        }
        let from = (at - *start) as usize;
        Ok(&window[from..from + len])
    }
}

/// Whether the inode's content is mapped by an extent tree.
pub(super) fn has_extents(inode: &RawInode) -> bool {
    inode.has(EXTENTS_FL)
}
