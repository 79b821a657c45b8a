//! How messages name paths and kinds of files.

use fsimage::tree::{GuestPath, Kind};

/// The path as people write it; bytes that are no text, and what a terminal
/// would take for more than text, are escaped.
pub(super) fn shown(path: &GuestPath) -> String {
    let bytes = absolute(path);
    match std::str::from_utf8(&bytes) {
        Ok(text) if !text.contains(char::is_control) => text.to_owned(),
        _ => bytes.escape_ascii().to_string(),
    }
}

/// The bytes of a path from the root.
pub(super) fn absolute(path: &GuestPath) -> Vec<u8> {
    [b"/", &path.to_bytes()[..]].concat()
}

/// What an inode is, in a word.
pub(super) fn kind_name<C>(kind: &Kind<C>) -> &'static str {
    match kind {
        Kind::Dir(_) => "a directory",
        Kind::File(_) | Kind::LowerLink(_) => "a file",
        Kind::Symlink(_) => "a symbolic link",
        Kind::Char(_) | Kind::Whiteout => "a character device",
        Kind::Block(_) => "a block device",
        Kind::Fifo => "a fifo",
        Kind::Socket => "a socket",
    }
}
