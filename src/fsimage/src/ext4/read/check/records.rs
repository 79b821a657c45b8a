//! Inodes with all that belongs to them, encoded again and compared.

use crate::ext4::dirent::{self, Dirent};
use crate::ext4::disk::{BLOCK, EXTENTS_FL, FIRST_INO, I_BLOCK, InodeRecord, JOURNAL_INO};
use crate::ext4::extent::{self, Run};
use crate::ext4::limits::MAX_FILE;
use crate::ext4::read::check::upper::{Upper, field, same_record};
use crate::ext4::read::content::FileData;
use crate::ext4::read::error::{Result, bad};
use crate::ext4::read::inode::RawInode;
use crate::ext4::read::mapping::Mapping;
use crate::ext4::{journal, xattr};
use crate::tree::arena::DirId;
use crate::tree::file_type::FileType;
use crate::tree::inode::{InodeId, Kind, Timestamp};
use crate::tree::name::Name;

/// Fields of `struct ext4_inode` by their offsets, for messages.
const FIELDS: [(usize, &str); 29] = [
    (0x00, "i_mode"),
    (0x02, "i_uid"),
    (0x04, "i_size_lo"),
    (0x08, "i_atime"),
    (0x0c, "i_ctime"),
    (0x10, "i_mtime"),
    (0x14, "i_dtime"),
    (0x18, "i_gid"),
    (0x1a, "i_links_count"),
    (0x1c, "i_blocks_lo"),
    (0x20, "i_flags"),
    (0x24, "i_version"),
    (0x28, "i_block"),
    (0x64, "i_generation"),
    (0x68, "i_file_acl_lo"),
    (0x6c, "i_size_high"),
    (0x70, "i_obso_faddr"),
    (0x74, "i_blocks_high"),
    (0x76, "i_file_acl_high"),
    (0x78, "i_uid_high"),
    (0x7c, "i_checksum_lo"),
    (0x7e, "i_reserved"),
    (0x80, "i_extra_isize"),
    (0x82, "i_checksum_hi"),
    (0x84, "i_ctime_extra"),
    (0x88, "i_mtime_extra"),
    (0x8c, "i_atime_extra"),
    (0x90, "i_crtime"),
    (0xa0, "the xattrs in the inode"),
];

/// `i_links_count` has this for more directories than it can count.
const MAX_LINKS: u32 = 65_000;

impl Upper<'_> {
    /// The inode `ino`, which is `id` in the tree.
    pub(super) fn record(&mut self, ino: u32, id: InodeId) -> Result<()> {
        let raw = self.inodes.get(ino)?;
        let inode = self.walked.tree.inode(id);
        let placed = xattr::place(&inode.xattrs)
            .map_err(|_| bad(ino, "its xattrs are not such as a build writes"))?;
        let (size, block) = shape(&raw, &inode.kind)?;
        let mut record = InodeRecord {
            mode: inode.kind.file_type().mode_bits() | inode.stat.mode,
            uid: inode.stat.uid,
            gid: inode.stat.gid,
            size,
            mtime: inode.stat.mtime,
            links_count: links_count(self.walked.links[id.0 as usize]),
            blocks: 0,
            flags: 0,
            block: block.unwrap_or([0; I_BLOCK]),
            file_acl: 0,
            xattrs: &placed.inode,
        };
        let dir = self.walked.tree.dir_id(id);
        let is_link = matches!(inode.kind, Kind::Symlink(_));
        if block.is_none() {
            let mapping = self.content(&raw, size, &mut record)?;
            if let Some(dir) = dir {
                self.directory(&raw, dir, &mapping)?;
            } else if is_link {
                self.target(&raw, id, &mapping)?;
            }
        }
        if let Some(mut block) = placed.block {
            // Where it is, the record says; what it must be, follows from there.
            record.file_acl = self.xattr_block(&raw, &mut block)?;
            record.blocks += 1;
        }
        same(&raw, &record)
    }

    /// Checks the blocks that hold `size` bytes of content; fills what of `record`
    /// follows from them.
    fn content(
        &mut self,
        raw: &RawInode,
        size: u64,
        record: &mut InodeRecord<'_>,
    ) -> Result<Mapping> {
        let ino = raw.ino;
        if raw.flags() != EXTENTS_FL {
            return Err(bad(ino, format!("i_flags is {:#x}, not {EXTENTS_FL:#x}", raw.flags())));
        }
        let mapping = self.reader.mapping(raw)?;
        let blocks = size.div_ceil(BLOCK as u64);
        let past = mapping.runs.last().is_some_and(|run| run.file_block + run.len > blocks);
        if past || !mapping.unwritten.is_empty() {
            return Err(bad(ino, "it has blocks behind its end, or such as were never written"));
        }
        let packed = extent::node_blocks(mapping.runs.len()) == mapping.nodes.len();
        if !packed {
            return Err(bad(ino, "its extent tree is larger than a build makes it"));
        }
        // The reader's bounds keep all of them below 2³².
        let run = |run: &crate::ext4::read::mapping::Run| Run {
            at: run.file_block as u32,
            start: run.start as u32,
            len: run.len as u32,
        };
        let runs: Vec<Run> = mapping.runs.iter().map(run).collect();
        let mut nodes = mapping.nodes.clone();
        // Leaves come first, as the writer has them.
        nodes.sort_by_key(|(depth, _)| *depth);
        let addresses: Vec<u32> = nodes.iter().map(|(_, block)| *block as u32).collect();
        let (root, wanted) = extent::tree(&runs, &addresses, raw.seed);
        for (address, wanted) in addresses.iter().zip(&wanted) {
            self.same_block(ino, u64::from(*address), wanted, "the extent tree's block")?;
        }
        record.flags = EXTENTS_FL;
        record.block = root;
        record.blocks = mapping.blocks();
        for run in &mapping.runs {
            self.outside_fixed(ino, run.start, run.len)?;
        }
        for (_, block) in &mapping.nodes {
            self.outside_fixed(ino, *block, 1)?;
        }
        Ok(mapping)
    }

    /// Compares the blocks of a directory with what its entries make.
    fn directory(&self, raw: &RawInode, dir: DirId, mapping: &Mapping) -> Result<()> {
        let walked = &self.walked;
        let parent = walked.parents[dir.inode().0 as usize];
        let mut entries = vec![
            Dirent { name: b".", ino: raw.ino, file_type: FileType::Dir },
            Dirent { name: b"..", ino: parent, file_type: FileType::Dir },
        ];
        entries.extend(walked.tree[dir].entries.iter().map(|(name, id)| Dirent {
            name: Name::as_bytes(name),
            ino: walked.inos[id.0 as usize],
            file_type: walked.tree.inode(*id).kind.file_type(),
        }));
        let wanted = dirent::blocks(&entries, raw.seed);
        if wanted.len() as u64 != raw.size() {
            let text =
                format!("{} bytes of directory, where {} are enough", raw.size(), wanted.len());
            return Err(bad(raw.ino, text));
        }
        self.same_content(raw.ino, mapping, &wanted, "the directory's block")
    }

    /// Compares the block of a long link's target, whose rest is zero.
    fn target(&self, raw: &RawInode, id: InodeId, mapping: &Mapping) -> Result<()> {
        let Kind::Symlink(target) = &self.walked.tree.inode(id).kind else { return Ok(()) };
        let mut wanted = target.to_vec();
        wanted.resize(BLOCK, 0);
        self.same_content(raw.ino, mapping, &wanted, "the target's block")
    }

    fn same_content(&self, ino: u32, mapping: &Mapping, wanted: &[u8], what: &str) -> Result<()> {
        let blocks = mapping.runs.iter().flat_map(|run| run.start..run.start + run.len);
        let mut count = 0;
        for (block, wanted) in blocks.zip(wanted.chunks(BLOCK)) {
            self.same_block(ino, block, wanted, what)?;
            count += 1;
        }
        if count * BLOCK != wanted.len() {
            return Err(bad(ino, format!("{} bytes in {count} blocks", wanted.len())));
        }
        Ok(())
    }

    pub(super) fn same_block(&self, ino: u32, block: u64, wanted: &[u8], what: &str) -> Result<()> {
        let mut found = [0; BLOCK];
        self.reader.read(block * BLOCK as u64, &mut found)?;
        same_record(&found, wanted, |at, byte| {
            bad(
                ino,
                format!("{what} {block} is not as a build writes it: byte {at:#x} is {byte:#04x}"),
            )
        })
    }

    /// Checks the block of xattrs of an inode that has too many; returns its address.
    fn xattr_block(&mut self, raw: &RawInode, wanted: &mut [u8; BLOCK]) -> Result<u32> {
        let (ino, address) = (raw.ino, raw.file_acl());
        let address32 = u32::try_from(address).ok().filter(|address| *address > 0);
        let address32 = address32.ok_or_else(|| bad(ino, "it has no block of xattrs"))?;
        xattr::sign(wanted, address32, self.seed);
        self.same_block(ino, address, wanted, "the block of xattrs")?;
        self.claim(ino, address, 1)?;
        self.outside_fixed(ino, address, 1)?;
        Ok(address32)
    }

    /// The journal, which no name leads to.
    pub(super) fn journal(&mut self) -> Result<()> {
        let ino = JOURNAL_INO;
        if self.walked.ids.contains_key(&ino) {
            return Err(bad(ino, "a name leads to the journal"));
        }
        let raw = self.inodes.get(ino)?;
        let blocks = journal::blocks(self.geometry.blocks);
        let size = u64::from(blocks) * BLOCK as u64;
        let mut record = InodeRecord {
            mode: FileType::Regular.mode_bits() | 0o600,
            uid: 0,
            gid: 0,
            size,
            mtime: Timestamp::EPOCH,
            links_count: 1,
            blocks: 0,
            flags: EXTENTS_FL,
            block: [0; I_BLOCK],
            file_acl: 0,
            xattrs: &[],
        };
        let mapping = self.content(&raw, size, &mut record)?;
        let written: u64 = mapping.runs.iter().map(|run| run.len).sum();
        let Some(first) = mapping.runs.first().filter(|_| written == u64::from(blocks)) else {
            return Err(bad(ino, format!("a journal with {written} of {blocks} blocks")));
        };
        let wanted = journal::superblock(blocks, &self.superblock.uuid);
        self.same_block(ino, first.start, &wanted, "the journal's superblock in block")?;
        for run in &mapping.runs {
            self.claim(ino, run.start, run.len)?;
        }
        for (_, block) in &mapping.nodes {
            self.claim(ino, *block, 1)?;
        }
        same(&raw, &record)?;
        if self.superblock.journal_i_block != record.block || self.superblock.journal_size != size {
            return Err(bad(ino, "the superblock has another copy of the journal's i_block"));
        }
        Ok(())
    }

    /// Refuses blocks that hold copies of the superblock, bitmaps or inode tables.
    fn outside_fixed(&self, ino: u32, start: u64, len: u64) -> Result<()> {
        let per_group = u64::from(crate::ext4::geometry::BLOCKS_PER_GROUP);
        for group in start / per_group..=(start + len - 1) / per_group {
            // The reader's bounds keep the number of the last block below 2³².
            let fixed = u64::from(self.geometry.fixed_blocks(group as u32));
            let first = start.max(group * per_group);
            if first < group * per_group + fixed {
                let text = format!("block {first} belongs to the tables of group {group}");
                return Err(bad(ino, text));
            }
        }
        Ok(())
    }
}

/// The size of an inode's content, and its `i_block` unless that maps blocks.
fn shape(raw: &RawInode, kind: &Kind<FileData>) -> Result<(u64, Option<[u8; I_BLOCK]>)> {
    let mut block = [0; I_BLOCK];
    let size = match kind {
        Kind::Dir(_) => return Ok((raw.size(), None)),
        Kind::File(data) if data.size() > MAX_FILE => {
            return Err(bad(raw.ino, format!("a file of {} bytes", data.size())));
        }
        Kind::File(data) => return Ok((data.size(), None)),
        Kind::Symlink(target) if target.len() >= I_BLOCK => {
            return Ok((target.len() as u64, None));
        }
        Kind::Symlink(target) => {
            block[..target.len()].copy_from_slice(target);
            target.len() as u64
        }
        Kind::Char(rdev) | Kind::Block(rdev) => {
            let small = rdev.major() < 256 && rdev.minor() < 256;
            let old = rdev.major() << 8 | rdev.minor();
            let (at, dev) = if small { (0, old) } else { (4, rdev.encode()) };
            block[at..at + 4].copy_from_slice(&dev.to_le_bytes());
            0
        }
        Kind::Fifo | Kind::Socket | Kind::Whiteout | Kind::LowerLink(_) => 0,
    };
    Ok((size, Some(block)))
}

fn links_count(links: u32) -> u16 {
    if links > MAX_LINKS { 1 } else { links as u16 }
}

/// Compares an inode's bytes with what `wanted` makes.
fn same(raw: &RawInode, wanted: &InodeRecord<'_>) -> Result<()> {
    let wanted = wanted.encode(raw.seed);
    same_record(&raw.bytes, &wanted, |at, byte| {
        let (field, wanted) = (field(&FIELDS, at), wanted[at]);
        bad(
            raw.ino,
            format!(
                "{field} is not as a build writes it: byte {at:#x} is {byte:#04x}, not {wanted:#04x}"
            ),
        )
    })
}

const _: () = assert!(FIRST_INO > JOURNAL_INO);
