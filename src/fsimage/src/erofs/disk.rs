//! The on-disk structures of EROFS, little-endian throughout.
//!
//! Layouts, bits and limits are those of `fs/erofs/erofs_fs.h` in Linux 6.12. Writers and reader share
//! this file, and of the plan which form of image it is; nothing else.

use crate::fields::Fields;
use crate::tree::file_type::FileType;
use crate::tree::xattrs::OVERLAY_OPAQUE;
use crate::units::{BLOCK_BITS, BLOCK_SIZE};

/// Byte offset of the superblock on its device.
pub const SUPER_OFFSET: usize = 1024;
/// Bytes of the superblock.
pub const SUPER_SIZE: usize = 128;
/// A file system's first bytes, up to the end of the block that has the
/// superblock: the checksum is over that block, from the superblock on.
pub const HEAD_SIZE: usize = SUPER_OFFSET + BLOCK_SIZE as usize;
const _: () = assert!(BLOCK_SIZE as usize <= SUPER_OFFSET, "the superblock begins a block");
/// The first four bytes of every EROFS superblock (`EROFS_SUPER_MAGIC_V1`).
pub const MAGIC: u32 = 0xe0f5_e1e2;

/// The superblock's checksum is present.
pub const COMPAT_SB_CHKSUM: u32 = 0x1;
/// Inode times are modification times.
pub const COMPAT_MTIME: u32 = 0x2;
/// Some files are addressed by chunks.
pub const INCOMPAT_CHUNKED_FILE: u32 = 0x4;
/// There is a device table.
pub const INCOMPAT_DEVICE_TABLE: u32 = 0x8;

/// Unit of a nid, in bytes.
pub const NID_SLOT: u64 = 32;
/// Bytes of a compact inode.
pub const COMPACT_SIZE: u64 = 32;
/// Bytes of an extended inode.
pub const EXTENDED_SIZE: u64 = 64;
/// Bytes of a slot of the device table.
pub const DEVICE_SLOT_SIZE: u64 = 128;
/// Bytes of a directory entry without its name.
pub const DIRENT_SIZE: usize = 12;
/// Bytes of the header of an inode's xattrs.
pub const XATTR_HEADER_SIZE: u64 = 12;
/// Bytes of an xattr's entry before its name and value.
pub const XATTR_ENTRY_SIZE: u64 = 4;
/// Bytes of a chunk index.
pub const CHUNK_INDEX_SIZE: u64 = 8;

/// How the content of an inode lies: bits 1 to 3 of `i_format`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum Layout {
    /// Whole blocks.
    FlatPlain = 0,
    /// Whole blocks, and a tail behind the inode.
    FlatInline = 2,
    /// Chunks, each with an index behind the inode.
    ChunkBased = 4,
}

impl Layout {
    fn from_bits(bits: u16) -> Option<Self> {
        [Self::FlatPlain, Self::FlatInline, Self::ChunkBased]
            .into_iter()
            .find(|known| *known as u16 == bits)
    }
}

/// Why bytes are not those of an inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadInode {
    /// They end before the inode does.
    #[error("past the end of the file")]
    Cut,
    /// No layout that is read here has this number.
    #[error("layout {0} is not known")]
    Layout(u16),
    /// The mode has the bits of no file type.
    #[error("mode {0:o} is not a file type")]
    Mode(u16),
}

/// In a chunk-based inode's `i_u`: low five bits are log2 of blocks in a chunk.
pub const CHUNK_BITS_MASK: u32 = 0x1f;
/// In a chunk-based inode's `i_u`: indexes have 8 bytes.
pub const CHUNK_INDEXES: u32 = 0x20;
/// Block address of a hole.
pub const NULL_ADDR: u32 = u32::MAX;

/// Xattrs by which a layer's own EROFS keeps what only the merge needs; `tree::journal` and
/// `tree::xattrs` have two more.
pub const MARK_OPAQUE: &[u8] = OVERLAY_OPAQUE;
/// A directory that no entry describes.
pub const MARK_IMPLIED: &[u8] = b"trusted.rootfs-compile.implied";
/// A hard link to this path of lower layers.
pub const MARK_LOWER_LINK: &[u8] = b"trusted.rootfs-compile.lower-link";
/// A character device 0:0 that is meant as a device, and not as a whiteout.
pub const MARK_DEVICE: &[u8] = b"trusted.rootfs-compile.device";

/// The superblock: 128 bytes at offset 1024.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SuperBlock {
    /// Raw CRC32C (no final inversion) from offset 1024 to the block's end,
    /// this field taken as zero.
    pub checksum: u32,
    /// Features that a reader may ignore: bits `COMPAT_*`.
    pub feature_compat: u32,
    /// log2 of the block size.
    pub blkszbits: u8,
    /// Nid of the root directory.
    pub root_nid: u16,
    /// How many inodes.
    pub inos: u64,
    /// mtime of all compact inodes: seconds, two's complement.
    pub epoch: u64,
    /// mtime of all compact inodes: nanoseconds.
    pub fixed_nsec: u32,
    /// Blocks of the primary device.
    pub blocks: u32,
    /// Block where nids count from.
    pub meta_blkaddr: u32,
    /// Block where shared xattr ids count from.
    pub xattr_blkaddr: u32,
    /// UUID of the file system.
    pub uuid: [u8; 16],
    /// Features that a reader must know: bits `INCOMPAT_*`.
    pub feature_incompat: u32,
    /// How many slots the device table has.
    pub extra_devices: u16,
    /// Offset of the device table in units of 128 bytes.
    pub devt_slotoff: u16,
}

/// What is wrong with a superblock, or with the device table that it names.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct BadSuperBlock(pub(super) String);

impl SuperBlock {
    /// The bytes on disk.
    pub fn encode(&self) -> [u8; SUPER_SIZE] {
        let mut b = [0; SUPER_SIZE];
        b[0..4].copy_from_slice(&MAGIC.to_le_bytes());
        b[4..8].copy_from_slice(&self.checksum.to_le_bytes());
        b[8..12].copy_from_slice(&self.feature_compat.to_le_bytes());
        b[12] = self.blkszbits;
        b[14..16].copy_from_slice(&self.root_nid.to_le_bytes());

        b[16..24].copy_from_slice(&self.inos.to_le_bytes());
        b[24..32].copy_from_slice(&self.epoch.to_le_bytes());

        b[32..36].copy_from_slice(&self.fixed_nsec.to_le_bytes());
        b[36..40].copy_from_slice(&self.blocks.to_le_bytes());
        b[40..44].copy_from_slice(&self.meta_blkaddr.to_le_bytes());
        b[44..48].copy_from_slice(&self.xattr_blkaddr.to_le_bytes());

        b[48..64].copy_from_slice(&self.uuid);

        b[80..84].copy_from_slice(&self.feature_incompat.to_le_bytes());
        b[86..88].copy_from_slice(&self.extra_devices.to_le_bytes());
        b[88..90].copy_from_slice(&self.devt_slotoff.to_le_bytes());
        b
    }

    /// The superblock that these bytes are.
    ///
    /// # Errors
    /// When the magic number is another one, a feature is not known, or the size of blocks is
    /// not `BLOCK_SIZE`.
    pub fn decode(bytes: &[u8; SUPER_SIZE]) -> Result<Self, BadSuperBlock> {
        let bad = |what| Err(BadSuperBlock(what));
        let f = Fields(bytes);
        if f.u32(0) != MAGIC {
            return bad(format!("magic is {:#010x}, EROFS has {MAGIC:#010x}", f.u32(0)));
        }
        let feature_incompat = f.u32(80);
        let unknown = feature_incompat & !(INCOMPAT_CHUNKED_FILE | INCOMPAT_DEVICE_TABLE);
        if unknown != 0 {
            return bad(format!("incompatible features {unknown:#x} are not known"));
        }
        if f.u8(90) != 0 {
            return bad(format!("dirblkbits is {}, not 0", f.u8(90)));
        }
        if f.u8(12) != BLOCK_BITS {
            return bad(format!("blkszbits is {}, not {BLOCK_BITS}", f.u8(12)));
        }
        let mut uuid = [0; 16];
        uuid.copy_from_slice(&bytes[48..64]);
        Ok(Self {
            checksum: f.u32(4),
            feature_compat: f.u32(8),
            blkszbits: f.u8(12),
            root_nid: f.u16(14),
            inos: f.u64(16, 20),
            epoch: f.u64(24, 28),
            fixed_nsec: f.u32(32),
            blocks: f.u32(36),
            meta_blkaddr: f.u32(40),
            xattr_blkaddr: f.u32(44),
            uuid,
            feature_incompat,
            extra_devices: f.u16(86),
            devt_slotoff: f.u16(88),
        })
    }

    /// The checksum that belongs into `head`, whatever is there now.
    pub fn checksum_of(head: &[u8; HEAD_SIZE]) -> u32 {
        let mut block = [0; BLOCK_SIZE as usize];
        block.copy_from_slice(&head[SUPER_OFFSET..]);
        block[4..8].fill(0);
        !crc32c::crc32c(&block)
    }

    /// Puts the superblock into `head`, with the checksum of its block.
    pub fn seal(&mut self, head: &mut [u8; HEAD_SIZE]) {
        self.checksum = 0;
        head[SUPER_OFFSET..][..SUPER_SIZE].copy_from_slice(&self.encode());
        self.checksum = Self::checksum_of(head);
        head[SUPER_OFFSET..][..SUPER_SIZE].copy_from_slice(&self.encode());
    }
}

/// One slot of the device table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceSlot {
    /// The layer's diff id, as 64 hex digits.
    pub tag: [u8; 64],
    /// Blocks on the device.
    pub blocks: u32,
    /// Where the device begins when all are strung together, in blocks.
    pub uniaddr: u32,
}

impl DeviceSlot {
    /// The bytes on disk.
    pub fn encode(&self) -> [u8; DEVICE_SLOT_SIZE as usize] {
        let mut b = [0; DEVICE_SLOT_SIZE as usize];
        b[..64].copy_from_slice(&self.tag);
        b[64..68].copy_from_slice(&self.blocks.to_le_bytes());
        b[68..72].copy_from_slice(&self.uniaddr.to_le_bytes());
        b
    }

    /// The slot that `bytes` hold.
    pub fn decode(bytes: &[u8; DEVICE_SLOT_SIZE as usize]) -> Self {
        let f = Fields(bytes);
        let mut tag = [0; 64];
        tag.copy_from_slice(&bytes[..64]);
        Self { tag, blocks: f.u32(64), uniaddr: f.u32(68) }
    }
}

/// An inode, compact (32 bytes) or extended (64).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiskInode {
    /// Whether it has the extended form.
    pub extended: bool,
    /// How its content lies.
    pub layout: Layout,
    /// 0, or 1 + a quarter of the xattr bytes behind their header.
    pub xattr_icount: u16,
    /// With the permissions, `i_mode`.
    pub file_type: FileType,
    /// Permission bits with setuid, setgid and sticky.
    pub permissions: u16,
    /// Compact: below 2³².
    pub size: u64,
    /// Block address, device number or chunk format, by type and layout.
    pub u: u32,
    /// A number for `stat` on 32-bit systems.
    pub ino: u32,
    /// Compact: below 2¹⁶, as is `gid`, and `nlink`.
    pub uid: u32,
    /// Group ID.
    pub gid: u32,
    /// Extended only: two's complement seconds.
    pub mtime: u64,
    /// Extended only.
    pub mtime_nsec: u32,
    /// Count of links; of a directory, 2 and one for each directory in it.
    pub nlink: u32,
}

impl DiskInode {
    /// Bytes on disk.
    pub fn size_on_disk(&self) -> u64 {
        if self.extended { EXTENDED_SIZE } else { COMPACT_SIZE }
    }

    /// Appends the inode to `out`. Compact numbers must fit; the plan saw to it.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let format = u16::from(self.extended) | (self.layout as u16) << 1;
        let mode = self.file_type.mode_bits() | self.permissions;
        out.extend_from_slice(&format.to_le_bytes());
        out.extend_from_slice(&self.xattr_icount.to_le_bytes());
        out.extend_from_slice(&mode.to_le_bytes());
        if self.extended {
            out.extend_from_slice(&[0; 2]);
            out.extend_from_slice(&self.size.to_le_bytes());

            out.extend_from_slice(&self.u.to_le_bytes());
            out.extend_from_slice(&self.ino.to_le_bytes());
            out.extend_from_slice(&self.uid.to_le_bytes());
            out.extend_from_slice(&self.gid.to_le_bytes());

            out.extend_from_slice(&self.mtime.to_le_bytes());
            out.extend_from_slice(&self.mtime_nsec.to_le_bytes());
            out.extend_from_slice(&self.nlink.to_le_bytes());

            out.extend_from_slice(&[0; 16]);
        } else {
            out.extend_from_slice(&(self.nlink as u16).to_le_bytes());
            out.extend_from_slice(&(self.size as u32).to_le_bytes());
            out.extend_from_slice(&[0; 4]);

            out.extend_from_slice(&self.u.to_le_bytes());
            out.extend_from_slice(&self.ino.to_le_bytes());
            out.extend_from_slice(&(self.uid as u16).to_le_bytes());
            out.extend_from_slice(&(self.gid as u16).to_le_bytes());
            out.extend_from_slice(&[0; 4]);
        }
    }

    /// The inode that `bytes` begin with.
    ///
    /// # Errors
    /// When they end too soon, or the layout or the file type is not known.
    pub fn decode(bytes: &[u8]) -> Result<Self, BadInode> {
        let format = Fields(bytes.get(..2).ok_or(BadInode::Cut)?).u16(0);
        let extended = format & 1 == 1;
        let len = if extended { EXTENDED_SIZE } else { COMPACT_SIZE };
        let f = Fields(bytes.get(..len as usize).ok_or(BadInode::Cut)?);
        let (layout, mode) = (format >> 1 & 7, f.u16(4));
        let common = Self {
            extended,
            layout: Layout::from_bits(layout).ok_or(BadInode::Layout(layout))?,
            xattr_icount: f.u16(2),
            file_type: FileType::from_mode(mode).ok_or(BadInode::Mode(mode))?,
            permissions: mode & 0o7777,
            size: 0,
            u: f.u32(16),
            ino: f.u32(20),
            uid: 0,
            gid: 0,
            mtime: 0,
            mtime_nsec: 0,
            nlink: 0,
        };
        Ok(if extended {
            Self {
                size: f.u64(8, 12),
                uid: f.u32(24),
                gid: f.u32(28),
                mtime: f.u64(32, 36),
                mtime_nsec: f.u32(40),
                nlink: f.u32(44),
                ..common
            }
        } else {
            Self {
                nlink: f.u16(6).into(),
                size: f.u32(8).into(),
                uid: f.u16(24).into(),
                gid: f.u16(26).into(),
                ..common
            }
        })
    }
}

/// Where one chunk of a file lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkIndex {
    /// The device: 0 is the primary one, n the n-th slot of the device table.
    pub device_id: u16,
    /// First block on the device, in blocks of 1024 bytes, or [`NULL_ADDR`].
    pub blkaddr: u32,
}

impl ChunkIndex {
    /// The index of a chunk without data, which reads as zeros.
    pub const HOLE: ChunkIndex = ChunkIndex { device_id: 0, blkaddr: NULL_ADDR };

    /// Appends the index to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&[0; 2]);
        out.extend_from_slice(&self.device_id.to_le_bytes());
        out.extend_from_slice(&self.blkaddr.to_le_bytes());
    }

    /// The index that `bytes` hold.
    pub fn decode(bytes: &[u8; CHUNK_INDEX_SIZE as usize]) -> Self {
        let f = Fields(bytes);
        Self { device_id: f.u16(2), blkaddr: f.u32(4) }
    }
}

/// The fixed part of a directory entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiskDirent {
    /// Nid of the inode that the entry leads to.
    pub nid: u64,
    /// Offset of the name in its directory block.
    pub nameoff: u16,
    /// Type of that inode, as [`FileType`] numbers it.
    pub file_type: u8,
}

impl DiskDirent {
    /// Appends the entry to `out`, without its name.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.nid.to_le_bytes());
        out.extend_from_slice(&self.nameoff.to_le_bytes());
        out.extend_from_slice(&[self.file_type, 0]);
    }

    /// The entry that `bytes` hold.
    pub fn decode(bytes: &[u8; DIRENT_SIZE]) -> Self {
        let f = Fields(bytes);
        Self { nid: f.u64(0, 4), nameoff: f.u16(8), file_type: f.u8(10) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inodes_have_their_sizes_and_come_back() {
        let compact = DiskInode {
            extended: false,
            layout: Layout::ChunkBased,
            xattr_icount: 3,
            file_type: FileType::Regular,
            permissions: 0o644,
            size: 77,
            u: 63,
            ino: 5,
            uid: 1000,
            gid: 65535,
            mtime: 0,
            mtime_nsec: 0,
            nlink: 2,
        };
        let extended = DiskInode {
            extended: true,
            size: 1 << 40,
            uid: u32::MAX - 1,
            mtime: (-3i64) as u64,
            mtime_nsec: 999_999_999,
            ..compact
        };
        for (inode, len) in [(compact, 32), (extended, 64)] {
            let mut bytes = Vec::new();
            inode.encode(&mut bytes);
            assert_eq!(bytes.len(), len);
            assert_eq!(inode.size_on_disk(), len as u64);
            assert_eq!(DiskInode::decode(&bytes), Ok(inode));
            assert_eq!(DiskInode::decode(&bytes[..len - 1]), Err(BadInode::Cut));
        }
    }
}
