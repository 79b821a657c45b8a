//! What a file or a directory is, by its content.

use std::io::{self, Read as _};
use std::path::Path;

use fsimage::io::regular;
use oci::{Compression, layout_file};

/// What a regular file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FileKind {
    /// A tar, or a compressed file, which is taken for a compressed tar.
    Archive,
    /// Text with the key `image` at its margin.
    Manifest,
    /// A bundle's disk descriptor.
    Descriptor,
    /// Other text. An empty file is text.
    Text,
    Binary,
}

/// What a directory is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Directory {
    Layout {
        /// `skopeo copy … dir:` wrote there, too.
        also_skopeo: bool,
    },
    Skopeo,
    Bundle,
    Other,
}

/// Bytes that are looked at.
const START: u64 = 64 << 10;

/// The size of a tar's header.
const BLOCK: usize = 512;

/// Judges the file at `path` by how it begins.
pub(super) fn file(path: &Path) -> io::Result<FileKind> {
    let mut start = Vec::new();
    regular::open_followed(path)?.take(START).read_to_end(&mut start)?;
    Ok(judge(&start))
}

pub(super) fn judge(start: &[u8]) -> FileKind {
    if is_tar(start) || Compression::of(start).is_some() {
        return FileKind::Archive;
    }
    let Some(text) = text(start) else {
        return FileKind::Binary;
    };
    if text.starts_with("# Disk DescriptorFile") {
        return FileKind::Descriptor;
    }
    // In YAML's flow style, which is JSON's, the key may stand anywhere in its line.
    let is_flow = text.trim_start().starts_with('{');
    let mut lines = text.trim_start_matches('\u{feff}').lines();
    let is_manifest = lines.any(|line| match is_flow {
        true => is_image(line.trim_start_matches([' ', '\t', '{'])),
        false => is_image(line),
    });
    if is_manifest { FileKind::Manifest } else { FileKind::Text }
}

/// Whether a line begins with the key `image`.
fn is_image(line: &str) -> bool {
    let rest = line.trim_start_matches(['"', '\'']).strip_prefix("image");
    let rest = rest.map(|rest| rest.trim_start_matches(['"', '\'']).trim_start());
    rest.is_some_and(|rest| rest.starts_with(':'))
}

/// The text that begins with `start`, whose last character may be cut.
fn text(start: &[u8]) -> Option<&str> {
    let text = match std::str::from_utf8(start) {
        Ok(text) => text,
        Err(error) if error.error_len().is_none() && start.len() as u64 == START => {
            std::str::from_utf8(&start[..error.valid_up_to()]).ok()?
        }
        Err(_) => return None,
    };
    (!text.contains('\0')).then_some(text)
}

/// Whether a tar begins so: with a magic number, or, as in the oldest ones, with
/// nothing but a header whose checksum is right.
fn is_tar(start: &[u8]) -> bool {
    let Some(header) = start.get(..BLOCK) else {
        return false;
    };
    if &header[257..262] == b"ustar" {
        return true;
    }
    let checksum = &header[148..156];
    let digits = checksum.trim_ascii_start();
    let end = digits.iter().position(|b| !matches!(b, b'0'..=b'7')).unwrap_or(digits.len());
    let stored = std::str::from_utf8(&digits[..end]).ok();
    let stored = stored.and_then(|digits| u32::from_str_radix(digits, 8).ok());
    // POSIX: the sum of all bytes, with spaces in the place of the checksum.
    let sum: u32 = header.iter().map(|b| u32::from(*b)).sum();
    let own: u32 = checksum.iter().map(|b| u32::from(*b)).sum();
    header[0] != 0 && stored == Some(sum - own + 8 * u32::from(b' '))
}

/// Judges the directory at `path` by the files that it has.
pub(super) fn directory(path: &Path) -> Directory {
    let has = |name: &str| path.join(name).is_file();
    let skopeo = has("manifest.json") && has("version");
    if has(layout_file::LAYOUT) && has(layout_file::INDEX) {
        Directory::Layout { also_skopeo: skopeo }
    } else if skopeo {
        Directory::Skopeo
    } else if has(bundle::INDEX) && has(bundle::VMDK) {
        Directory::Bundle
    } else {
        Directory::Other
    }
}
