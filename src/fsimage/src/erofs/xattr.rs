//! Extended attributes: which are shared, and the bytes behind an inode.

use std::collections::HashMap;

use super::disk::{XATTR_ENTRY_SIZE, XATTR_HEADER_SIZE};
use super::error::PlanError;
use crate::tree::xattrs::{Xattr, Xattrs};
use crate::xattr::prefix::split_name;

/// An inode refers to at most this many shared xattrs: the count is one byte.
const MAX_SHARED: usize = 255;

/// `i_xattr_icount` has 16 bits and counts quarters of these bytes.
const MAX_BODY: u64 = XATTR_HEADER_SIZE + 4 * (u16::MAX as u64 - 1);

/// Bytes of an entry: 4, name, value, padded to 4.
fn entry_size(xattr: &Xattr) -> Result<u64, PlanError> {
    let name = split_name(&xattr.name)
        .ok_or_else(|| PlanError::XattrName(xattr.name.escape_ascii().to_string()))?
        .1;
    if name.len() > 255 || xattr.value.len() > usize::from(u16::MAX) {
        return Err(PlanError::XattrSize {
            name: xattr.name.escape_ascii().to_string(),
            value: xattr.value.len(),
        });
    }
    Ok((XATTR_ENTRY_SIZE + name.len() as u64 + xattr.value.len() as u64).next_multiple_of(4))
}

fn encode_entry(xattr: &Xattr, out: &mut Vec<u8>) {
    let (index, name) = split_name(&xattr.name).expect("entry_size has seen this name");
    out.extend_from_slice(&[name.len() as u8, index]);
    out.extend_from_slice(&(xattr.value.len() as u16).to_le_bytes());
    out.extend_from_slice(name);
    out.extend_from_slice(&xattr.value);
    out.resize(out.len().next_multiple_of(4), 0);
}

/// Xattrs that several inodes have, stored once, in the order of first use.
#[derive(Debug, Default)]
pub struct SharedXattrs {
    /// Id of each: a quarter of its offset in `bytes`.
    ids: HashMap<Xattr, u32>,
    pub bytes: Vec<u8>,
}

impl SharedXattrs {
    /// Chooses those of `all` (the xattrs of every inode, in order of the
    /// inodes) that take fewer bytes when stored once.
    pub fn choose<'a>(all: impl Iterator<Item = &'a Xattrs> + Clone) -> Result<Self, PlanError> {
        let mut uses: HashMap<&Xattr, u64> = HashMap::new();
        for xattr in all.clone().flat_map(Xattrs::iter) {
            *uses.entry(xattr).or_default() += 1;
        }
        let mut shared = Self::default();
        for xattr in all.flat_map(Xattrs::iter) {
            let (uses, size) = (uses[xattr], entry_size(xattr)?);
            if size + 4 * uses < size * uses && !shared.ids.contains_key(xattr) {
                let id = u32::try_from(shared.bytes.len() / 4)
                    .map_err(|_| PlanError::TooLarge("shared xattrs"))?;
                encode_entry(xattr, &mut shared.bytes);
                shared.ids.insert(xattr.clone(), id);
            }
        }
        Ok(shared)
    }

    /// Splits an inode's xattrs into ids of shared ones and the others.
    fn split<'x>(&self, xattrs: &'x Xattrs) -> (Vec<u32>, Vec<&'x Xattr>) {
        let (mut ids, mut own) = (Vec::new(), Vec::new());
        for xattr in xattrs.iter() {
            match self.ids.get(xattr) {
                Some(id) if ids.len() < MAX_SHARED => ids.push(*id),
                _ => own.push(xattr),
            }
        }
        (ids, own)
    }

    /// Bytes behind an inode with these xattrs; 0 if there are none.
    pub fn body_size(&self, xattrs: &Xattrs) -> Result<u64, PlanError> {
        if xattrs.is_empty() {
            return Ok(0);
        }
        let (ids, own) = self.split(xattrs);
        let mut size = XATTR_HEADER_SIZE + 4 * ids.len() as u64;
        for xattr in own {
            size += entry_size(xattr)?;
        }
        if size > MAX_BODY {
            return Err(PlanError::XattrBody { size, max: MAX_BODY });
        }
        Ok(size)
    }

    /// Appends the bytes that [`SharedXattrs::body_size`] counted.
    pub fn encode_body(&self, xattrs: &Xattrs, out: &mut Vec<u8>) {
        if xattrs.is_empty() {
            return;
        }
        let (ids, own) = self.split(xattrs);
        // A name filter of zero is never looked at: the feature bit is not set.
        out.extend_from_slice(&[0, 0, 0, 0, ids.len() as u8, 0, 0, 0, 0, 0, 0, 0]);
        for id in ids {
            out.extend_from_slice(&id.to_le_bytes());
        }
        for xattr in own {
            encode_entry(xattr, out);
        }
    }
}

/// `i_xattr_icount` for a body of `size` bytes.
pub(super) fn icount(size: u64) -> u16 {
    match size {
        0 => 0,
        _ => (1 + (size - XATTR_HEADER_SIZE) / 4) as u16,
    }
}
