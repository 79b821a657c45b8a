//! Finds the records of an upper with one block group, and signs them again after
//! they were changed, so that a change is not seen by its checksum alone.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;

const BLOCK: u64 = 4096;
const DESC: u64 = BLOCK;
const INODE: u64 = 256;

/// What a checksum belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Superblock,
    Descriptor,
    BlockBitmap,
    InodeBitmap,
    Inode,
    Directory(u32),
    Extents(u32),
    Xattrs,
    /// A block without a checksum: the target of a link, or the journal's first.
    Plain,
}

/// Where metadata lie, and what signs them.
pub(crate) struct Record {
    pub range: Range<u64>,
    pub kind: Kind,
}

/// An image in memory and in a file.
pub(crate) struct Image {
    pub file: File,
    pub bytes: Vec<u8>,
    pub records: Vec<Record>,
}

/// The kernel's CRC-32C, which is not inverted at either end.
fn crc(seed: u32, bytes: &[u8]) -> u32 {
    !crc32c::crc32c_append(!seed, bytes)
}

fn u32_at(bytes: &[u8], at: u64) -> u32 {
    u32::from_le_bytes(*bytes[at as usize..].first_chunk().unwrap())
}

impl Image {
    /// `content` are byte ranges of what regular files hold.
    pub(crate) fn new(file: File, content: &[Range<u64>]) -> Self {
        let mut bytes = vec![0; file.metadata().unwrap().len() as usize];
        file.read_exact_at(&mut bytes, 0).unwrap();
        let mut image = Self { file, bytes, records: Vec::new() };
        let [block_bitmap, inode_bitmap, table] =
            [0, 4, 8].map(|at| u64::from(u32_at(&image.bytes, DESC + at)) * BLOCK);
        let sb = 1024;
        let inodes = u32_at(&image.bytes, sb) - u32_at(&image.bytes, sb + 0x10);
        let per_group = u32_at(&image.bytes, sb + 0x28);
        let end = table + u64::from(inodes) * INODE;
        let tables = table + u64::from(per_group) * INODE;
        let mut add = |range, kind| image.records.push(Record { range, kind });
        add(sb..sb + 1024, Kind::Superblock);
        add(DESC..DESC + BLOCK, Kind::Descriptor);
        add(block_bitmap..block_bitmap + BLOCK, Kind::BlockBitmap);
        add(inode_bitmap..inode_bitmap + BLOCK, Kind::InodeBitmap);
        add(table..end.next_multiple_of(BLOCK), Kind::Inode);
        for at in (tables..image.bytes.len() as u64).step_by(BLOCK as usize) {
            let block = &image.bytes[at as usize..][..BLOCK as usize];
            let zero = block.iter().all(|byte| *byte == 0);
            if !zero && !content.iter().any(|range| range.contains(&at)) {
                let kind = kind_of(&image.bytes, at, inodes);
                image.records.push(Record { range: at..at + BLOCK, kind });
            }
        }
        image
    }

    fn put(&mut self, at: u64, bytes: &[u8]) {
        self.bytes[at as usize..][..bytes.len()].copy_from_slice(bytes);
        self.file.write_all_at(bytes, at).unwrap();
    }

    /// Runs `with` while the byte at `at` is `value`, its record signed again if
    /// `signed`, and puts everything back. Nothing is run if signing undoes the change.
    pub(crate) fn changed<T>(
        &mut self,
        at: u64,
        value: u8,
        signed: Option<Kind>,
        with: impl FnOnce(&File) -> T,
    ) -> Option<T> {
        let blocks = [0, DESC, at - at % BLOCK];
        let saved = blocks.map(|at| self.bytes[at as usize..][..BLOCK as usize].to_vec());
        self.put(at, &[value]);
        if let Some(kind) = signed {
            self.sign(at, kind);
        }
        let same =
            |(at, block): (&u64, &Vec<u8>)| self.bytes[*at as usize..][..block.len()] == block[..];
        let undone = blocks.iter().zip(&saved).all(same);
        let result = (!undone).then(|| with(&self.file));
        for (at, block) in blocks.iter().zip(&saved) {
            self.put(*at, block);
        }
        result
    }

    /// Sets the checksum of the record at `at`, and those that follow from it.
    fn sign(&mut self, at: u64, kind: Kind) {
        let seed = file_system(&self.bytes);
        let block = at - at % BLOCK;
        let whole = self.bytes[block as usize..][..BLOCK as usize].to_vec();
        match kind {
            Kind::Superblock => {
                let sum = crc(!0, &self.bytes[1024..1024 + 0x3fc]);
                self.put(1024 + 0x3fc, &sum.to_le_bytes());
            }
            Kind::Descriptor => self.sign_descriptor(),
            Kind::BlockBitmap => {
                let sum = crc(seed, &whole);
                self.put(DESC + 0x18, &sum.to_le_bytes()[..2]);
                self.sign_descriptor();
            }
            Kind::InodeBitmap => {
                let per_group = u32_at(&self.bytes, 1024 + 0x28) as usize;
                let sum = crc(seed, &whole[..per_group / 8]);
                self.put(DESC + 0x1a, &sum.to_le_bytes()[..2]);
                self.sign_descriptor();
            }
            Kind::Inode => {
                let start = at - at % INODE;
                let table = u64::from(u32_at(&self.bytes, DESC + 8)) * BLOCK;
                let ino = ((start - table) / INODE) as u32 + 1;
                let mut record = self.bytes[start as usize..][..INODE as usize].to_vec();
                record[0x7c..0x7e].fill(0);
                record[0x82..0x84].fill(0);
                let seed = crc(crc(seed, &ino.to_le_bytes()), &record[0x64..0x68]);
                let sum = crc(seed, &record).to_le_bytes();
                self.put(start + 0x7c, &sum[..2]);
                self.put(start + 0x82, &sum[2..]);
            }
            Kind::Directory(ino) => {
                let sum = crc(of_inode(seed, ino), &whole[..4084]);
                self.put(block + 4092, &sum.to_le_bytes());
            }
            Kind::Extents(ino) => {
                let sum = crc(of_inode(seed, ino), &whole[..4092]);
                self.put(block + 4092, &sum.to_le_bytes());
            }
            Kind::Xattrs => {
                let mut whole = whole;
                whole[0x10..0x14].fill(0);
                let sum = crc(crc(seed, &(block / BLOCK).to_le_bytes()), &whole);
                self.put(block + 0x10, &sum.to_le_bytes());
            }
            Kind::Plain => {}
        }
    }

    fn sign_descriptor(&mut self) {
        let seed = crc(file_system(&self.bytes), &[0; 4]);
        let mut desc = self.bytes[DESC as usize..][..32].to_vec();
        desc[0x1e..].fill(0);
        let sum = crc(seed, &desc);
        self.put(DESC + 0x1e, &sum.to_le_bytes()[..2]);
    }
}

fn file_system(bytes: &[u8]) -> u32 {
    crc(!0, &bytes[1024 + 0x68..1024 + 0x78])
}

fn of_inode(seed: u32, ino: u32) -> u32 {
    crc(crc(seed, &ino.to_le_bytes()), &[0; 4])
}

/// What the block at `at` is, by its checksum.
fn kind_of(bytes: &[u8], at: u64, inodes: u32) -> Kind {
    let block = &bytes[at as usize..][..BLOCK as usize];
    let seed = file_system(bytes);
    let last = u32_at(block, 4092);
    if u32_at(block, 0) == 0xea02_0000 {
        return Kind::Xattrs;
    }
    for ino in 1..=inodes {
        let seed = of_inode(seed, ino);
        if block[..2] == [0x0a, 0xf3] && crc(seed, &block[..4092]) == last {
            return Kind::Extents(ino);
        }
        if block[4091] == 0xde && crc(seed, &block[..4084]) == last {
            return Kind::Directory(ino);
        }
    }
    Kind::Plain
}
