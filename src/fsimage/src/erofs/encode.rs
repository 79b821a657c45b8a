//! Writes what a plan says, front to back.

use std::io;

use super::dirent::{self, Dirent};
use super::disk::{self, COMPACT_SIZE, ChunkIndex, DiskInode, EXTENDED_SIZE, Layout};
use super::plan::{Content, Node, Plan, size_of, with_dots};
use super::xattr;
use crate::io::sink::Sink;
use crate::tree::extents::Extents;
use crate::tree::inode::{Dir, InodeId, Kind};
use crate::units::{BLOCK_SIZE, DeviceId};

/// Emits the metadata of `plan` into `sink`, which stands at `plan.start`.
///
/// # Panics
/// When what is written is not what was planned: a bug.
pub(super) fn metadata(plan: &Plan<'_>, sink: &mut dyn Sink) -> io::Result<()> {
    assert_eq!(sink.position(), plan.start, "metadata begin elsewhere");
    let mut buffer = Vec::new();
    for (i, node) in plan.nodes.iter().enumerate() {
        pad_to(sink, node.offset)?;
        inode(plan, node, i, &mut buffer);
        sink.data(&buffer)?;
        buffer.clear();
    }
    pad_to(sink, plan.blocks_start)?;
    for node in &plan.nodes {
        blocks(plan, node, sink, &mut buffer)?;
    }
    pad_to(sink, plan.shared_start)?;
    sink.data(&plan.shared.bytes)?;
    pad_to(sink, plan.end)
}

fn pad_to(sink: &mut dyn Sink, offset: u64) -> io::Result<()> {
    let gap = offset.checked_sub(sink.position()).expect("a plan's parts do not overlap");
    sink.zeros(gap)
}

/// Appends an inode and what stands right behind it.
fn inode(plan: &Plan<'_>, node: &Node, ino: usize, out: &mut Vec<u8>) {
    let inode = plan.tree.inode(node.id);
    let (layout, u) = match node.content {
        Content::None => (Layout::FlatPlain, 0),
        Content::Device(rdev) => (Layout::FlatPlain, rdev),
        Content::Plain { start, .. } => (Layout::FlatPlain, start),
        Content::Inline { start, .. } => (Layout::FlatInline, start),
        Content::Chunks { bits, .. } => (Layout::ChunkBased, disk::CHUNK_INDEXES | bits),
    };
    let disk_inode = DiskInode {
        extended: node.extended,
        layout,
        xattr_icount: xattr::icount(node.xattr_size),
        file_type: inode.kind.file_type(),
        permissions: inode.stat.mode & 0o7777,
        size: size_of(inode, node.content),
        u,
        ino: ino as u32 + 1,
        uid: inode.stat.uid,
        gid: inode.stat.gid,
        mtime: inode.stat.mtime.sec as u64,
        mtime_nsec: inode.stat.mtime.nsec,
        nlink: node.nlink,
    };
    disk_inode.encode(out);
    plan.shared.encode_body(plan.xattrs(node.id), out);
    let head = if node.extended { EXTENDED_SIZE } else { COMPACT_SIZE } + node.xattr_size;
    assert_eq!(out.len() as u64, head, "an inode is not as long as planned");

    match (&inode.kind, node.content) {
        (Kind::Symlink(target), Content::Inline { .. }) => out.extend_from_slice(target),
        (Kind::Dir(dir), Content::Inline { blocks, tail, .. }) => {
            dir_blocks(plan, node, dir, blocks as usize, usize::MAX, |block| {
                assert_eq!(block.len() as u64, tail, "a directory's tail is not as planned");
                out.extend_from_slice(block);
                Ok(())
            })
            .expect("appending to memory does not fail");
        }
        (Kind::File(extents), Content::Chunks { bits, count, .. }) => {
            let misaligned = (node.offset + head) % disk::CHUNK_INDEX_SIZE;
            if misaligned != 0 {
                out.resize(out.len() + (disk::CHUNK_INDEX_SIZE - misaligned) as usize, 0);
            }
            chunk_indexes(extents, bits, count, out);
        }
        _ => {}
    }
}

fn chunk_indexes(extents: &Extents, bits: u32, count: u64, out: &mut Vec<u8>) {
    let mut runs = extents.runs.iter().peekable();
    for chunk in 0..count {
        let first = chunk << bits;
        while runs.next_if(|run| run.file_block + u64::from(run.len) <= first).is_some() {}
        let index = match runs.peek() {
            Some(run) if run.file_block <= first => {
                let DeviceId(device_id) = run.device;
                // Within the run, whose end the plan has checked.
                let blkaddr = run.start.0 + (first - run.file_block) as u32;
                ChunkIndex { device_id, blkaddr }
            }
            _ => ChunkIndex::HOLE,
        };
        index.encode(out);
    }
}

/// Emits an inode's blocks outside the inode run.
fn blocks(
    plan: &Plan<'_>,
    node: &Node,
    sink: &mut dyn Sink,
    buffer: &mut Vec<u8>,
) -> io::Result<()> {
    match (&plan.tree.inode(node.id).kind, node.content) {
        (Kind::Dir(dir), Content::Inline { start, blocks, .. }) if blocks > 0 => {
            assert_eq!(sink.position(), u64::from(start) * BLOCK_SIZE);
            dir_blocks(plan, node, dir, 0, blocks as usize, |block| padded(sink, block))
        }
        (Kind::Dir(dir), Content::Plain { start, .. }) => {
            assert_eq!(sink.position(), u64::from(start) * BLOCK_SIZE);
            dir_blocks(plan, node, dir, 0, usize::MAX, |block| padded(sink, block))
        }
        (Kind::Symlink(target), Content::Plain { start, .. }) => {
            assert_eq!(sink.position(), u64::from(start) * BLOCK_SIZE);
            buffer.clear();
            padded(sink, target)
        }
        _ => Ok(()),
    }
}

fn padded(sink: &mut dyn Sink, block: &[u8]) -> io::Result<()> {
    sink.data(block)?;
    let len = block.len() as u64;
    sink.zeros(len.next_multiple_of(BLOCK_SIZE) - len)
}

/// Calls `emit` with the blocks `skip..end` of a directory, not padded.
fn dir_blocks(
    plan: &Plan<'_>,
    node: &Node,
    dir: &Dir,
    skip: usize,
    end: usize,
    mut emit: impl FnMut(&[u8]) -> io::Result<()>,
) -> io::Result<()> {
    let entry = |name, id: InodeId| {
        let file_type = plan.tree.inode(id).kind.file_type();
        Dirent { name, nid: plan.nid(id).0, file_type }
    };
    let names = dir.entries.iter().map(|(name, id)| (name.as_bytes(), *id));
    let entries: Vec<Dirent<'_>> =
        with_dots(names, node.id, node.parent.inode()).map(|(name, id)| entry(name, id)).collect();
    let (counts, _) = dirent::split(entries.iter().map(|entry| entry.name.len()));
    let mut at = 0;
    let mut bytes = Vec::with_capacity(BLOCK_SIZE as usize);
    for (i, count) in counts.into_iter().enumerate() {
        if (skip..end).contains(&i) {
            bytes.clear();
            dirent::encode_block(&entries[at..at + count], &mut bytes);
            emit(&bytes)?;
        }
        at += count;
    }
    Ok(())
}
