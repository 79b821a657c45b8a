//! Inode records and block addresses, before a byte is written.

use std::collections::BTreeMap;
use std::ops::Range;

use super::disk::{
    BLOCK, EXTENTS_FL, I_BLOCK, INODE_SIZE, InodeRecord, JOURNAL_INO, Seed, Superblock,
};
use super::extent::{self, Run};
use super::geometry::{BLOCKS_PER_GROUP, Geometry};
use super::layout::{Blocks, Place};
use super::nodes::{Node, Nodes};
use super::{dirent, journal, xattr};
use crate::digest::uuid_of;
use crate::tree::arena::Tree;
use crate::tree::file_type::FileType;
use crate::tree::inode::{InodeId, Kind, Stat, Timestamp};

/// A file system, decided.
pub(super) struct Plan {
    pub geometry: Geometry,
    pub seed: Seed,
    pub superblock: Superblock,
    /// Inode records from number 1 on.
    pub inodes: Vec<[u8; INODE_SIZE]>,
    /// What lies outside of the fixed parts, by block; the rest is zero.
    pub pieces: BTreeMap<u32, Piece>,
    /// Blocks taken in each group, the fixed ones included.
    pub used: Vec<u32>,
    /// Directories in each group.
    pub dirs: Vec<u16>,
}

/// What lies in neighbouring blocks.
pub(super) enum Piece {
    Bytes(Vec<u8>),
    /// Bytes of a regular file, which stay where they are.
    Content(InodeId, Range<u64>),
}

impl Plan {
    /// Decides all records of `tree`, whose inodes are `nodes` and lie in `blocks` of a file
    /// system of `size` bytes.
    pub(super) fn new<C>(
        tree: &Tree<C>,
        nodes: &Nodes,
        blocks: &Blocks,
        (size, seed): (u64, &[u8; 32]),
    ) -> Self {
        let Blocks { geometry, journal_blocks, journal, places, used, free } = blocks;
        let mut derived = blake3::Hasher::new_derive_key("rootfs-compile upper uuid");
        derived.update(seed).update(&size.to_le_bytes());
        let mut ids = [0; 32];
        derived.finalize_xof().fill(&mut ids);
        let (uuid, mut hash_seed) = (uuid_of(&ids), [0; 16]);
        hash_seed.copy_from_slice(&ids[16..]);

        let last_ino = nodes.last_ino();
        let mut builder = Builder {
            seed: Seed::of_file_system(&uuid),
            inodes: vec![[0; INODE_SIZE]; last_ino as usize],
            pieces: BTreeMap::new(),
            dirs: vec![0; geometry.groups as usize],
            inodes_per_group: geometry.inodes_per_group,
        };
        let journal_i_block = builder.journal(journal, *journal_blocks, &uuid);
        for (i, place) in places.iter().enumerate() {
            builder.node(tree, nodes, i, place);
        }
        let Builder { seed, inodes, pieces, dirs, .. } = builder;
        let superblock = Superblock {
            inodes_count: geometry.inodes(),
            blocks_count: geometry.blocks,
            free_blocks_count: *free,
            free_inodes_count: geometry.inodes() - last_ino,
            blocks_per_group: BLOCKS_PER_GROUP,
            inodes_per_group: geometry.inodes_per_group,
            uuid,
            hash_seed,
            journal_i_block,
            journal_size: u64::from(*journal_blocks) * BLOCK as u64,
        };
        let (geometry, used) = (geometry.clone(), used.clone());
        Self { geometry, seed, superblock, inodes, pieces, used, dirs }
    }
}

struct Builder {
    seed: Seed,
    inodes: Vec<[u8; INODE_SIZE]>,
    pieces: BTreeMap<u32, Piece>,
    dirs: Vec<u16>,
    inodes_per_group: u32,
}

impl Builder {
    /// Puts the journal in its place; returns its `i_block`.
    fn journal(&mut self, place: &Place, blocks: u32, uuid: &[u8; 16]) -> [u8; I_BLOCK] {
        let (i_block, count) = self.extents(place, JOURNAL_INO);
        let first = place.runs[0].start;
        self.pieces.insert(first, Piece::Bytes(journal::superblock(blocks, uuid).to_vec()));
        let record = InodeRecord {
            mode: FileType::Regular.mode_bits() | 0o600,
            uid: 0,
            gid: 0,
            size: u64::from(blocks) * BLOCK as u64,
            mtime: Timestamp::EPOCH,
            links_count: 1,
            blocks: count,
            flags: EXTENTS_FL,
            block: i_block,
            file_acl: 0,
            xattrs: &[],
        };
        self.inodes[JOURNAL_INO as usize - 1] = record.encode(self.seed.of_inode(JOURNAL_INO));
        i_block
    }

    /// The extent tree of a place, and how many blocks it takes with them.
    fn extents(&mut self, place: &Place, ino: u32) -> ([u8; I_BLOCK], u64) {
        let (root, blocks) = extent::tree(&place.runs, &place.tree, self.seed.of_inode(ino));
        for (address, block) in place.tree.iter().zip(blocks) {
            self.pieces.insert(*address, Piece::Bytes(block.to_vec()));
        }
        let data: u64 = place.runs.iter().map(|run| u64::from(run.len)).sum();
        (root, data + place.tree.len() as u64)
    }

    /// Puts `bytes` where they belong.
    fn bytes(&mut self, bytes: &[u8], place: &Place) {
        for run in &place.runs {
            let part = part(run, bytes.len() as u64);
            let part = bytes[part.start as usize..part.end as usize].to_vec();
            self.pieces.insert(run.start, Piece::Bytes(part));
        }
    }

    /// The node at `i`, with all that belongs to it.
    fn node<C>(&mut self, tree: &Tree<C>, nodes: &Nodes, i: usize, place: &Place) {
        let (node, ino): (&Node, u32) = (&nodes.list[i], Nodes::ino(i));
        let inode = node.id.map(|id| (id, tree.inode(id)));
        let lost_and_found = Stat { mode: 0o700, ..Stat::IMPLIED_DIR };
        let stat = inode.map_or(lost_and_found, |(_, inode)| inode.stat);
        let file_type = inode.map_or(FileType::Dir, |(_, inode)| inode.kind.file_type());
        let mut record = InodeRecord {
            mode: file_type.mode_bits() | stat.mode & 0o7777,
            uid: stat.uid,
            gid: stat.gid,
            size: node.size,
            mtime: stat.mtime,
            links_count: node.nlink as u16,
            blocks: 0,
            flags: EXTENTS_FL,
            block: [0; I_BLOCK],
            file_acl: 0,
            xattrs: &node.xattrs.inode,
        };
        match inode.map(|(id, inode)| (id, &inode.kind)) {
            None | Some((_, Kind::Dir(_))) => {
                self.bytes(
                    &dirent::blocks(&nodes.entries(tree, i), self.seed.of_inode(ino)),
                    place,
                );
                self.dirs[((ino - 1) / self.inodes_per_group) as usize] += 1;
            }
            Some((id, Kind::File(_) | Kind::LowerLink(_))) => {
                for run in &place.runs {
                    self.pieces.insert(run.start, Piece::Content(id, part(run, node.size)));
                }
            }
            Some((_, Kind::Symlink(target))) if target.len() < I_BLOCK => {
                record.flags = 0;
                record.block[..target.len()].copy_from_slice(target);
            }
            Some((_, Kind::Symlink(target))) => self.bytes(target, place),
            Some((_, Kind::Char(rdev) | Kind::Block(rdev))) => {
                record.flags = 0;
                // Small numbers have an older field of their own.
                let (major, minor) = (rdev.major(), rdev.minor());
                let small = major < 256 && minor < 256;
                let (at, dev) = if small { (0, major << 8 | minor) } else { (4, rdev.encode()) };
                record.block[at..at + 4].copy_from_slice(&dev.to_le_bytes());
            }
            // A whiteout is the device 0:0.
            Some((_, Kind::Whiteout | Kind::Fifo | Kind::Socket)) => record.flags = 0,
        }
        if record.flags == EXTENTS_FL {
            (record.block, record.blocks) = self.extents(place, ino);
        }
        if let (Some(address), Some(block)) = (place.xattrs, &node.xattrs.block) {
            let mut block = block.clone();
            xattr::sign(&mut block, address, self.seed);
            self.pieces.insert(address, Piece::Bytes(block.to_vec()));
            record.file_acl = address;
            record.blocks += 1;
        }
        self.inodes[ino as usize - 1] = record.encode(self.seed.of_inode(ino));
    }
}

/// The bytes of a file of `size` bytes that lie in `run`.
fn part(run: &Run, size: u64) -> Range<u64> {
    let at = |block: u64| block * BLOCK as u64;
    at(run.at.into())..at(u64::from(run.at) + u64::from(run.len)).min(size)
}
