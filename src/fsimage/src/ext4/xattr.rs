//! Xattrs: what fits stays in the inode, the rest goes to a block.
//!
//! `struct ext4_xattr_entry`: name_len u8, name_index u8, value_offs u16,
//! value_inum u32, value_size u32, hash u32, name. Facts: `fs/ext4/xattr.h`.

use super::disk::{BLOCK, I_XATTRS, INODE_SIZE, Seed};
use crate::ext4::error::Error;
use crate::fields::FieldsMut;
use crate::tree::xattrs::Xattrs;
use crate::xattr::prefix;

const MAGIC: u32 = 0xea02_0000;
const ENTRY: usize = 16;
const BLOCK_HEADER: usize = 32;
const INODE_HEADER: usize = 4;
/// Four zero bytes end a list.
const END: usize = 4;

/// Why xattrs have no place.
pub(super) enum XattrError {
    Name(String),
    Acl,
    Full,
}

impl XattrError {
    /// The error of the file at `path`.
    pub(super) fn of(self, path: &str) -> Error {
        let path = path.to_owned();
        match self {
            Self::Name(name) => Error::XattrName { path, name },
            Self::Acl => Error::Acl(path),
            Self::Full => Error::Xattrs(path),
        }
    }
}

/// An inode's xattrs, divided.
#[derive(Debug, Default)]
pub(super) struct Placed {
    /// What stands in the inode.
    pub inode: Vec<u8>,
    /// What stands in a block of its own, its checksum still zero.
    pub block: Option<Box<[u8; BLOCK]>>,
}

struct XattrEntry<'a> {
    index: u8,
    name: &'a [u8],
    value: Vec<u8>,
}

impl XattrEntry<'_> {
    fn size(&self) -> usize {
        (ENTRY + self.name.len()).next_multiple_of(4) + self.value.len().next_multiple_of(4)
    }
}

/// Divides `xattrs` between the inode and a block.
pub(super) fn place(xattrs: &Xattrs) -> Result<Placed, XattrError> {
    let mut inode = (Vec::new(), INODE_SIZE - I_XATTRS - INODE_HEADER - END);
    let mut block = (Vec::new(), BLOCK - BLOCK_HEADER - END);
    for xattr in xattrs.iter() {
        let (index, name) = prefix::split_name(&xattr.name)
            .ok_or_else(|| XattrError::Name(xattr.name.escape_ascii().to_string()))?;
        let value = match index {
            prefix::ACCESS | prefix::DEFAULT => acl(&xattr.value).ok_or(XattrError::Acl)?,
            _ => xattr.value.to_vec(),
        };
        let entry = XattrEntry { index, name, value };
        let (list, room) = if entry.size() <= inode.1 { &mut inode } else { &mut block };
        *room = room.checked_sub(entry.size()).ok_or(XattrError::Full)?;
        if name.len() > 255 {
            return Err(XattrError::Full);
        }
        list.push(entry);
    }
    let mut placed = Placed::default();
    if !inode.0.is_empty() {
        placed.inode = vec![0; INODE_SIZE - I_XATTRS];
        FieldsMut(&mut placed.inode).u32(0, MAGIC);
        // Here, offsets of values count from the first entry, and hashes are unused.
        fill(&mut placed.inode[INODE_HEADER..], 0, &inode.0, |_| 0);
    }
    if !block.0.is_empty() {
        // Lookups in a block stop at the first entry that sorts behind.
        block
            .0
            .sort_by(|a, b| (a.index, a.name.len(), a.name).cmp(&(b.index, b.name.len(), b.name)));
        let mut out = Box::new([0; BLOCK]);
        fill(&mut out[..], BLOCK_HEADER, &block.0, hash);
        let whole = block.0.iter().fold(0u32, |sum, entry| sum.rotate_left(16) ^ hash(entry));
        let mut f = FieldsMut(&mut out[..]);
        f.u32(0x00, MAGIC);
        f.u32(0x04, 1); // h_refcount
        f.u32(0x08, 1); // h_blocks
        f.u32(0x0c, whole);
        placed.block = Some(out);
    }
    Ok(placed)
}

/// Sets the checksum of a block of xattrs that lies at `address`.
pub(super) fn sign(block: &mut [u8; BLOCK], address: u32, seed: Seed) {
    let sum = seed.then(&u64::from(address).to_le_bytes()).then(&block[..]).sum();
    FieldsMut(block).u32(0x10, sum);
}

/// Writes entries from `at` upwards, and their values from the end downwards.
fn fill(
    out: &mut [u8],
    mut at: usize,
    entries: &[XattrEntry<'_>],
    hash: impl Fn(&XattrEntry<'_>) -> u32,
) {
    let mut values = out.len();
    let mut f = FieldsMut(out);
    for entry in entries {
        values -= entry.value.len().next_multiple_of(4);
        f.u8(at, entry.name.len() as u8);
        f.u8(at + 1, entry.index);
        // An empty value has no place.
        f.u16(at + 2, if entry.value.is_empty() { 0 } else { values as u16 });
        f.u32(at + 8, entry.value.len() as u32);
        f.u32(at + 12, hash(entry));
        f.bytes(at + ENTRY, entry.name);
        f.bytes(values, &entry.value);
        at += (ENTRY + entry.name.len()).next_multiple_of(4);
    }
}

/// `e_hash`: of the name's bytes, then of the value's words.
fn hash(entry: &XattrEntry<'_>) -> u32 {
    let name = entry.name.iter().fold(0u32, |sum, byte| sum.rotate_left(5) ^ u32::from(*byte));
    entry.value.chunks(4).fold(name, |sum, word| {
        let mut padded = [0; 4];
        padded[..word.len()].copy_from_slice(word);
        sum.rotate_left(16) ^ u32::from_le_bytes(padded)
    })
}

/// ext4 stores ACLs in a form of its own: version 1, and ids only where an
/// entry has one.
fn acl(value: &[u8]) -> Option<Vec<u8>> {
    let (version, entries) = value.split_at_checked(4)?;
    if version != [2, 0, 0, 0] || !entries.len().is_multiple_of(8) {
        return None;
    }
    let mut out = vec![1, 0, 0, 0];
    for entry in entries.chunks(8) {
        let named = matches!(u16::from_le_bytes([entry[0], entry[1]]), 0x02 | 0x08);
        out.extend_from_slice(if named { entry } else { &entry[..4] });
    }
    Some(out)
}
