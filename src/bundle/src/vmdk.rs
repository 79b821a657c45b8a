//! The VMDK descriptor, which joins fsmeta and the layers into one disk.
//!
//! It has only what all readers of the format understand in the same way: `RW … FLAT`
//! extents with an offset, names relative to the descriptor, and no encoding. This project
//! does not parse descriptors: the right one follows from the index, and a descriptor is
//! compared with it to the byte, because other programs might read any other text in
//! another way.

use anyhow::{Result, bail};
use fsimage::digest::Blake3;

use super::content::ContentHash;
use super::index::Index;
use crate::names::FSMETA;

/// Bytes in a sector, the descriptor's unit.
pub const SECTOR: u64 = 512;

/// A file as an extent of the disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extent {
    /// The file's path, relative to the descriptor.
    pub path: String,
    /// Bytes of the file, a multiple of [`SECTOR`].
    pub size: u64,
}

/// The descriptor's text. `cid` identifies the content.
pub fn descriptor(extents: &[Extent], cid: u32) -> String {
    let mut text = format!(
        "# Disk DescriptorFile\nversion=1\nCID={cid:08x}\nparentCID=ffffffff\n\
         createType=\"twoGbMaxExtentFlat\"\n\n# Extent description\n"
    );
    for extent in extents {
        text += &format!("RW {} FLAT \"{}\" 0\n", extent.size / SECTOR, extent.path);
    }
    text + "\n# The Disk Data Base\n#DDB\n\nddb.adapterType = \"lsilogic\"\n"
}

/// The descriptor of the bundle that has the files of `index`.
///
/// # Errors
/// When the index has no hash of fsmeta, which identifies the content.
pub fn of(index: &Index) -> Result<String> {
    let extents = index.disk.iter();
    let extents: Vec<_> = extents.map(|e| Extent { path: e.path.clone(), size: e.size }).collect();
    let fsmeta = index.files.iter().find(|file| file.path == FSMETA);
    match fsmeta.map(|file| &file.content) {
        Some(ContentHash::Blake3(hash)) => Ok(descriptor(&extents, cid(hash))),
        _ => bail!("the index has no BLAKE3 of {FSMETA}"),
    }
}

/// The content ID of a disk whose fsmeta has the hash `fsmeta`.
pub fn cid(fsmeta: &Blake3) -> u32 {
    let number = u32::from_le_bytes(*fsmeta.as_bytes().first_chunk().expect("32 bytes"));
    // The largest numbers mean "no parent" and "no content".
    number & 0x7fff_ffff
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_descriptor_has_the_grammar_that_all_readers_take_alike() {
        let extent = |path: &str, size| Extent { path: path.into(), size };
        let extents = [extent("fsmeta.erofs", 8192), extent("layers/sha256-00.erofs", 5 << 30)];
        let text = descriptor(&extents, 7);
        assert!(text.contains(
            "\nRW 16 FLAT \"fsmeta.erofs\" 0\nRW 10485760 FLAT \"layers/sha256-00.erofs\" 0\n"
        ));
        assert!(text.contains("\nCID=00000007\n"));
    }
}
