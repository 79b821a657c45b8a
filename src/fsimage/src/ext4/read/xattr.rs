//! Xattrs: in the inode, in a block, and large values in inodes of their own.
//!
//! Facts: `fs/ext4/xattr.h` and `fs/ext4/xattr.c`.

use rustc_hash::FxHashMap;

use super::inode::{EA_INODE_FL, Inodes, RawInode};
use crate::ext4::read::error::{Result, bad};
use crate::ext4::read::reader::Reader;
use crate::fields::Fields;
use crate::tree::weight;
use crate::tree::xattrs::Xattrs;
use crate::xattr::prefix::{self, PREFIXES};

const MAGIC: u32 = 0xea02_0000;
const ENTRY: usize = 16;
const BLOCK_HEADER: usize = 32;
const INODE_HEADER: usize = 4;

const PREFIX_SYSTEM: u8 = 7;

/// Prefixes that ext4 has beyond those of EROFS; the second is a whole name.
const MORE_PREFIXES: [(u8, &[u8]); 2] = [(PREFIX_SYSTEM, b"system."), (8, b"system.richacl")];

/// `XATTR_SIZE_MAX` of Linux.
const MAX_VALUE: u64 = 65_536;

/// What an inode has.
#[derive(Default)]
pub(super) struct InodeXattrs {
    pub xattrs: Xattrs,
    /// The part of inline content that did not fit `i_block`.
    pub inline: Vec<u8>,
}

/// Reads xattrs of many inodes.
pub(super) struct XattrReader<'r> {
    reader: &'r Reader<'r>,
    inodes: Inodes<'r>,
    /// Values by the inodes that hold them; several inodes may share one.
    values: FxHashMap<u32, Vec<u8>>,
}

/// One list of entries.
struct List<'a> {
    bytes: &'a [u8],
    /// Where the first entry is.
    first: usize,
    /// What offsets of values count from.
    base: usize,
    /// Whether entries must carry a hash.
    hashed: bool,
}

impl<'r> XattrReader<'r> {
    pub(super) fn new(reader: &'r Reader<'_>) -> Self {
        Self { reader, inodes: Inodes::new(reader), values: FxHashMap::default() }
    }

    /// The xattrs of `inode`, whose weight is counted here. Blocks and values are shared,
    /// so that a small file can give any number of them to its inodes.
    pub(super) fn all(&mut self, inode: &RawInode) -> Result<InodeXattrs> {
        let mut found = InodeXattrs::default();
        let behind = inode.behind();
        if behind.len() >= INODE_HEADER && Fields(behind).u32(0) == MAGIC {
            let (first, base) = (INODE_HEADER, INODE_HEADER);
            self.list(inode.ino, &List { bytes: behind, first, base, hashed: false }, &mut found)?;
        }
        let block = inode.file_acl();
        if block != 0 {
            let bytes = self.block(inode.ino, block)?;
            let (first, base) = (BLOCK_HEADER, 0);
            self.list(inode.ino, &List { bytes: &bytes, first, base, hashed: true }, &mut found)?;
        }
        Ok(found)
    }

    /// A block of xattrs, its header and checksum proven.
    fn block(&self, ino: u32, block: u64) -> Result<Vec<u8>> {
        let superblock = &self.reader.superblock;
        let fail = |what: String| bad(ino, format!("its block {block} of xattrs {what}"));
        if block <= superblock.first_data_block.into() || block >= superblock.blocks_count {
            return Err(fail("is outside the file system".into()));
        }
        let mut bytes = self.reader.block(block)?;
        let f = Fields(&bytes);
        let (magic, blocks, told) = (f.u32(0x0), f.u32(0x8), f.u32(0x10));
        if magic != MAGIC || blocks != 1 || f.u32(0x4) == 0 {
            let text = format!("has magic {magic:#x}, {} references, {blocks} blocks", f.u32(0x4));
            return Err(fail(text));
        }
        if superblock.has_metadata_csum() {
            bytes[0x10..0x14].fill(0);
            let found = superblock.seed.then(&block.to_le_bytes()).then(&bytes).sum();
            if found != told {
                let text = format!("has the checksum {found:#010x}, but {told:#010x} is written");
                return Err(fail(text));
            }
        }
        Ok(bytes)
    }

    fn list(&mut self, ino: u32, list: &List<'_>, found: &mut InodeXattrs) -> Result<()> {
        let fail = |what: &str| bad(ino, format!("xattrs: {what}"));
        let cut = || fail("an entry is cut");
        let mut places = Vec::new();
        let mut at = list.first;
        loop {
            let rest = list.bytes.get(at..).filter(|rest| rest.len() >= 4).ok_or_else(cut)?;
            if Fields(rest).u32(0) == 0 {
                break;
            }
            let head = rest.get(..ENTRY).ok_or_else(cut)?;
            let name = rest.get(ENTRY..ENTRY + usize::from(head[0])).ok_or_else(cut)?;
            let full = full_name(head[1], name).map_err(|bad| fail(&bad.0))?;
            let (entry, size) = (Fields(head), Fields(head).u32(8));
            if u64::from(size) > MAX_VALUE {
                return Err(fail(&format!("a value of {size} bytes")));
            }
            self.reader.keep(ino, weight::xattr(full.len(), size as usize))?;
            let value = match entry.u32(4) {
                0 => {
                    let start = list.base + usize::from(entry.u16(2));
                    let value = list.bytes.get(start..start + size as usize);
                    let value = if size == 0 { Some(&[][..]) } else { value };
                    places.push((start, size as usize));
                    value.ok_or_else(|| fail("a value past the end"))?.to_vec()
                }
                holder => self.value(holder, size, &entry, name)?,
            };
            let told = entry.u32(12);
            if list.hashed && entry.u32(4) == 0 && !hashes(name, &value).contains(&told) {
                return Err(fail(&format!("the hash of {} is wrong", full.escape_ascii())));
            }
            add(&full, head[1], value, found).map_err(|bad| fail(&bad.0))?;
            at += (ENTRY + name.len()).next_multiple_of(4);
        }
        places.retain(|(_, size)| *size > 0);
        places.sort_unstable();
        let mut least = at + 4;
        for (start, size) in places {
            if start < least {
                return Err(fail("a value lies over something else"));
            }
            least = start + size;
        }
        Ok(())
    }

    /// The value that inode `holder` holds for an entry.
    fn value(
        &mut self,
        holder: u32,
        size: u32,
        entry: &Fields<'_>,
        name: &[u8],
    ) -> Result<Vec<u8>> {
        let fail = |what: &str| bad(holder, format!("the value of an xattr: {what}"));
        if let Some(value) = self.values.get(&holder) {
            return if value.len() as u64 == u64::from(size) {
                Ok(value.clone())
            } else {
                Err(fail("its entries tell different sizes"))
            };
        }
        let inode = self.inodes.get(holder)?;
        if !inode.has(EA_INODE_FL) || inode.size() != u64::from(size) {
            return Err(fail(&format!("it holds {} bytes for {size}", inode.size())));
        }
        let mapping = self.reader.mapping(&inode)?;
        let mut value = vec![0; size as usize];
        self.reader.read_runs(&mapping.runs, 0, &mut value)?;
        let sum = self.reader.superblock.seed.then(&value).sum();
        let whole = hashes(name, &sum.to_le_bytes());
        if inode.atime_seconds() != sum || !whole.contains(&entry.u32(12)) {
            return Err(fail("its hash is wrong"));
        }
        self.values.insert(holder, value.clone());
        Ok(value)
    }
}

/// What is wrong with one xattr, as a text of the error that names its inode.
struct BadXattr(String);

fn full_name(index: u8, name: &[u8]) -> Result<Vec<u8>, BadXattr> {
    let prefix = PREFIXES.iter().chain(&MORE_PREFIXES).find(|(known, _)| *known == index);
    let (_, prefix) = prefix.ok_or_else(|| BadXattr(format!("the prefix {index} is not known")))?;
    let whole = !prefix.ends_with(b".");
    let full = [prefix, name].concat();
    if whole != name.is_empty() || name.contains(&0) || full.len() > crate::xattr::MAX_NAME {
        return Err(BadXattr(format!("{} is not a name", full.escape_ascii())));
    }
    Ok(full)
}

/// Keeps one xattr.
fn add(full: &[u8], index: u8, value: Vec<u8>, found: &mut InodeXattrs) -> Result<(), BadXattr> {
    if index == PREFIX_SYSTEM && full == b"system.data" {
        found.inline = value;
        return Ok(());
    }
    let value = match index {
        prefix::ACCESS | prefix::DEFAULT => {
            acl(&value).ok_or_else(|| BadXattr("an ACL is not as ext4 stores it".to_owned()))?
        }
        _ => value,
    };
    if found.xattrs.get(full).is_some() {
        return Err(BadXattr(format!("{} is there twice", full.escape_ascii())));
    }
    found.xattrs.set(full, value);
    Ok(())
}

/// `e_hash` of an entry: of the name's bytes, then of the value's words. Kernels
/// before 6.2 took the bytes as the machine's `char`, which may be signed.
fn hashes(name: &[u8], value: &[u8]) -> [u32; 2] {
    [|byte: u8| u32::from(byte), |byte: u8| i32::from(byte as i8) as u32].map(|widen| {
        let hash = name.iter().fold(0u32, |sum, byte| sum.rotate_left(5) ^ widen(*byte));
        value.chunks(4).fold(hash, |sum, word| {
            let mut padded = [0; 4];
            padded[..word.len()].copy_from_slice(word);
            sum.rotate_left(16) ^ u32::from_le_bytes(padded)
        })
    })
}

/// An ACL as getxattr(2) gives it, from ext4's version 1: there, entries have an id
/// only if they name somebody.
fn acl(value: &[u8]) -> Option<Vec<u8>> {
    let mut rest = value.strip_prefix(&[1, 0, 0, 0])?;
    let mut out = vec![2, 0, 0, 0];
    while !rest.is_empty() {
        let named = matches!(u16::from_le_bytes([rest[0], *rest.get(1)?]), 0x02 | 0x08);
        let (entry, further) = rest.split_at_checked(if named { 8 } else { 4 })?;
        out.extend_from_slice(entry);
        if !named {
            out.extend_from_slice(&[0xff; 4]);
        }
        rest = further;
    }
    Some(out)
}
