//! Directory blocks: entries one behind the other.
//!
//! The blocks of a hashed directory that hold its tree look like blocks without
//! entries to those who do not know them, so all blocks can be read in order.

use super::fields::Fields;
use super::inode::{INDEX_FL, RawInode};
use super::mapping::Mapping;
use crate::ext4::read::error::{Result, bad};
use crate::ext4::read::reader::Reader;

const HEAD: usize = 8;
const TAIL: usize = 12;

/// A name in a directory.
#[derive(Debug, PartialEq, Eq)]
pub struct RawEntry {
    pub name: Vec<u8>,
    pub ino: u32,
    /// 0 if the file system does not keep it.
    pub file_type: u8,
}

impl Reader<'_> {
    /// The entries of a directory whose content is `mapping`, in order.
    pub(super) fn entries(&self, inode: &RawInode, mapping: &Mapping) -> Result<Vec<RawEntry>> {
        let block_size = self.superblock.block_size as u64;
        if !inode.size().is_multiple_of(block_size) {
            return Err(bad(inode.ino, format!("a directory of {} bytes", inode.size())));
        }
        let mut entries = Vec::new();
        let mut next = 0;
        for run in &mapping.runs {
            if run.file_block != next {
                return Err(bad(inode.ino, format!("a directory with a hole at block {next}")));
            }
            for block in run.start..run.start + run.len {
                let bytes = self.block(block)?;
                let nth = next + (block - run.start);
                self.directory_block(inode, nth, &bytes, &mut entries)?;
            }
            next += run.len;
        }
        if next * block_size != inode.size() {
            let text = format!("a directory of {} bytes in {next} blocks", inode.size());
            return Err(bad(inode.ino, text));
        }
        Ok(entries)
    }

    /// Adds the entries of the directory's block number `nth`.
    fn directory_block(
        &self,
        inode: &RawInode,
        nth: u64,
        bytes: &[u8],
        entries: &mut Vec<RawEntry>,
    ) -> Result<()> {
        let fail = |what: &str| bad(inode.ino, format!("directory block {nth}: {what}"));
        let mut room = bytes;
        if self.superblock.has_metadata_csum() {
            let hashed = inode.has(INDEX_FL);
            let first = Fields(bytes);
            // The root of the hash tree, and its other nodes.
            let node = hashed && first.u32(0) == 0 && rec_len(bytes, 4) == bytes.len();
            let (covered, tail) = match (hashed && nth == 0, node) {
                (true, _) => hash_tail(bytes, 32),
                (_, true) => hash_tail(bytes, 8),
                _ => {
                    room = &bytes[..bytes.len() - TAIL];
                    leaf_tail(bytes)
                }
            }
            .ok_or_else(|| fail("there is no place for its checksum"))?;
            let sum = covered.iter().fold(inode.seed, |seed, part| seed.then(part)).sum();
            if sum != tail {
                let text = format!("its checksum is {sum:#010x}, but {tail:#010x} is written");
                return Err(fail(&text));
            }
        }
        self.records(room, entries).map_err(|what| fail(&what))
    }

    /// Adds the entries that fill `bytes`.
    pub(super) fn records(
        &self,
        mut bytes: &[u8],
        entries: &mut Vec<RawEntry>,
    ) -> Result<(), String> {
        let whole = bytes.len();
        while !bytes.is_empty() {
            let at = whole - bytes.len();
            let cut = || format!("the entry at byte {at} does not fit");
            let head = bytes.get(..HEAD).ok_or_else(cut)?;
            let (child, len) = (Fields(head).u32(0), rec_len(bytes, 4));
            let name_len = usize::from(head[6]);
            let least = (HEAD + name_len).next_multiple_of(4);
            if len < least || !len.is_multiple_of(4) || len > bytes.len() {
                return Err(cut());
            }
            if child != 0 {
                let name = bytes[HEAD..HEAD + name_len].to_vec();
                if child > self.superblock.inodes_count {
                    let (name, inodes) = (name.escape_ascii(), self.superblock.inodes_count);
                    return Err(format!("\"{name}\" leads to inode {child} of {inodes}"));
                }
                entries.push(RawEntry { name, ino: child, file_type: head[7] });
            }
            bytes = &bytes[len..];
        }
        Ok(())
    }
}

/// `rec_len` at `at`: blocks of 64 KiB need a number that does not fit 16 bits.
fn rec_len(bytes: &[u8], at: usize) -> usize {
    match usize::from(Fields(bytes).u16(at)) {
        0 | 0xffff if bytes.len() >= 65_536 - TAIL => bytes.len(),
        len => len,
    }
}

/// What the sum of a block of entries covers, and the sum at its end.
fn leaf_tail(bytes: &[u8]) -> Option<([&[u8]; 3], u32)> {
    let (covered, tail) = bytes.split_at_checked(bytes.len() - TAIL)?;
    let f = Fields(tail);
    let is_tail = f.u32(0) == 0 && f.u16(4) == TAIL as u16 && f.u8(6) == 0 && f.u8(7) == 0xde;
    is_tail.then_some(([covered, &[], &[]], f.u32(8)))
}

/// The same for a block of the hash tree whose `dx_countlimit` is at `at`.
fn hash_tail(bytes: &[u8], at: usize) -> Option<([&[u8]; 3], u32)> {
    let f = Fields(bytes);
    let (limit, count) = (usize::from(f.u16(at)), usize::from(f.u16(at + 2)));
    let covered = bytes.get(..at + count * 8).filter(|_| count <= limit)?;
    let tail = bytes.get(at + limit * 8..)?.first_chunk::<8>()?;
    Some(([covered, tail.first_chunk::<4>()?, &[0; 4]], Fields(tail).u32(4)))
}
