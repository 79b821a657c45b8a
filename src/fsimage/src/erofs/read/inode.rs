//! One inode, and the xattrs behind it.

use super::error::Result;
use crate::erofs::disk::{DiskInode, EXTENDED_SIZE, NID_SLOT, XATTR_ENTRY_SIZE, XATTR_HEADER_SIZE};
use crate::erofs::read::error::{ReadError, bad};
use crate::erofs::read::reader::Reader;
use crate::tree::xattrs::{Xattr, Xattrs};
use crate::units::{BLOCK_SIZE, Nid};
use crate::xattr::prefix::PREFIXES;

/// An inode as it stands on disk.
pub(super) struct RawInode<'d> {
    pub nid: Nid,
    pub disk: DiskInode,
    /// Header, shared ids and entries; empty if there are none.
    xattr_body: &'d [u8],
    /// Offset of what follows the xattrs.
    pub tail_at: u64,
}

impl<'d> Reader<'d> {
    pub(super) fn raw_inode(&self, nid: Nid) -> Result<RawInode<'d>> {
        let past = || bad(nid, "past the end of the file");
        let base = u64::from(self.superblock.meta_blkaddr) * BLOCK_SIZE;
        let at = nid.0.checked_mul(NID_SLOT).and_then(|at| at.checked_add(base));
        let at = at.filter(|at| *at < self.data.len() as u64).ok_or_else(past)?;
        let room = EXTENDED_SIZE.min(self.data.len() as u64 - at);
        let bytes = self.bytes(at, room).ok_or_else(past)?;
        let disk = DiskInode::decode(bytes).map_err(|what| bad(nid, what.to_string()))?;
        let body_len = match disk.xattr_icount {
            0 => 0,
            n => XATTR_HEADER_SIZE + 4 * (u64::from(n) - 1),
        };
        let body_at = at + disk.size_on_disk();
        let xattr_body = self.bytes(body_at, body_len).ok_or_else(past)?;
        Ok(RawInode { nid, disk, xattr_body, tail_at: body_at + body_len })
    }

    pub(super) fn xattrs(&self, inode: &RawInode<'_>) -> Result<Xattrs> {
        let mut xattrs = Vec::new();
        let Some(header) = inode.xattr_body.get(..XATTR_HEADER_SIZE as usize) else {
            return Ok(Xattrs::default());
        };
        let fail = |what: &str| bad(inode.nid, format!("xattrs: {what}"));
        let shared = usize::from(header[4]) * 4;
        let rest = &inode.xattr_body[header.len()..];
        let ids = rest.get(..shared).ok_or_else(|| fail("more shared ids than bytes"))?;
        for id in ids.as_chunks().0 {
            let base = u64::from(self.superblock.xattr_blkaddr) * BLOCK_SIZE;
            let at = base + u64::from(u32::from_le_bytes(*id)) * 4;
            let start = usize::try_from(at).ok();
            let entry = start.and_then(|at| self.data.get(at..));
            let entry = entry.ok_or_else(|| fail("a shared one past the end"))?;
            self.entry(inode, entry, &mut xattrs)?;
        }
        let mut own = &rest[shared..];
        while !own.is_empty() {
            let len = self.entry(inode, own, &mut xattrs)?;
            own = own.get(len..).ok_or_else(|| fail("the last one is cut"))?;
        }
        let count = xattrs.len();
        let xattrs: Xattrs = xattrs.into_iter().collect();
        if xattrs.iter().len() < count {
            return Err(fail("a name is there twice"));
        }
        Ok(xattrs)
    }

    /// Adds the entry at the start of `bytes`; returns its length.
    fn entry(
        &self,
        inode: &RawInode<'_>,
        bytes: &[u8],
        xattrs: &mut Vec<Xattr>,
    ) -> Result<usize, ReadError> {
        let fail = |what: &str| bad(inode.nid, format!("xattrs: {what}"));
        let cut = || fail("an entry is cut");
        let [name_len, index, low, high] = *bytes.first_chunk().ok_or_else(cut)?;
        let prefix = PREFIXES.iter().find(|(i, _)| *i == index);
        let (_, prefix) = prefix.ok_or_else(|| fail(&format!("prefix {index} is not known")))?;
        let name_at = XATTR_ENTRY_SIZE as usize;
        let value_at = name_at + usize::from(name_len);
        let end = value_at + usize::from(u16::from_le_bytes([low, high]));
        let suffix = bytes.get(name_at..value_at).ok_or_else(cut)?;
        let value = bytes.get(value_at..end).ok_or_else(cut)?;
        let name = [prefix, suffix].concat();
        xattrs.push(Xattr { name: name.into(), value: value.into() });
        Ok(end.next_multiple_of(4))
    }
}
