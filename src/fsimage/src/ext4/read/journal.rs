//! Changes that stand in the journal only, as after a machine that was killed.
//!
//! What jbd2 would write to its place at the next mount is read from the journal
//! instead. Facts: `include/linux/jbd2.h` and `fs/jbd2/recovery.c` of Linux 6.12;
//! all numbers are big-endian.

use rustc_hash::FxHashMap;

use super::mapping::Run;
use crate::ext4::disk::Seed;
use crate::ext4::read::error::{ReadError, Result, bad};
use crate::ext4::read::overlay::{Copy, MAGIC, Overlay};
use crate::ext4::read::reader::Reader;

const DESCRIPTOR: u32 = 1;
const COMMIT: u32 = 2;
const SUPERBLOCK_V1: u32 = 3;
const SUPERBLOCK_V2: u32 = 4;
const REVOKE: u32 = 5;

const INCOMPAT_REVOKE: u32 = 0x1;
const INCOMPAT_64BIT: u32 = 0x2;
const INCOMPAT_CSUM_V2: u32 = 0x8;
const INCOMPAT_CSUM_V3: u32 = 0x10;
/// Without asynchronous commits, whose end is not certain, and fast commits, which
/// say what to do instead of what to write.
const INCOMPAT_READ: u32 = INCOMPAT_REVOKE | INCOMPAT_64BIT | INCOMPAT_CSUM_V2 | INCOMPAT_CSUM_V3;

const TAG_ESCAPED: u32 = 1;
const TAG_SAME_UUID: u32 = 2;
const TAG_LAST: u32 = 8;

fn be32(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn fail(what: impl Into<String>) -> ReadError {
    ReadError::Superblock(format!("the journal: {}", what.into()))
}

/// A journal whose superblock is sound.
struct Journal<'r> {
    reader: &'r Reader<'r>,
    runs: Vec<Run>,
    /// The first and behind the last of the journal's blocks that hold the log.
    first: u64,
    end: u64,
    /// The transaction that the log begins with, and its first block.
    sequence: u32,
    start: u64,
    incompat: u32,
    seed: Seed,
}

/// A block that a transaction wrote.
struct Tag {
    target: u64,
    flags: u32,
    checksum: u32,
}

/// What the log holds of one transaction.
#[derive(Default)]
struct Transaction {
    /// Tags with the journal's blocks that belong to them.
    tags: Vec<(Tag, u64)>,
    revoked: Vec<u64>,
}

/// What the journal in inode `ino` holds that is not in its place.
pub(super) fn overlay(reader: &Reader<'_>, ino: u32) -> Result<Overlay> {
    let mut overlay = Overlay::default();
    let Some(journal) = open(reader, ino)? else { return Ok(overlay) };
    let transactions = journal.transactions()?;
    // A block that was freed and is something else by now must not be written: not
    // by the transaction that says so, and not by earlier ones.
    let mut revoked: FxHashMap<u64, usize> = FxHashMap::default();
    for (i, transaction) in transactions.iter().enumerate() {
        revoked.extend(transaction.revoked.iter().map(|block| (*block, i)));
    }
    for (i, transaction) in transactions.iter().enumerate() {
        let sequence = journal.sequence.wrapping_add(i as u32);
        for (tag, block) in &transaction.tags {
            if revoked.get(&tag.target).is_some_and(|last| *last >= i) {
                continue;
            }
            let block = journal.disk_block(*block)?;
            journal.check_copy(tag, block, sequence)?;
            let escaped = tag.flags & TAG_ESCAPED != 0;
            overlay.0.insert(tag.target, Copy { block, escaped });
        }
    }
    Ok(overlay)
}

/// The journal, or none if its log is empty.
fn open<'r>(reader: &'r Reader<'r>, ino: u32) -> Result<Option<Journal<'r>>> {
    let raw = super::inode::Inodes::new(reader).get(ino)?;
    let runs = reader.mapping(&raw)?.runs;
    let Some(first) = runs.first().filter(|run| run.file_block == 0) else {
        return Err(bad(ino, "the journal has no first block"));
    };
    let block = reader.block(first.start)?;
    let sb = &block[..1024];
    let version = be32(sb, 4);
    if be32(sb, 0) != MAGIC || !matches!(version, SUPERBLOCK_V1 | SUPERBLOCK_V2) {
        return Err(fail("it has no superblock"));
    }
    let incompat = if version == SUPERBLOCK_V1 { 0 } else { be32(sb, 0x28) };
    if incompat & !INCOMPAT_READ != 0 {
        return Err(fail(format!("its features {incompat:#x} are not all known")));
    }
    if incompat & (INCOMPAT_CSUM_V2 | INCOMPAT_CSUM_V3) != 0 {
        let sum = Seed::START.then(&sb[..0xfc]).then(&[0; 4]).then(&sb[0x100..]).sum();
        if sum != be32(sb, 0xfc) {
            return Err(fail("the checksum of its superblock is wrong"));
        }
    }
    let (block_size, blocks) = (u64::from(be32(sb, 0x0c)), u64::from(be32(sb, 0x10)));
    let (first, start) = (u64::from(be32(sb, 0x14)), u64::from(be32(sb, 0x1c)));
    if start == 0 {
        return Ok(None);
    }
    if block_size != reader.superblock.block_size as u64
        || first == 0
        || !(first..blocks).contains(&start)
    {
        return Err(fail(format!(
            "{blocks} blocks of {block_size} bytes, from {first} on, and it starts at {start}"
        )));
    }
    Ok(Some(Journal {
        reader,
        runs,
        first,
        end: blocks,
        sequence: be32(sb, 0x18),
        start,
        incompat,
        seed: Seed::START.then(&sb[0x30..0x40]),
    }))
}

impl Journal<'_> {
    fn has_checksums(&self) -> bool {
        self.incompat & (INCOMPAT_CSUM_V2 | INCOMPAT_CSUM_V3) != 0
    }

    /// Where the journal's block `block` is on the disk.
    fn disk_block(&self, block: u64) -> Result<u64> {
        let behind = self.runs.partition_point(|run| run.file_block <= block);
        let run = behind.checked_sub(1).map(|i| self.runs[i]);
        let run = run.filter(|run| block < run.file_block + run.len);
        let run = run.ok_or_else(|| fail(format!("its block {block} is a hole")))?;
        Ok(run.start + (block - run.file_block))
    }

    /// The block `steps` behind `block`: the log is a ring.
    fn behind(&self, block: u64, steps: u64) -> u64 {
        self.first + (block - self.first + steps) % (self.end - self.first)
    }

    /// All transactions that were committed, the oldest first.
    ///
    /// Terminates because no more blocks are passed than the log has.
    fn transactions(&self) -> Result<Vec<Transaction>> {
        let mut all = Vec::new();
        let mut open = Transaction::default();
        let mut damaged = false;
        let (mut at, mut left) = (self.start, self.end - self.first);
        while left > 0 {
            let bytes = self.reader.block(self.disk_block(at)?)?;
            let sequence = self.sequence.wrapping_add(all.len() as u32);
            if be32(&bytes, 0) != MAGIC || be32(&bytes, 8) != sequence {
                break;
            }
            let mut passed = 1;
            match be32(&bytes, 4) {
                DESCRIPTOR => {
                    damaged |= !self.tail_is_sound(&bytes);
                    for tag in self.tags(&bytes) {
                        open.tags.push((tag, self.behind(at, passed)));
                        passed += 1;
                    }
                }
                REVOKE => {
                    damaged |= !self.tail_is_sound(&bytes);
                    self.revocations(&bytes, &mut open.revoked);
                }
                COMMIT => {
                    // A torn descriptor belongs to a transaction that was not
                    // committed; with a commit behind it, it is damage.
                    if damaged || !self.commit_is_sound(&bytes) {
                        return Err(fail(format!("its transaction {sequence} is damaged")));
                    }
                    all.push(std::mem::take(&mut open));
                }
                _ => break,
            }
            at = self.behind(at, passed);
            left = left.saturating_sub(passed);
        }
        Ok(all)
    }

    /// The tags of a descriptor block.
    fn tags(&self, bytes: &[u8]) -> Vec<Tag> {
        let wide = self.incompat & INCOMPAT_64BIT != 0;
        let (v2, v3) =
            (self.incompat & INCOMPAT_CSUM_V2 != 0, self.incompat & INCOMPAT_CSUM_V3 != 0);
        let size = match (v3, v2, wide) {
            (true, _, _) => 16,
            (_, true, true) => 14,
            (_, false, true) => 12,
            (_, true, false) => 10,
            (_, false, false) => 8,
        };
        let end = bytes.len() - if self.has_checksums() { 4 } else { 0 };
        let mut tags = Vec::new();
        let mut at = 12;
        while at + size <= end {
            let (low, word) = (be32(bytes, at), be32(bytes, at + 4));
            let high = if wide { be32(bytes, at + 8) } else { 0 };
            let flags = if v3 { word } else { word & 0xffff };
            let checksum = if v3 { be32(bytes, at + 12) } else { word >> 16 };
            let target = u64::from(low) | u64::from(high) << 32;
            tags.push(Tag { target, flags, checksum });
            if flags & TAG_LAST != 0 {
                break;
            }
            at += size + if flags & TAG_SAME_UUID != 0 { 0 } else { 16 };
        }
        tags
    }

    fn revocations(&self, bytes: &[u8], revoked: &mut Vec<u64>) {
        let tail = if self.has_checksums() { 4 } else { 0 };
        let end = (be32(bytes, 12) as usize).min(bytes.len() - tail);
        let size = if self.incompat & INCOMPAT_64BIT != 0 { 8 } else { 4 };
        let numbers = bytes.get(16..end).unwrap_or_default().chunks_exact(size);
        revoked.extend(numbers.map(|n| n.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte))));
    }

    /// Whether the sum at the end of a descriptor or revoke block is right.
    fn tail_is_sound(&self, bytes: &[u8]) -> bool {
        let tail = bytes.len() - 4;
        !self.has_checksums()
            || self.seed.then(&bytes[..tail]).then(&[0; 4]).sum() == be32(bytes, tail)
    }

    fn commit_is_sound(&self, bytes: &[u8]) -> bool {
        let sum = self.seed.then(&bytes[..16]).then(&[0; 4]).then(&bytes[20..]).sum();
        !self.has_checksums() || sum == be32(bytes, 16)
    }

    /// Checks a block of the log that is to be read in place of `tag.target`.
    fn check_copy(&self, tag: &Tag, block: u64, sequence: u32) -> Result<()> {
        let superblock = &self.reader.superblock;
        if tag.target >= superblock.blocks_count {
            return Err(fail(format!(
                "it holds block {} of {}",
                tag.target, superblock.blocks_count
            )));
        }
        if self.has_checksums() {
            let bytes = self.reader.block(block)?;
            let sum = self.seed.then(&sequence.to_be_bytes()).then(&bytes).sum();
            let v3 = self.incompat & INCOMPAT_CSUM_V3 != 0;
            let told = if v3 { sum } else { sum & 0xffff };
            if told != tag.checksum {
                return Err(fail(format!("its copy of block {} is damaged", tag.target)));
            }
        }
        Ok(())
    }
}
