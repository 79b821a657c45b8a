//! Uppers with one byte that is not as it was written.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt as _;

use fsimage::budget::Budget;
use fsimage::ext4::read::{self, FileData, Reader};
use fsimage::tree::{InodeId, Kind as Type};
use rustix::fs::SeekFrom;

use super::forge::{Image, Kind};
use super::{MIB, fsck, image, sample};

/// Pseudo-random numbers: xorshift, from a seed that is always the same.
pub(crate) struct Random(pub u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

/// Every so many bytes one is changed. 1 takes a minute.
const STEP: u64 = 11;

fn upper() -> Image {
    let mut tree = sample();
    // A file whose extent tree has a block of its own: data and holes in turn.
    let upper = tree.dir(InodeId::ROOT).unwrap().entries[&super::name(b"upper")];
    let bytes = (0..20 * 4096).map(|i| u8::from(i / 4096 % 2 == 0)).collect();
    super::add(&mut tree, upper, b"sparse", fsimage::tree::Stat::IMPLIED_DIR, Type::File(bytes));
    let file = image(&tree.map_files(super::Holes), 16 * MIB);
    read::check(&file, &Budget::default()).unwrap();
    let (clean, text) = fsck(&file);
    assert!(clean, "{text}");
    let content = content(&file);
    Image::new(file, &content)
}

/// Where regular files lie, in bytes.
fn content(file: &File) -> Vec<std::ops::Range<u64>> {
    let mut ranges = Vec::new();
    for inode in Reader::new(file, &Budget::default()).unwrap().tree().unwrap().into_inodes() {
        if let Type::File(FileData::Runs { runs, .. }) = inode.kind {
            ranges.extend(runs.iter().map(|run| run.start * 4096..(run.start + run.len) * 4096));
        }
    }
    ranges
}

/// One mutant for every `STEP`-th byte of metadata: its place, kind and new value.
fn mutants(image: &Image, seed: u64) -> Vec<(u64, Kind, u8)> {
    let mut random = Random(seed);
    let mut list = Vec::new();
    for record in &image.records {
        let mut at = record.range.start + random.next() % STEP;
        while at < record.range.end {
            let value = match random.next() % 4 {
                0 => 0,
                1 => 0xff,
                2 => random.next() as u8,
                _ => image.bytes[at as usize] ^ 1 << (random.next() % 8),
            };
            if value != image.bytes[at as usize] {
                list.push((at, record.kind, value));
            }
            at += 1 + random.next() % (2 * STEP - 1);
        }
    }
    list
}

#[test]
fn every_changed_byte_of_metadata_is_seen() {
    let mut image = upper();
    let list = mutants(&image, 0x9e37_79b9_7f4a_7c15);
    assert!(list.len() > 60_000 / STEP as usize, "{}", list.len());
    let mut kinds: Vec<&str> = Vec::new();
    for (at, kind, value) in list {
        kinds.push(match kind {
            Kind::Directory(_) => "directory",
            Kind::Extents(_) => "extents",
            Kind::Xattrs => "xattrs",
            Kind::Plain => "plain",
            _ => "fixed",
        });
        let accepted =
            image.changed(at, value, None, |file| read::check(file, &Budget::default()).is_ok());
        // Nothing but the link and the file system's own hash protects a target.
        let free = kind == Kind::Plain && is_target(&image, at);
        assert!(accepted == Some(false) || free, "{kind:?} at {at:#x}");
    }
    for kind in ["directory", "extents", "xattrs", "plain", "fixed"] {
        assert!(kinds.contains(&kind), "no mutant of {kind}");
    }
}

#[test]
fn a_fault_is_told_with_its_place() {
    let mut image = upper();
    let start = |image: &Image, kind| {
        let record = image.records.iter().find(|record| record.kind == kind);
        record.expect("every upper has one").range.start
    };
    let upper_inode = start(&image, Kind::Inode) + 11 * 256;
    for (kind, at, value, text) in [
        (Kind::Superblock, 1024 + 0x3a, 2, "superblock: s_state is not as a build writes it"),
        (Kind::Descriptor, 4096 + 0x0c, 1, "block group 0: bg_free_blocks_count_lo is not"),
        (
            Kind::BlockBitmap,
            start(&image, Kind::BlockBitmap) + 511,
            1,
            "block group 0: block 4088 of it is marked as used, but nothing uses it",
        ),
        (
            Kind::InodeBitmap,
            start(&image, Kind::InodeBitmap),
            0x7f,
            "block group 0: inode 7 of it is used, but marked as free",
        ),
        (Kind::Inode, upper_inode + 0x1a, 9, "inode 12 (/upper): i_links_count is not as a build"),
        (Kind::Inode, upper_inode + 0x08, 9, "inode 12 (/upper): i_atime is not as a build"),
    ] {
        let told = image.changed(at, value, Some(kind), |file| {
            read::check(file, &Budget::default()).map_err(|e| e.to_string())
        });
        let told = told.expect("the value is another one").expect_err(text);
        assert!(told.contains(text), "{told}");
    }
}

/// Also in the copies of superblock and descriptors, and in the tables of every group.
#[test]
fn every_changed_byte_of_many_groups_is_seen() {
    let file = image(&super::empty().0, 128 * 18 * MIB + 4096 * 1000);
    let mut random = Random(0x0123_4567_89ab_cdef);
    let mut regions = Vec::new();
    let mut at = 0;
    while let Ok(data) = rustix::fs::seek(&file, SeekFrom::Data(at)) {
        at = rustix::fs::seek(&file, SeekFrom::Hole(data)).unwrap();
        regions.push(data..at);
    }
    assert!(regions.len() > 8, "{regions:?}");
    for region in &regions {
        for _ in 0..100 {
            let at = region.start + random.next() % (region.end - region.start);
            let mut byte = [0];
            file.read_exact_at(&mut byte, at).unwrap();
            file.write_all_at(&[byte[0] ^ 1 << (random.next() % 8)], at).unwrap();
            assert!(read::check(&file, &Budget::default()).is_err(), "{at:#x}");
            file.write_all_at(&byte, at).unwrap();
        }
    }
    read::check(&file, &Budget::default()).unwrap();
}

/// Whether a byte is of the target of a link: it is `x` there.
fn is_target(image: &Image, at: u64) -> bool {
    image.bytes[at as usize] == b'x'
}

/// Whoever changes a bundle on purpose signs what was changed. What is accepted then
/// says something else, but it is what a build could have written, and e2fsck finds
/// nothing to mend.
#[test]
fn what_is_accepted_although_changed_and_signed_again_is_sound_for_e2fsck() {
    let mut image = upper();
    let list = mutants(&image, 0xdead_beef_1234_5678);
    let total = list.len();
    let mut accepted: BTreeMap<String, u32> = BTreeMap::new();
    let mut unsound = Vec::new();
    for (at, kind, value) in list {
        let judged = image.changed(at, value, Some(kind), |file| {
            read::check(file, &Budget::default()).is_ok().then(|| fsck(file))
        });
        if let Some(Some((clean, text))) = judged {
            if !clean {
                unsound.push(format!("{kind:?} at {at:#x} becomes {value:#x}: {text}"));
            }
            *accepted.entry(what(&image, at, kind)).or_default() += 1;
        }
    }
    eprintln!("of {total} mutants, accepted: {accepted:?}");
    assert!(unsound.is_empty(), "{}: {}", unsound.len(), unsound.join("\n"));
    let known = ["directory", "extents", "hash seed", "inode", "target"];
    let other: Vec<_> = accepted.keys().filter(|what| !known.contains(&&***what)).collect();
    assert!(other.is_empty(), "{other:?}");
}

/// What a mutant changed, roughly.
fn what(image: &Image, at: u64, kind: Kind) -> String {
    match kind {
        Kind::Superblock if (0xec..0xfc).contains(&(at - 1024)) => "hash seed".into(),
        Kind::Directory(_) => "directory".into(),
        // Where holes are.
        Kind::Extents(_) => "extents".into(),
        Kind::Inode => "inode".into(),
        Kind::Plain if is_target(image, at) => "target".into(),
        kind => format!("{kind:?} at {at:#x}"),
    }
}
