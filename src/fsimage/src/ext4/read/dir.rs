//! Directory blocks: entries one behind the other.
//!
//! The blocks of a hashed directory that hold its tree look like blocks without
//! entries to those who do not know them, so all blocks can be read in order.

use super::mapping::Run;
use crate::ext4::disk::{I_BLOCK, Seed};
use crate::ext4::read::error::{ReadError, Result, bad};
use crate::ext4::read::reader::Reader;
use crate::fields::Fields;

const HEAD: usize = 8;
const TAIL: usize = 12;

/// A name in a directory.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct RawEntry<'b> {
    pub name: &'b [u8],
    pub ino: u32,
    /// 0 if the file system does not keep it.
    pub file_type: u8,
}

/// Where the entries of a directory are: what is kept of it until they are read.
pub(super) enum Listing {
    Blocks {
        size: u64,
        /// Of the inode.
        seed: Seed,
        /// Whether blocks of a tree of hashes are among them.
        hashed: bool,
        runs: Box<[Run]>,
    },
    /// What the inode holds, `i_block` first.
    Inline(Box<[u8]>),
}

/// Who gets the entries, one by one. None is kept here: blocks that are all alike are a
/// few bytes of an archive.
type Each<'e> = &'e mut dyn FnMut(RawEntry<'_>) -> Result<()>;

impl Reader<'_> {
    /// Hands the entries of the directory `ino` to `each`, in order.
    pub(super) fn entries(&self, ino: u32, listing: &Listing, each: Each<'_>) -> Result<()> {
        let (size, seed, hashed, runs) = match listing {
            Listing::Blocks { size, seed, hashed, runs } => (*size, *seed, *hashed, runs),
            Listing::Inline(bytes) => return self.inline_entries(ino, bytes, each),
        };
        let block_size = self.superblock.block_size as u64;
        if !size.is_multiple_of(block_size) {
            return Err(bad(ino, format!("a directory of {size} bytes")));
        }
        let mut next = 0;
        for run in runs {
            if run.file_block != next {
                return Err(bad(ino, format!("a directory with a hole at block {next}")));
            }
            for block in run.start..run.start + run.len {
                let bytes = self.block(block)?;
                let nth = next + (block - run.start);
                let fail = |what: &str| bad(ino, format!("directory block {nth}: {what}"));
                let room = self.room(seed, hashed, nth, &bytes, &fail)?;
                self.records(room, &fail, each)?;
            }
            next += run.len;
        }
        if next * block_size != size {
            return Err(bad(ino, format!("a directory of {size} bytes in {next} blocks")));
        }
        Ok(())
    }

    /// The parent's number stands for "." and "..", then come two lists.
    fn inline_entries(&self, ino: u32, bytes: &[u8], each: Each<'_>) -> Result<()> {
        let fail = |what: &str| bad(ino, what);
        let (i_block, rest) = bytes
            .split_first_chunk::<I_BLOCK>()
            .ok_or_else(|| fail("a directory in its inode is cut"))?;
        each(RawEntry { name: b".", ino, file_type: 2 })?;
        each(RawEntry { name: b"..", ino: Fields(i_block).u32(0), file_type: 2 })?;
        self.records(&i_block[4..], &fail, each)?;
        self.records(rest, &fail, each)
    }

    /// The part of a directory's block number `nth` that has entries, its checksum proven.
    fn room<'b>(
        &self,
        seed: Seed,
        hashed: bool,
        nth: u64,
        bytes: &'b [u8],
        fail: &dyn Fn(&str) -> ReadError,
    ) -> Result<&'b [u8]> {
        let mut room = bytes;
        if self.superblock.has_metadata_csum() {
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
            let sum = covered.iter().fold(seed, |seed, part| seed.then(part)).sum();
            if sum != tail {
                let text = format!("its checksum is {sum:#010x}, but {tail:#010x} is written");
                return Err(fail(&text));
            }
        }
        Ok(room)
    }

    /// Hands on the entries that fill `bytes`.
    fn records(
        &self,
        mut bytes: &[u8],
        fail: &dyn Fn(&str) -> ReadError,
        each: Each<'_>,
    ) -> Result<()> {
        let whole = bytes.len();
        while !bytes.is_empty() {
            let at = whole - bytes.len();
            let cut = || fail(&format!("the entry at byte {at} does not fit"));
            let head = bytes.get(..HEAD).ok_or_else(cut)?;
            let (child, len) = (Fields(head).u32(0), rec_len(bytes, 4));
            let name_len = usize::from(head[6]);
            let least = (HEAD + name_len).next_multiple_of(4);
            if len < least || !len.is_multiple_of(4) || len > bytes.len() {
                return Err(cut());
            }
            if child != 0 {
                let name = &bytes[HEAD..HEAD + name_len];
                if child > self.superblock.inodes_count {
                    let (name, inodes) = (name.escape_ascii(), self.superblock.inodes_count);
                    return Err(fail(&format!("\"{name}\" leads to inode {child} of {inodes}")));
                }
                each(RawEntry { name, ino: child, file_type: head[7] })?;
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
