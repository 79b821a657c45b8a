//! The index of a bundle, and the disk's descriptor.

use bundle::index::{DiskExtent, Index};
use bundle::{seal, start, vmdk};

/// Any bytes as an index, once as they are and once sealed anew: what the reader takes is to
/// the byte what the writer writes, and what the writer writes, the reader takes.
pub fn index(input: &[u8]) {
    if let Ok(index) = seal::from_json(input) {
        assert_eq!(seal::to_json(index).expect("it was read"), input);
    }
    let Some((index, json)) = sealed(input) else {
        return;
    };
    let read = seal::from_json(&json).expect("it was written");
    assert_eq!(seal::to_json(read.clone()).expect("it was read"), json);
    assert_eq!(Index { seal: String::new(), ..read }, Index { seal: String::new(), ..index });
}

/// The index that `input` spells, and its bytes, if the writer takes it.
fn sealed(input: &[u8]) -> Option<(Index, Vec<u8>)> {
    let index: Index = serde_json::from_slice(input).ok()?;
    let json = seal::to_json(index.clone()).ok()?;
    start::check(&index.config, &index.boot).expect("a machine can start with every index");
    Some((index, json))
}

/// Any bytes as an index: what other programs see in its descriptor are the stretches of the
/// disk as the index has them, whatever their paths hold.
pub fn vmdk(input: &[u8]) {
    let Some((index, _)) = sealed(input) else {
        return;
    };
    let text = vmdk::of(&index).expect("every index has a descriptor");
    let mut offset = 0;
    let extents = text.lines().filter(|line| line.starts_with("RW ")).map(|line| {
        let (size, path) = extent(line).expect("the descriptor has no other lines of extents");
        let found = DiskExtent { path: path.to_owned(), offset, size };
        offset += size;
        found
    });
    assert_eq!(extents.collect::<Vec<_>>(), index.disk);
    let is_local = |path: &str| path.split('/').all(|part| !["", ".", ".."].contains(&part));
    assert!(index.disk.iter().all(|extent| is_local(&extent.path)), "{:?}", index.disk);
}

/// The bytes and the path of an extent, as a reader of descriptors splits its line.
fn extent(line: &str) -> Option<(u64, &str)> {
    let (sectors, rest) = line.strip_prefix("RW ")?.split_once(' ')?;
    let path = rest.strip_prefix("FLAT \"")?.strip_suffix("\" 0")?;
    let plain = path.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'"');
    plain.then_some((sectors.parse::<u64>().ok()? * vmdk::SECTOR, path))
}
