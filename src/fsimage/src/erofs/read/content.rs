//! What an inode holds: entries, a link's target, a file's extents.

use super::error::Result;
use super::inode::RawInode;
use crate::erofs::disk::{
    self, CHUNK_BITS_MASK, CHUNK_INDEX_SIZE, CHUNK_INDEXES, ChunkIndex, DIRENT_SIZE, DiskDirent,
    Layout,
};
use crate::erofs::read::error::{ReadError, bad};
use crate::erofs::read::reader::Reader;
use crate::tree::extents::{Extent, Extents, Runs};
use crate::tree::weight::Weigh as _;
use crate::units::{BLOCK_SIZE, BlockAddr, DeviceId, Nid, align_up, blocks_of};

/// A name in a directory.
pub(super) struct RawEntry<'d> {
    pub name: &'d [u8],
    pub nid: Nid,
    pub file_type: u8,
}

/// The whole blocks of an inode whose content lies among the metadata, and what is
/// behind them.
fn flat<'d>(reader: &Reader<'d>, inode: &RawInode<'_>) -> Result<(&'d [u8], &'d [u8])> {
    let size = inode.disk.size;
    let (plain, tail) = match inode.disk.layout {
        Layout::FlatPlain => (size, 0),
        Layout::FlatInline => (size - size % BLOCK_SIZE, size % BLOCK_SIZE),
        layout => return Err(bad(inode.nid, format!("layout {layout:?} for this type"))),
    };
    let past = || bad(inode.nid, "content past the end of the file");
    let at = u64::from(inode.disk.u) * BLOCK_SIZE;
    let (mut blocks, mut rest): (&[u8], &[u8]) = (&[], &[]);
    if plain > 0 {
        blocks = reader.bytes(at, plain).ok_or_else(past)?;
    }
    if tail > 0 {
        if inode.tail_at % BLOCK_SIZE + tail > BLOCK_SIZE {
            return Err(bad(inode.nid, "an inline tail crosses a block's end"));
        }
        rest = reader.bytes(inode.tail_at, tail).ok_or_else(past)?;
    }
    Ok((blocks, rest))
}

/// The target of a symbolic link.
pub(super) fn target(reader: &Reader<'_>, inode: &RawInode<'_>) -> Result<Vec<u8>> {
    // As long as a path of Linux.
    if inode.disk.size >= 4096 {
        return Err(bad(inode.nid, format!("a link of {} bytes", inode.disk.size)));
    }
    let (blocks, rest) = flat(reader, inode)?;
    let target = [blocks, rest].concat();
    if target.is_empty() || target.contains(&0) {
        return Err(bad(inode.nid, "a link's target is empty or holds a NUL"));
    }
    Ok(target)
}

/// Hands each entry of a directory to `each`, in order.
///
/// No entry is kept here: a directory of many blocks may be a few bytes of an archive, and only
/// `each` knows what it keeps and takes it from the budget.
pub(super) fn entries<'d>(
    reader: &Reader<'d>,
    inode: &RawInode<'_>,
    mut each: impl FnMut(RawEntry<'d>) -> Result<()>,
) -> Result<()> {
    let mut before: Option<&[u8]> = None;
    let mut each = |entry: RawEntry<'d>| {
        if before.is_some_and(|before| before >= entry.name) {
            return Err(ReadError::Dirent {
                nid: inode.nid,
                name: entry.name.escape_ascii().to_string(),
                what: "it is not behind the one before it".into(),
            });
        }
        before = Some(entry.name);
        each(entry)
    };
    let (blocks, rest) = flat(reader, inode)?;
    let rest = (!rest.is_empty()).then_some(rest);
    for block in blocks.chunks(BLOCK_SIZE as usize).chain(rest) {
        block_entries(inode.nid, block, &mut each)?;
    }
    Ok(())
}

fn block_entries<'d>(
    nid: Nid,
    block: &'d [u8],
    each: &mut impl FnMut(RawEntry<'d>) -> Result<()>,
) -> Result<()> {
    let cut = || bad(nid, "a directory block's entries do not fit it");
    let dirent = |i: usize| {
        let bytes = block.get(i * DIRENT_SIZE..)?.first_chunk()?;
        Some(DiskDirent::decode(bytes))
    };
    let first = usize::from(dirent(0).ok_or_else(cut)?.nameoff);
    if first == 0 || !first.is_multiple_of(DIRENT_SIZE) {
        return Err(cut());
    }
    let count = first / DIRENT_SIZE;
    for i in 0..count {
        let this = dirent(i).ok_or_else(cut)?;
        let start = usize::from(this.nameoff);
        let end = if i + 1 < count {
            usize::from(dirent(i + 1).ok_or_else(cut)?.nameoff)
        } else {
            // The last name ends with the block, or with a NUL.
            let rest = block.get(start..).ok_or_else(cut)?;
            start + rest.iter().position(|b| *b == 0).unwrap_or(rest.len())
        };
        let name = block.get(start..end).filter(|_| start >= first).ok_or_else(cut)?;
        each(RawEntry { name, nid: Nid(this.nid), file_type: this.file_type })?;
    }
    Ok(())
}

/// Bytes of the chunk indexes of a regular file.
pub(super) fn index_bytes(inode: &RawInode<'_>) -> Option<u64> {
    match inode.disk.layout {
        Layout::ChunkBased => {
            let chunk = 1 << (inode.disk.u & CHUNK_BITS_MASK);
            blocks_of(inode.disk.size).div_ceil(chunk).checked_mul(CHUNK_INDEX_SIZE)
        }
        _ => Some(0),
    }
}

/// Where a regular file's bytes lie, on devices that hold them. `keep` is told the
/// weight of each run as it comes, of all together that of the extents.
pub(super) fn extents(
    reader: &Reader<'_>,
    inode: &RawInode<'_>,
    mut keep: impl FnMut(u64) -> Result<()>,
) -> Result<Extents> {
    let size = inode.disk.size;
    let blocks = blocks_of(size);
    let mut runs = Runs::default();
    let mut add = |file_block, device: u16, start: u32, len: u64| {
        let capacity = match device {
            0 => reader.superblock.blocks,
            slot => {
                reader
                    .devices
                    .get(usize::from(slot) - 1)
                    .ok_or_else(|| bad(inode.nid, format!("device {slot} is not in the table")))?
                    .blocks
            }
        };
        let past = || bad(inode.nid, format!("blocks past the end of device {device}"));
        let end = u64::from(start).checked_add(len).ok_or_else(past)?;
        if end > u64::from(capacity) {
            return Err(past());
        }
        let len = u32::try_from(len).map_err(|_| past())?;
        if let Some(last) = runs.last_mut()
            && last.device.0 == device
            && last.file_block + u64::from(last.len) == file_block
            && last.start.0.checked_add(last.len) == Some(start)
        {
            last.len = last.len.checked_add(len).ok_or_else(past)?;
            return Ok(());
        }
        let before = runs.weight();
        runs.push(Extent { file_block, device: DeviceId(device), start: BlockAddr(start), len });
        keep(runs.weight() - before)
    };
    match inode.disk.layout {
        _ if size == 0 => {}
        Layout::FlatPlain => add(0, 0, inode.disk.u, blocks)?,
        Layout::ChunkBased => {
            let format = inode.disk.u;
            if format & !CHUNK_BITS_MASK != CHUNK_INDEXES {
                return Err(bad(inode.nid, format!("chunk format {format:#x}")));
            }
            let bits = format & CHUNK_BITS_MASK;
            let past = || bad(inode.nid, "chunk indexes past the end of the file");
            let at = align_up(inode.tail_at, CHUNK_INDEX_SIZE).ok_or_else(past)?;
            let len = index_bytes(inode).ok_or_else(past)?;
            let indexes = reader.bytes(at, len).ok_or_else(past)?;
            for (i, bytes) in indexes.as_chunks().0.iter().enumerate() {
                let index = ChunkIndex::decode(bytes);
                let first = (i as u64) << bits;
                if index.blkaddr != disk::NULL_ADDR {
                    let len = (blocks - first).min(1 << bits);
                    add(first, index.device_id, index.blkaddr, len)?;
                }
            }
        }
        layout => return Err(bad(inode.nid, format!("layout {layout:?} for a file"))),
    }
    Ok(Extents { size, runs })
}
