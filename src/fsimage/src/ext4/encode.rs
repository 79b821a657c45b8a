//! Emits a plan, block by block in the order of their addresses.

use std::io;

use super::content::{self, Content, Failure};
use super::disk::{
    BLOCK, BLOCK_UNINIT, GroupDesc, INODE_UNINIT, INODE_ZEROED, SUPER_OFFSET, halves,
};
use super::nodes::shown;
use super::plan::{Piece, Plan};
use crate::ext4::error::Error;
use crate::io::sink::Sink;
use crate::tree::arena::Tree;
use crate::tree::inode::Kind;

/// Writes the image of `size` bytes, with the content of `tree`'s files.
pub(super) fn image<C: Content>(
    plan: &Plan,
    tree: &Tree<C>,
    size: u64,
    sink: &mut dyn Sink,
) -> Result<(), Error> {
    let geometry = &plan.geometry;
    let mut pieces = plan.pieces.iter().peekable();
    let descriptors = descriptors(plan);
    for group in 0..geometry.groups {
        let first = geometry.first_block(group);
        if geometry.has_super(group) {
            seek(sink, first)?;
            if group == 0 {
                sink.zeros(SUPER_OFFSET as u64)?;
            }
            sink.data(&plan.superblock.encode(group))?;
            seek(sink, first + 1)?;
            sink.data(&descriptors)?;
        }
        if geometry.leads_flex(group) {
            let members = group..group + geometry.groups_in_flex(group);
            for member in members.clone().filter(|member| !block_uninit(plan, *member)) {
                seek(sink, geometry.block_bitmap(member))?;
                sink.data(&block_bitmap(plan, member))?;
            }
            for member in members.clone().filter(|member| inodes_used(plan, *member) > 0) {
                seek(sink, geometry.inode_bitmap(member))?;
                sink.data(&inode_bitmap(plan, member))?;
            }
            for member in members {
                let start = (member * geometry.inodes_per_group) as usize;
                let used = inodes_used(plan, member) as usize;
                if used > 0 {
                    seek(sink, geometry.inode_table(member))?;
                    for inode in &plan.inodes[start..start + used] {
                        sink.data(inode)?;
                    }
                }
            }
        }
        let end = first + geometry.blocks_in(group);
        while let Some((address, piece)) = pieces.next_if(|(address, _)| **address < end) {
            seek(sink, *address)?;
            write(piece, tree, sink)?;
        }
    }
    Ok(sink.zeros(size - sink.position())?)
}

fn seek(sink: &mut dyn Sink, block: u32) -> io::Result<()> {
    let offset = u64::from(block) * BLOCK as u64;
    sink.zeros(offset.checked_sub(sink.position()).expect("addresses ascend"))
}

/// Zeros within a file need no space either.
fn write<C: Content>(piece: &Piece, tree: &Tree<C>, sink: &mut dyn Sink) -> Result<(), Error> {
    let (id, range) = match piece {
        Piece::Bytes(bytes) => return Ok(content::sift(bytes, sink)?),
        Piece::Content(id, range) => (*id, range),
    };
    let Kind::File(file) = &tree.inode(id).kind else {
        unreachable!("only a file's content stays with the tree");
    };
    content::copy(file, range, sink).map_err(|failure| match failure {
        Failure::Content(source) => Error::Content { path: shown(tree, Some(id)), source },
        Failure::Sink(error) => error.into(),
    })
}

fn inodes_used(plan: &Plan, group: u32) -> u32 {
    plan.geometry.inodes_used(group, plan.inodes.len() as u32)
}

/// Whether the kernel can tell the group's block bitmap from the geometry: it
/// knows of copies of the superblock, not of a flex group's tables, and it
/// wants the last group's written.
fn block_uninit(plan: &Plan, group: u32) -> bool {
    let geometry = &plan.geometry;
    !geometry.leads_flex(group)
        && group + 1 != geometry.groups
        && plan.used[group as usize] == geometry.fixed_blocks(group)
}

fn ones(bitmap: &mut [u8; BLOCK], from: u32, to: u32) {
    for bit in from..to {
        bitmap[bit as usize / 8] |= 1 << (bit % 8);
    }
}

fn block_bitmap(plan: &Plan, group: u32) -> [u8; BLOCK] {
    let mut bitmap = [0; BLOCK];
    ones(&mut bitmap, 0, plan.used[group as usize]);
    ones(&mut bitmap, plan.geometry.blocks_in(group), BLOCK as u32 * 8);
    bitmap
}

fn inode_bitmap(plan: &Plan, group: u32) -> [u8; BLOCK] {
    let mut bitmap = [0; BLOCK];
    ones(&mut bitmap, 0, inodes_used(plan, group));
    ones(&mut bitmap, plan.geometry.inodes_per_group, BLOCK as u32 * 8);
    bitmap
}

/// All group descriptors, padded to whole blocks.
fn descriptors(plan: &Plan) -> Vec<u8> {
    let geometry = &plan.geometry;
    let mut out = Vec::with_capacity(geometry.gdt_blocks as usize * BLOCK);
    for group in 0..geometry.groups {
        let inodes = inodes_used(plan, group);
        let mut desc = GroupDesc {
            block_bitmap: geometry.block_bitmap(group),
            inode_bitmap: geometry.inode_bitmap(group),
            inode_table: geometry.inode_table(group),
            free_blocks_count: (geometry.blocks_in(group) - plan.used[group as usize]) as u16,
            free_inodes_count: (geometry.inodes_per_group - inodes) as u16,
            used_dirs_count: plan.dirs[group as usize],
            // All tables are zero where nothing is in them: nobody need clear them.
            flags: INODE_ZEROED,
            block_bitmap_csum: 0,
            inode_bitmap_csum: 0,
            itable_unused: (geometry.inodes_per_group - inodes) as u16,
        };
        if block_uninit(plan, group) {
            desc.flags |= BLOCK_UNINIT;
        } else {
            desc.block_bitmap_csum = halves(plan.seed.then(&block_bitmap(plan, group)).sum()).0;
        }
        if inodes == 0 {
            desc.flags |= INODE_UNINIT;
        } else {
            let covered = geometry.inodes_per_group as usize / 8;
            let bitmap = inode_bitmap(plan, group);
            desc.inode_bitmap_csum = halves(plan.seed.then(&bitmap[..covered]).sum()).0;
        }
        out.extend_from_slice(&desc.encode(plan.seed, group));
    }
    out.resize(geometry.gdt_blocks as usize * BLOCK, 0);
    out
}
