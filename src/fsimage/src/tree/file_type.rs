//! File types, as modes and directory entries have them.

use crate::tree::inode::Kind;

/// The bits of a mode that hold the file type.
const S_IFMT: u16 = 0o170000;

/// A file type, by the number that directory entries of EROFS and ext4 give it (`FT_*` in
/// Linux `include/linux/fs_types.h`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum FileType {
    /// A regular file.
    Regular = 1,
    /// A directory.
    Dir = 2,
    /// A character device.
    Char = 3,
    /// A block device.
    Block = 4,
    /// A fifo (named pipe).
    Fifo = 5,
    /// A socket.
    Socket = 6,
    /// A symbolic link.
    Symlink = 7,
}

impl FileType {
    /// That of a file with the mode `mode`; `None` if its bits are those of no type.
    pub fn from_mode(mode: u16) -> Option<Self> {
        Some(match mode & S_IFMT {
            0o010000 => Self::Fifo,
            0o020000 => Self::Char,
            0o040000 => Self::Dir,
            0o060000 => Self::Block,
            0o100000 => Self::Regular,
            0o120000 => Self::Symlink,
            0o140000 => Self::Socket,
            _ => return None,
        })
    }

    /// The bits of a mode that stand for it.
    pub fn mode_bits(self) -> u16 {
        match self {
            Self::Fifo => 0o010000,
            Self::Char => 0o020000,
            Self::Dir => 0o040000,
            Self::Block => 0o060000,
            Self::Regular => 0o100000,
            Self::Symlink => 0o120000,
            Self::Socket => 0o140000,
        }
    }
}

impl<C> Kind<C> {
    /// The type that it has on a disk: a whiteout is a character device, and a link to a lower
    /// layer a regular file.
    pub fn file_type(&self) -> FileType {
        match self {
            Self::Dir(_) => FileType::Dir,
            Self::File(_) | Self::LowerLink(_) => FileType::Regular,
            Self::Symlink(_) => FileType::Symlink,
            Self::Char(_) | Self::Whiteout => FileType::Char,
            Self::Block(_) => FileType::Block,
            Self::Fifo => FileType::Fifo,
            Self::Socket => FileType::Socket,
        }
    }
}
