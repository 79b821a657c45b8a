//! The members of a memory-mapped tar: their names, and where their bytes are. Nothing is
//! unpacked.
//!
//! In a hostile archive, a name may be as long as the archive, and there may be as many
//! members as it has blocks. Both have limits here, which the reader of the `tar` crate does
//! not have.

use std::collections::HashMap;
use std::ops::Range;

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use tar::{Header, PaxExtensions};

use crate::json::shown;

/// A member of an archive.
pub(crate) enum Member {
    /// A regular file, by the position of its bytes in the archive.
    Bytes(Range<usize>),
    /// A symbolic or hard link, by the name of the member that it leads to.
    Link(String),
}

const BLOCK: usize = 512;
/// The most bytes of an extension record, which describes the next member: a long name, the
/// long target of a link, or pax records.
const MAX_RECORD: usize = 1 << 20;
/// The most members of one archive. Images have some hundred.
const MAX_MEMBERS: usize = 1 << 20;
/// The most bytes of all names and link targets of one archive.
const MAX_NAMES: usize = 64 << 20;
/// Where GNU's form of a sparse file says that another block of its map follows
/// (`isextended`): in the header, and in a block of the map.
const MORE_RUNS: [usize; 2] = [482, 504];

/// What the extension records before a member say of it.
#[derive(Default)]
struct Said {
    name: Option<Vec<u8>>,
    target: Option<Vec<u8>>,
    size: Option<u64>,
}

/// The files and links of the tar `bytes`, by their names in normal form.
pub(crate) fn members(bytes: &[u8]) -> Result<HashMap<String, Member>> {
    let damaged = || anyhow!("the archive is cut or damaged");
    let mut members = HashMap::new();
    let mut said = Said::default();
    let mut names = 0;
    let mut at = 0;
    while at < bytes.len() {
        let block: &[u8; BLOCK] = bytes[at..].first_chunk().ok_or_else(damaged)?;
        if block.iter().all(|byte| *byte == 0) {
            break;
        }
        ensure!(has_checksum(block), damaged());
        let header = Header::from_byte_slice(block);
        let kind = header.entry_type();
        let is_record = kind.is_gnu_longname()
            || kind.is_gnu_longlink()
            || kind.is_pax_local_extensions()
            || kind.is_pax_global_extensions();
        let size = header.entry_size().map_err(|_| damaged())?;
        let size = said.size.filter(|_| !is_record).unwrap_or(size);
        let mut start = at + BLOCK;
        if kind.is_gnu_sparse() {
            start = behind_runs(bytes, start, block).ok_or_else(damaged)?;
        }
        let end = usize::try_from(size).ok().and_then(|size| start.checked_add(size));
        let next = end.and_then(|end| end.checked_next_multiple_of(BLOCK)).ok_or_else(damaged)?;
        let end = end.unwrap_or(next);
        if is_record {
            let record = bytes.get(start..end).ok_or_else(damaged)?;
            take_record(kind, record, &mut said)?;
            at = next;
            continue;
        }
        let of_it = std::mem::take(&mut said);
        let name = of_it.name.unwrap_or_else(|| header.path_bytes().into_owned());
        let name = String::from_utf8_lossy(&name).into_owned();
        let member = if kind.is_file() || kind.is_contiguous() {
            ensure!(end <= bytes.len(), "the archive is cut inside {}", shown(&name));
            Some(Member::Bytes(start..end))
        } else if kind.is_symlink() || kind.is_hard_link() {
            let target = of_it.target;
            let target =
                target.or_else(|| Some(header.link_name_bytes()?.into_owned())).unwrap_or_default();
            let target = String::from_utf8_lossy(&target).into_owned();
            let dir = name.rsplit_once('/').map_or("", |(dir, _)| dir);
            let from = if kind.is_symlink() && !target.starts_with('/') { dir } else { "" };
            Some(Member::Link(normal(&format!("{from}/{target}"))))
        } else {
            None
        };
        if let Some(member) = member {
            names += name.len()
                + match &member {
                    Member::Bytes(_) => 0,
                    Member::Link(target) => target.len(),
                };
            members.insert(normal(&name), member);
            let count = members.len();
            ensure!(count <= MAX_MEMBERS, "the archive has more than {MAX_MEMBERS} members");
            ensure!(
                names <= MAX_NAMES,
                "the names in the archive have more than {MAX_NAMES} bytes together"
            );
        }
        at = next;
    }
    Ok(members)
}

/// Notes in `said` what the extension record of type `kind` says of the next member.
fn take_record(kind: tar::EntryType, record: &[u8], said: &mut Said) -> Result<()> {
    if kind.is_pax_global_extensions() {
        return Ok(());
    }
    let len = record.len();
    ensure!(
        len <= MAX_RECORD,
        "the archive has an extension record (a long name, or pax records) of {len} bytes; \
         {MAX_RECORD} are allowed"
    );
    if !kind.is_pax_local_extensions() {
        let end = record.iter().position(|byte| *byte == 0).unwrap_or(len);
        let text = Some(record[..end].to_vec());
        if kind.is_gnu_longname() {
            said.name = text
        } else {
            said.target = text
        }
        return Ok(());
    }
    for extension in PaxExtensions::new(record) {
        let extension = extension.map_err(|_| anyhow!("the archive has a damaged pax record"))?;
        let value = extension.value_bytes();
        match extension.key_bytes() {
            // GNU's record of a long name wins over pax, as with tar itself.
            b"path" => drop(said.name.get_or_insert(value.to_vec())),
            b"linkpath" => drop(said.target.get_or_insert(value.to_vec())),
            b"size" => {
                let size = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok());
                said.size = Some(size.context("the archive has a size that is not a number")?);
            }
            _ => {}
        }
    }
    Ok(())
}

/// Where the data of a sparse file begin, behind the blocks of its map; `None` if the archive
/// ends before.
fn behind_runs(bytes: &[u8], mut at: usize, header: &[u8]) -> Option<usize> {
    let [in_header, in_block] = MORE_RUNS;
    let mut more = header[in_header] != 0;
    while more {
        let block: &[u8; BLOCK] = bytes.get(at..)?.first_chunk()?;
        more = block[in_block] != 0;
        at += BLOCK;
    }
    Some(at)
}

/// Whether `bytes` begin as a tar does: with a header whose checksum is right, or
/// with the zeros of its end.
pub(crate) fn is_tar(bytes: &[u8]) -> bool {
    let Some(block) = bytes.first_chunk::<BLOCK>() else {
        return bytes.is_empty();
    };
    block.iter().all(|byte| *byte == 0) || has_checksum(block)
}

fn has_checksum(block: &[u8; BLOCK]) -> bool {
    let spaced = block.iter().enumerate().map(|(i, byte)| match i {
        148..156 => u32::from(b' '),
        _ => u32::from(*byte),
    });
    let sum: u32 = spaced.sum();
    Header::from_byte_slice(block).cksum().is_ok_and(|told| told == sum)
}

/// A member's name in normal form: without empty parts and `.`, and with `..` resolved.
pub(crate) fn normal(name: &str) -> String {
    let mut parts = Vec::new();
    for part in name.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join("/")
}

/// The position of the bytes of the file that `name` leads to, perhaps through links.
pub(crate) fn find<'m>(
    members: &'m HashMap<String, Member>,
    name: &str,
) -> Result<Option<&'m Range<usize>>> {
    /// The most links that are followed.
    const MAX_LINKS: usize = 10;
    let mut name = &normal(name);
    for _ in 0..MAX_LINKS {
        match members.get(name) {
            None => return Ok(None),
            Some(Member::Bytes(range)) => return Ok(Some(range)),
            Some(Member::Link(target)) => name = target,
        }
    }
    bail!("{}: more than {MAX_LINKS} links of the archive follow each other", shown(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(kind: tar::EntryType, name: &str, data: &[u8]) -> Vec<u8> {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_path(name).unwrap();
        header.set_size(data.len() as u64);
        header.set_cksum();
        let mut bytes = header.as_bytes().to_vec();
        bytes.extend_from_slice(data);
        bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
        bytes
    }

    #[test]
    fn members_are_found_by_every_form_of_a_name() {
        use tar::EntryType as Kind;
        let long = format!("dir/{}", "n".repeat(300));
        let record = |text: &str| format!("{} {text}\n", text.len() + 4);
        let records = record("path=blobs/a/./b") + &record("linkpath=blobs/a/b");
        let mut tar = [
            entry(Kind::GNULongName, "././@LongLink", format!("{long}\0").as_bytes()),
            entry(Kind::Regular, "cut", b"one"),
            entry(Kind::XHeader, "pax", records.as_bytes()),
            entry(Kind::Regular, "cut", b"two"),
            entry(Kind::XHeader, "pax", records.as_bytes()),
            entry(Kind::Link, "cut", b""),
            entry(Kind::Directory, "dir", b""),
        ]
        .concat();
        let size_of = |tar: &[u8], name: &str| {
            let members = members(tar).unwrap();
            find(&members, name).map(|range| range.map(|range| tar[range.clone()].to_vec()))
        };
        assert_eq!(size_of(&tar, &long).unwrap().unwrap(), b"one");
        assert_eq!(size_of(&tar, "dir").unwrap(), None);
        // The last of one name counts, which is a link to itself here.
        assert!(size_of(&tar, "/blobs/x/../a/b").is_err());
        tar.truncate(tar.len() - 4 * BLOCK);
        assert_eq!(size_of(&tar, "blobs/a/b").unwrap().unwrap(), b"two");
        // Inside the bytes of the last one.
        tar.truncate(tar.len() - BLOCK);
        assert!(members(&tar).is_err());
    }

    #[test]
    fn a_name_without_end_is_refused_before_it_is_read() {
        let mut header = Header::new_gnu();
        header.set_entry_type(tar::EntryType::GNULongName);
        header.set_size(4 << 20);
        header.set_cksum();
        let mut tar = header.as_bytes().to_vec();
        tar.resize(5 << 20, b'x');
        let error = members(&tar).err().unwrap().to_string();
        assert!(error.contains("4194304 bytes"), "{error}");
        let mut header = Header::new_gnu();
        header.set_size(u64::MAX - 100);
        header.set_cksum();
        assert!(members(header.as_bytes()).is_err());
    }
}
