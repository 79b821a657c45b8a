//! One tar header: which of the formats it is in, and what its fields say.
//!
//! Go's archive/tar decides what is doubtful, because Docker, containerd and
//! umoci all read layers by it.

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use fsimage::tree::Rdev;
use tar::Header;

use super::number;
use super::stream::Stream;

/// Bytes of a header, and of each block of an archive.
pub(super) const BLOCK: u64 = 512;

/// What lies behind the fields that all formats share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    /// Nothing.
    V7,
    /// A prefix of the path with 155 bytes, device numbers.
    Ustar,
    /// As ustar, but the prefix has 131 bytes and two times follow it.
    Star,
    /// Two times where ustar has the prefix, device numbers.
    Gnu,
}

impl Format {
    fn of(block: &[u8; 512]) -> Self {
        match (&block[257..263], &block[263..265], &block[508..]) {
            (b"ustar\0", _, b"tar\0") => Self::Star,
            // Writers disagree about the version that follows the magic.
            (b"ustar\0", ..) => Self::Ustar,
            (b"ustar ", b" \0", _) => Self::Gnu,
            _ => Self::V7,
        }
    }
}

/// The next header whose checksum is right, or `None` at the archive's end.
pub(super) fn next(stream: &mut Stream<'_>) -> Result<Option<Header>> {
    let Some(block) = stream.block()? else {
        return Ok(None);
    };
    if block == [0; 512] {
        // The archive ends with two; one alone is an accident of concatenation.
        return match stream.block()? {
            None => Ok(None),
            Some(second) if second == [0; 512] => Ok(None),
            Some(_) => bail!("a lone block of zeros inside the tar stream"),
        };
    }
    let mut header = Header::new_old();
    header.as_mut_bytes().copy_from_slice(&block);
    let told = number::header_number(&header.as_old().cksum)?;
    let sum = |of: fn(u8) -> i128| -> i128 {
        let field = 148..156;
        let bytes = block.iter().enumerate();
        bytes.map(|(i, b)| if field.contains(&i) { i128::from(b' ') } else { of(*b) }).sum()
    };
    // Some old writers added signed bytes.
    ensure!(
        told == sum(i128::from) || told == sum(|b| i128::from(b.cast_signed())),
        "a tar header's checksum is wrong: this is not a tar stream, or it is damaged"
    );
    Ok(Some(header))
}

/// Everything before the first NUL.
pub(super) fn until_nul(bytes: &[u8]) -> &[u8] {
    &bytes[..bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len())]
}

/// Bytes in the stream that the header announces.
pub(super) fn size(header: &Header) -> Result<u64> {
    u64::try_from(number::header_number(&header.as_old().size)?)
        .map_err(|_| anyhow!("a size is negative or too large"))
}

/// The member's path as the header alone has it.
pub(super) fn path(header: &Header) -> Vec<u8> {
    let block = header.as_bytes();
    let name = until_nul(&header.as_old().name);
    let prefix = match Format::of(block) {
        Format::V7 => &[],
        Format::Ustar => until_nul(&block[345..500]),
        Format::Star => until_nul(&block[345..476]),
        Format::Gnu => prefix_in_gnu(block),
    };
    if prefix.is_empty() { name.to_vec() } else { [prefix, b"/", name].concat() }
}

/// Go before 1.8, and so Docker of that time, wrote a prefix under GNU's magic,
/// over the fields of atime and ctime. It is one when those hold no times.
fn prefix_in_gnu(block: &[u8; 512]) -> &[u8] {
    let times = [&block[345..357], &block[357..369]];
    let prefix = until_nul(&block[345..500]);
    if times.into_iter().all(number::is_header_number) || !prefix.is_ascii() {
        return &[];
    }
    prefix
}

/// The device numbers of a device's header.
pub(super) fn rdev(header: &Header) -> Result<Rdev> {
    let block = header.as_bytes();
    ensure!(Format::of(block) != Format::V7, "a device whose header has no device numbers");
    let number = |field: &[u8]| -> Result<u64> {
        let number = number::header_number(field).context("device number")?;
        u64::try_from(number).map_err(|_| anyhow!("device number {number} is out of range"))
    };
    let (major, minor) = (number(&block[329..337])?, number(&block[337..345])?);
    Rdev::new(major, minor)
        .ok_or_else(|| anyhow!("device {major}:{minor}: Linux has 12 bits of major, 20 of minor"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(magic: &[u8; 8], fields: &[(usize, &[u8])]) -> Header {
        let mut header = Header::new_old();
        let bytes = header.as_mut_bytes();
        bytes[..4].copy_from_slice(b"name");
        bytes[257..265].copy_from_slice(magic);
        for (at, value) in fields {
            bytes[*at..at + value.len()].copy_from_slice(value);
        }
        header
    }

    #[test]
    fn the_version_behind_the_magic_does_not_matter() {
        for version in [b"00", b" \0", b"\0\0", b"xx"] {
            let magic = [b"ustar\0", &version[..]].concat().try_into().unwrap();
            let dir = header(&magic, &[(345, b"some/dir"), (329, b"0000001\0"), (337, b"003\0")]);
            assert_eq!(path(&dir), b"some/dir/name");
            assert_eq!(rdev(&dir).unwrap(), Rdev::new(1, 3).unwrap());
        }
        let old = header(b"ustar 00", &[(345, b"some/dir")]);
        assert_eq!(path(&old), b"name");
        assert!(rdev(&old).is_err());
    }

    #[test]
    fn what_holds_no_times_under_gnus_magic_is_a_prefix() {
        let gnu = |fields| path(&header(b"ustar  \0", fields));
        assert_eq!(gnu(&[]), b"name");
        assert_eq!(gnu(&[(345, b"14525143247\x0014525143247\0")]), b"name");
        assert_eq!(gnu(&[(345, b"   525143247 ")]), b"name");
        assert_eq!(gnu(&[(345, &[0x80, 0, 0, 0, 0, 0, 0, 0, 0x65, 0x53, 0xf1, 0])]), b"name");
        assert_eq!(gnu(&[(345, b"usr/lib/go")]), b"usr/lib/go/name");
        assert_eq!(gnu(&[(345, b"7 dwarfs")]), b"7 dwarfs/name");
        assert_eq!(gnu(&[(345, b"usr/\xc3\xa9")]), b"name");
    }

    #[test]
    fn the_prefix_of_star_ends_before_its_times() {
        let long = [b'p'; 131];
        let fields: &[(usize, &[u8])] =
            &[(345, &long), (476, b"14525143247\x0014525143247\0"), (508, b"tar\0")];
        assert_eq!(path(&header(b"ustar\x0000", fields)), [&long[..], b"/name"].concat());
    }
}
