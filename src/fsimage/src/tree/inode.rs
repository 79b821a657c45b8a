//! Inodes: what a tree keeps of a file, whatever its kind.

use std::collections::BTreeMap;

use crate::tree::name::{GuestPath, Name};
use crate::tree::xattrs::Xattrs;

/// Index of an inode in its tree. 0 is the root directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InodeId(pub u32);

impl InodeId {
    /// The root directory.
    pub const ROOT: InodeId = InodeId(0);
}

/// What a name leads to. A hard link is a second entry with the same id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inode<C> {
    /// Owner, permissions and time.
    pub stat: Stat,
    /// Extended attributes.
    pub xattrs: Xattrs,
    /// File type, with the content or target.
    pub kind: Kind<C>,
}

/// Owner, permissions and time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Stat {
    /// Permission bits with setuid, setgid and sticky: `0o0000..=0o7777`.
    pub mode: u16,
    /// User ID of the owner.
    pub uid: u32,
    /// Group ID.
    pub gid: u32,
    /// Time of the last modification.
    pub mtime: Timestamp,
}

impl Stat {
    /// What a directory gets that no layer describes: 0755, root's, 1970.
    pub const IMPLIED_DIR: Stat = Stat { mode: 0o755, uid: 0, gid: 0, mtime: Timestamp::EPOCH };
}

/// A point in time, in the kernel's form: whole seconds towards the past, and
/// nanoseconds (below 10⁹) towards the future from there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp {
    /// Seconds since 1970-01-01 00:00 UTC, negative before.
    pub sec: i64,
    /// Nanoseconds after `sec`, below 10⁹.
    pub nsec: u32,
}

impl Timestamp {
    /// 1970-01-01 00:00 UTC.
    pub const EPOCH: Timestamp = Timestamp { sec: 0, nsec: 0 };
}

/// File type, with what only that type has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind<C> {
    /// A directory, with its entries.
    Dir(Dir),
    /// A regular file, with its content.
    File(C),
    /// A symbolic link, with the bytes of its target.
    Symlink(Box<[u8]>),
    /// A character device.
    Char(Rdev),
    /// A block device.
    Block(Rdev),
    /// A fifo (named pipe).
    Fifo,
    /// A socket.
    Socket,
    /// In a layer: hides what lower layers have under this name.
    Whiteout,
    /// In a layer: a hard link to what is called so, if the layer does not have it
    /// yet; in its journal, any hard link.
    LowerLink(GuestPath),
}

/// A directory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dir {
    /// In the order of the names' bytes.
    pub entries: BTreeMap<Name, InodeId>,
    /// In a layer: nothing of lower layers shows through.
    pub opaque: bool,
    /// In a layer: only implied by paths below it, so the lower directory's
    /// metadata stay.
    pub implied: bool,
}

/// Device number of a character or block device: 12 bits of major, 20 of minor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Rdev {
    major: u32,
    minor: u32,
}

impl Rdev {
    /// `None` when a number does not fit what Linux can store.
    pub fn new(major: u64, minor: u64) -> Option<Self> {
        let major = u32::try_from(major).ok().filter(|m| *m < 1 << 12)?;
        let minor = u32::try_from(minor).ok().filter(|m| *m < 1 << 20)?;
        Some(Self { major, minor })
    }

    /// The 32-bit form of the kernel's `new_encode_dev`.
    pub fn encode(self) -> u32 {
        (self.minor & 0xff) | self.major << 8 | (self.minor & !0xff) << 12
    }

    /// The inverse of [`Rdev::encode`].
    pub fn decode(dev: u32) -> Self {
        Self { major: dev >> 8 & 0xfff, minor: dev & 0xff | dev >> 12 & 0xfff00 }
    }

    /// The major number, below 2¹².
    pub fn major(self) -> u32 {
        self.major
    }

    /// The minor number, below 2²⁰.
    pub fn minor(self) -> u32 {
        self.minor
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn device_numbers_have_the_kernels_bits() {
        // 0x12345 in the minor keeps its low byte at the bottom, the rest above the major.
        assert_eq!(Rdev::new(0xabc, 0x12345).unwrap().encode(), 0x123a_bc45);
        assert_eq!(Rdev::decode(0x123a_bc45), Rdev::new(0xabc, 0x12345).unwrap());
        assert!(Rdev::new(4096, 0).is_none());
        assert!(Rdev::new(0, 1 << 20).is_none());
    }
}
