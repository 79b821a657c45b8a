//! The descriptor that strings fsmeta and layers into one disk.
//!
//! Only what every reader of the format takes alike is written: `RW … FLAT`
//! extents with an offset, names relative to the descriptor, no encoding.

use anyhow::{Result, anyhow, bail};

/// Bytes in a sector, the descriptor's unit.
pub const SECTOR: u64 = 512;

/// One file on the disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Relative to the descriptor.
    pub path: String,
    /// Bytes, whole sectors.
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

/// The extents of a descriptor as [`descriptor`] writes it; anything else on
/// an extent's line is an error, because other readers may take it otherwise.
pub fn parse(text: &str) -> Result<Vec<Extent>> {
    let mut extents = Vec::new();
    if !text.starts_with("# Disk DescriptorFile\n") {
        bail!("no disk descriptor");
    }
    for line in text.lines() {
        if !line.starts_with("RW ")
            && (line.is_empty() || line.starts_with('#') || line.contains('='))
        {
            continue;
        }
        let extent = || -> Option<Extent> {
            let (sectors, rest) = line.strip_prefix("RW ")?.split_once(" FLAT \"")?;
            let path = rest.strip_suffix("\" 0")?;
            let size = sectors.parse::<u64>().ok()?.checked_mul(SECTOR)?;
            let plain = !path.starts_with('/')
                && !path.split('/').any(|part| matches!(part, "" | "." | ".."));
            (plain && !path.contains('"')).then(|| Extent { path: path.to_owned(), size })
        };
        extents
            .push(extent().ok_or_else(|| anyhow!("the line {line:?} is no extent of a bundle"))?);
    }
    Ok(extents)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_descriptor_is_read_back_and_only_its_own_grammar() {
        let extent = |path: &str, size| Extent { path: path.into(), size };
        let extents = [extent("fsmeta.erofs", 8192), extent("layers/sha256-00.erofs", 5 << 30)];
        let text = descriptor(&extents, 7);
        assert!(text.contains(
            "\nRW 16 FLAT \"fsmeta.erofs\" 0\nRW 10485760 FLAT \"layers/sha256-00.erofs\" 0\n"
        ));
        assert_eq!(parse(&text).unwrap(), extents);
        for bad in [
            "RW 1 FLAT \"/etc/passwd\" 0",
            "RW 1 FLAT \"../x\" 0",
            "RDONLY 1 FLAT \"x\" 0",
            "RW 1 FLAT \"x\" 1",
            "RW 1 ZERO",
        ] {
            assert!(parse(&format!("{text}{bad}\n")).is_err(), "{bad}");
        }
    }
}
