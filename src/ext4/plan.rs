//! Inode numbers and block addresses, before a byte is written.

use std::borrow::Cow;
use std::collections::BTreeMap;

use super::dirent::{self, Entry};
use super::disk::{
    BLOCK, EXTENTS_FL, FIRST_INO, I_BLOCK, INODE_SIZE, InodeRecord, JOURNAL_INO, ROOT_INO, Seed,
    Superblock,
};
use super::extent::{self, MAX_RUN, Run};
use super::geometry::Geometry;
use super::xattr::{self, XattrError};
use super::{Error, Options, journal};
use crate::tree::{Dir, Inode, InodeId, Kind, Name, Stat, Timestamp, Tree, Xattrs};

const MAX_LINKS: u32 = 65_000;
const LOST_AND_FOUND: &[u8] = b"lost+found";

/// A file system, decided.
pub struct Plan<'t> {
    pub geometry: Geometry,
    pub seed: Seed,
    pub superblock: Superblock,
    /// Inode records from number 1 on.
    pub inodes: Vec<[u8; INODE_SIZE]>,
    /// What lies outside of the fixed parts, by block; the rest is zero.
    pub pieces: BTreeMap<u32, Cow<'t, [u8]>>,
    /// Blocks taken in each group, the fixed ones included.
    pub used: Vec<u32>,
    /// Directories in each group.
    pub dirs: Vec<u16>,
}

/// An inode of the tree, numbered.
struct Node {
    id: Option<InodeId>,
    parent: u32,
    nlink: u32,
}

impl<'t> Plan<'t> {
    pub fn new(tree: &'t Tree<Vec<u8>>, options: &Options) -> Result<Self, Error> {
        let (nodes, numbers) = number(tree)?;
        let last_ino = FIRST_INO + nodes.len() as u32 - 2;
        let full = |least| Error::Full { size: options.size, least };
        let geometry = Geometry::new(options.size, last_ino)
            .ok_or_else(|| full(u64::from(last_ino) * 16384))?;
        let mut derived = blake3::Hasher::new_derive_key("rootfs-compile upper uuid");
        derived.update(&options.seed).update(&options.size.to_le_bytes());
        let mut ids = [0; 32];
        derived.finalize_xof().fill(&mut ids);
        let (mut uuid, mut hash_seed) = ([0; 16], [0; 16]);
        uuid.copy_from_slice(&ids[..16]);
        hash_seed.copy_from_slice(&ids[16..]);
        uuid[6] = uuid[6] & 0x0f | 0x80;
        uuid[8] = uuid[8] & 0x3f | 0x80;

        let mut builder = Builder {
            seed: Seed::of_file_system(&uuid),
            allocator: Allocator::new(&geometry),
            inodes: vec![[0; INODE_SIZE]; last_ino as usize],
            pieces: BTreeMap::new(),
            dirs: vec![0; geometry.groups as usize],
            geometry,
        };
        let journal_blocks = journal::blocks(builder.geometry.blocks);
        let journal_i_block = builder.journal(journal_blocks, &uuid);
        for (i, node) in nodes.iter().enumerate() {
            let ino = if i == 0 { ROOT_INO } else { FIRST_INO + i as u32 - 1 };
            builder.node(tree, &numbers, node, ino)?;
        }

        let Builder { geometry, seed, allocator, inodes, pieces, dirs } = builder;
        if allocator.missing > 0 {
            let least = options.size + (allocator.missing + allocator.missing / 32) * BLOCK as u64;
            return Err(full(least.next_multiple_of(1 << 20)));
        }
        let used = allocator.used;
        let free = (0..geometry.groups).map(|g| geometry.blocks_in(g) - used[g as usize]).sum();
        let superblock = Superblock {
            inodes_count: geometry.inodes(),
            blocks_count: geometry.blocks,
            free_blocks_count: free,
            free_inodes_count: geometry.inodes() - last_ino,
            blocks_per_group: super::geometry::BLOCKS_PER_GROUP,
            inodes_per_group: geometry.inodes_per_group,
            uuid,
            hash_seed,
            journal_i_block,
            journal_size: u64::from(journal_blocks) * BLOCK as u64,
        };
        Ok(Self { geometry, seed, superblock, inodes, pieces, used, dirs })
    }
}

/// All inodes that the root leads to, and the number of each: the root first,
/// then lost+found, which e2fsck wants.
fn number(tree: &Tree<Vec<u8>>) -> Result<(Vec<Node>, Vec<u32>), Error> {
    let shown = |id| tree.path_of(id).map_or_else(String::new, |path| path.to_string());
    let mut numbers = vec![0u32; tree.len()];
    let mut nodes = vec![
        Node { id: Some(InodeId::ROOT), parent: ROOT_INO, nlink: 2 },
        Node { id: None, parent: ROOT_INO, nlink: 2 },
    ];
    let root = tree.dir(InodeId::ROOT).expect("the root is a directory");
    if root.entries.contains_key(LOST_AND_FOUND) {
        nodes.pop();
    } else {
        nodes[0].nlink += 1;
    }
    numbers[0] = ROOT_INO;
    let position = |ino: u32| if ino == ROOT_INO { 0 } else { (ino - FIRST_INO + 1) as usize };
    let mut dirs = vec![InodeId::ROOT];
    while let Some(id) = dirs.pop() {
        let parent = numbers[id.0 as usize];
        let mut subdirs = Vec::new();
        for child in tree.dir(id).expect("only directories are pushed").entries.values() {
            let is_dir = tree.dir(*child).is_some();
            let known = numbers[child.0 as usize];
            if known != 0 {
                if is_dir {
                    return Err(Error::DirLinked(shown(*child)));
                }
                nodes[position(known)].nlink += 1;
                continue;
            }
            numbers[child.0 as usize] = FIRST_INO + nodes.len() as u32 - 1;
            nodes.push(Node { id: Some(*child), parent, nlink: if is_dir { 2 } else { 1 } });
            if is_dir {
                nodes[position(parent)].nlink += 1;
                subdirs.push(*child);
            }
        }
        dirs.extend(subdirs.into_iter().rev());
    }
    for node in &mut nodes {
        let is_dir = node.id.is_none_or(|id| tree.dir(id).is_some());
        if node.nlink > MAX_LINKS {
            if !is_dir {
                let path = node.id.map_or_else(String::new, shown);
                return Err(Error::Links { path, links: node.nlink });
            }
            // What dir_nlink means: too many to count.
            node.nlink = 1;
        }
    }
    // A file system without lost+found still takes its number.
    if nodes.len() == 1 {
        nodes.push(Node { id: None, parent: ROOT_INO, nlink: 2 });
    }
    Ok((nodes, numbers))
}

/// Hands out blocks in ascending order, past the fixed parts.
struct Allocator {
    lens: Vec<u32>,
    used: Vec<u32>,
    group: usize,
    /// Blocks that there were none left for.
    missing: u64,
}

impl Allocator {
    fn new(geometry: &Geometry) -> Self {
        let used = (0..geometry.groups).map(|g| geometry.fixed_blocks(g)).collect();
        let lens = (0..geometry.groups).map(|g| geometry.blocks_in(g)).collect();
        Self { used, lens, group: 0, missing: 0 }
    }

    fn take(&mut self, mut len: u32) -> Vec<Run> {
        let mut runs: Vec<Run> = Vec::new();
        while len > 0 {
            let Some(total) = self.lens.get(self.group) else {
                self.missing += u64::from(len);
                return runs;
            };
            let used = &mut self.used[self.group];
            let take = len.min(total - *used);
            if take > 0 {
                let start = self.group as u32 * super::geometry::BLOCKS_PER_GROUP + *used;
                match runs.last_mut() {
                    Some(last) if last.start + last.len == start && last.len + take <= MAX_RUN => {
                        last.len += take;
                    }
                    _ => runs.push(Run { start, len: take }),
                }
                *used += take;
                len -= take;
            }
            if len > 0 {
                self.group += 1;
            }
        }
        runs
    }
}

struct Builder<'t> {
    geometry: Geometry,
    seed: Seed,
    allocator: Allocator,
    inodes: Vec<[u8; INODE_SIZE]>,
    pieces: BTreeMap<u32, Cow<'t, [u8]>>,
    dirs: Vec<u16>,
}

impl<'t> Builder<'t> {
    /// Places the journal; returns its `i_block`.
    fn journal(&mut self, blocks: u32, uuid: &[u8; 16]) -> [u8; I_BLOCK] {
        let runs = self.allocator.take(blocks);
        let (i_block, count) = self.extents(&runs, JOURNAL_INO);
        if let Some(first) = runs.first() {
            self.pieces.insert(first.start, journal::superblock(blocks, uuid).to_vec().into());
        }
        let record = InodeRecord {
            mode: 0o100600,
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

    /// The extent tree of `runs`, and how many blocks it takes with them.
    fn extents(&mut self, runs: &[Run], ino: u32) -> ([u8; I_BLOCK], u64) {
        let nodes = self.allocator.take(extent::node_blocks(runs.len()) as u32);
        let addresses: Vec<u32> =
            nodes.iter().flat_map(|run| run.start..run.start + run.len).collect();
        let data: u64 = runs.iter().map(|run| u64::from(run.len)).sum();
        if addresses.len() < extent::node_blocks(runs.len()) {
            // There was no room: the plan ends in an error anyway.
            return ([0; I_BLOCK], data);
        }
        let (root, blocks) = extent::tree(runs, &addresses, self.seed.of_inode(ino));
        for (address, block) in addresses.iter().zip(blocks) {
            self.pieces.insert(*address, block.to_vec().into());
        }
        (root, data + addresses.len() as u64)
    }

    /// Places `bytes` in blocks of their own.
    fn data(&mut self, bytes: Cow<'t, [u8]>, ino: u32) -> ([u8; I_BLOCK], u64) {
        let blocks = bytes.len().div_ceil(BLOCK) as u32;
        let runs = self.allocator.take(blocks);
        let mut at = 0;
        for run in &runs {
            let end = bytes.len().min(at + run.len as usize * BLOCK);
            let part = match &bytes {
                Cow::Borrowed(all) => Cow::Borrowed(&all[at..end]),
                Cow::Owned(all) => Cow::Owned(all[at..end].to_vec()),
            };
            self.pieces.insert(run.start, part);
            at = end;
        }
        self.extents(&runs, ino)
    }

    fn node(
        &mut self,
        tree: &'t Tree<Vec<u8>>,
        numbers: &[u32],
        node: &Node,
        ino: u32,
    ) -> Result<(), Error> {
        let inode: Option<&'t Inode<Vec<u8>>> = node.id.map(|id| tree.inode(id));
        let lost_and_found = Stat { mode: 0o700, ..Stat::IMPLIED_DIR };
        let stat = inode.map_or(lost_and_found, |inode| inode.stat);
        let no_entries = Dir::default();
        let path = || node.id.and_then(|id| tree.path_of(id)).unwrap_or_default().to_string();
        let mut xattrs = inode.map_or_else(Xattrs::default, |inode| inode.xattrs.clone());
        let mut record = InodeRecord {
            mode: inode.map_or(0o040000, |inode| type_bits(&inode.kind)) | stat.mode,
            uid: stat.uid,
            gid: stat.gid,
            size: 0,
            mtime: stat.mtime,
            links_count: node.nlink as u16,
            blocks: 0,
            flags: 0,
            block: [0; I_BLOCK],
            file_acl: 0,
            xattrs: &[],
        };
        match inode.map(|inode| &inode.kind) {
            None | Some(Kind::Dir(_)) => {
                let dir = node.id.and_then(|id| tree.dir(id)).unwrap_or(&no_entries);
                if dir.opaque {
                    xattrs.set(*b"trusted.overlay.opaque", *b"y");
                }
                let mut entries = vec![
                    Entry { name: b".", ino, file_type: 2 },
                    Entry { name: b"..", ino: node.parent, file_type: 2 },
                ];
                if ino == ROOT_INO && !dir.entries.contains_key(LOST_AND_FOUND) {
                    entries.push(Entry { name: LOST_AND_FOUND, ino: FIRST_INO, file_type: 2 });
                }
                entries.extend(dir.entries.iter().map(|(name, id): (&Name, &InodeId)| Entry {
                    name: name.as_bytes(),
                    ino: numbers[id.0 as usize],
                    file_type: file_type(&tree.inode(*id).kind),
                }));
                let bytes = dirent::blocks(&entries, self.seed.of_inode(ino));
                record.size = bytes.len() as u64;
                record.flags = EXTENTS_FL;
                (record.block, record.blocks) = self.data(bytes.into(), ino);
                let group = (ino - 1) / self.geometry.inodes_per_group;
                self.dirs[group as usize] += 1;
            }
            Some(Kind::File(bytes)) => {
                record.size = bytes.len() as u64;
                record.flags = EXTENTS_FL;
                (record.block, record.blocks) = self.data(Cow::Borrowed(bytes), ino);
            }
            Some(Kind::Symlink(target)) => {
                if target.is_empty() || target.len() >= BLOCK || target.contains(&0) {
                    return Err(Error::Symlink(path()));
                }
                record.size = target.len() as u64;
                if target.len() < I_BLOCK {
                    record.block[..target.len()].copy_from_slice(target);
                } else {
                    record.flags = EXTENTS_FL;
                    (record.block, record.blocks) = self.data(Cow::Borrowed(target), ino);
                }
            }
            Some(Kind::Char(rdev) | Kind::Block(rdev)) => {
                // Small numbers have an older field of their own.
                let (major, minor) = (rdev.major(), rdev.minor());
                let small = major < 256 && minor < 256;
                let (at, dev) = if small { (0, major << 8 | minor) } else { (4, rdev.encode()) };
                record.block[at..at + 4].copy_from_slice(&dev.to_le_bytes());
            }
            Some(Kind::Whiteout | Kind::Fifo | Kind::Socket) => {}
            Some(Kind::LowerLink(_)) => return Err(Error::LowerLink(path())),
        }
        let mut placed = xattr::place(&xattrs).map_err(|error| match error {
            XattrError::Name(name) => Error::XattrName { path: path(), name },
            XattrError::Acl => Error::Acl(path()),
            XattrError::Full => Error::Xattrs(path()),
        })?;
        if let Some(block) = &mut placed.block
            && let [run] = self.allocator.take(1)[..]
        {
            xattr::sign(block, run.start, self.seed);
            self.pieces.insert(run.start, block.to_vec().into());
            record.file_acl = run.start;
            record.blocks += 1;
        }
        record.xattrs = &placed.inode;
        self.inodes[ino as usize - 1] = record.encode(self.seed.of_inode(ino));
        Ok(())
    }
}

fn type_bits<C>(kind: &Kind<C>) -> u16 {
    match kind {
        Kind::Fifo => 0o010000,
        Kind::Char(_) | Kind::Whiteout => 0o020000,
        Kind::Dir(_) => 0o040000,
        Kind::Block(_) => 0o060000,
        Kind::File(_) | Kind::LowerLink(_) => 0o100000,
        Kind::Symlink(_) => 0o120000,
        Kind::Socket => 0o140000,
    }
}

/// `file_type` of a directory entry.
fn file_type<C>(kind: &Kind<C>) -> u8 {
    match kind {
        Kind::File(_) | Kind::LowerLink(_) => 1,
        Kind::Dir(_) => 2,
        Kind::Char(_) | Kind::Whiteout => 3,
        Kind::Block(_) => 4,
        Kind::Fifo => 5,
        Kind::Socket => 6,
        Kind::Symlink(_) => 7,
    }
}
