//! Every flipped bit of an index is noticed.

use fsimage::digest::{Blake3, DiffId, Digest};

use super::*;
use crate::content::ContentHash;
use crate::index::{Config, DiskExtent, FileEntry, Image, Layer};
use crate::names::{FSMETA, UPPER, VMDK, layer_path};
use crate::vmdk;

/// The index of an image of two layers.
fn sample() -> Index {
    let hash = |text: &str| ContentHash::Blake3(Blake3::of(text.as_bytes()));
    let layer = |text: &str| Layer {
        diff_id: DiffId::of(text.as_bytes()),
        digest: None,
        media_type: "application/x".into(),
        compressed: 7,
        uncompressed: u64::MAX,
        path: layer_path(DiffId::of(text.as_bytes())),
        through_links: Vec::new(),
        dropped_xattrs: Vec::new(),
        over_files: vec!["a\u{1}\u{7f}\"b".into()],
        unlisted: 3,
    };
    let layers = vec![layer("one"), layer("two")];
    let entry = |path: &str, size, content| FileEntry { path: path.into(), size, content };
    let upper = ContentHash::Blake3NonzeroBlocks(Blake3::of(b""));
    let mut files = vec![entry(FSMETA, 4096, hash("fsmeta")), entry(UPPER, 16 << 20, upper)];
    files.extend(layers.iter().map(|layer| entry(&layer.path, 1024, hash(&layer.path))));
    let extent = |path: &str, offset, size| DiskExtent { path: path.into(), offset, size };
    let disk = vec![
        extent(FSMETA, 0, 4096),
        extent(&layers[0].path, 4096, 1024),
        extent(&layers[1].path, 5120, 1024),
    ];
    let mut index = Index {
        format: FORMAT.into(),
        version: VERSION,
        seal: String::new(),
        image: Image {
            reference: "oci:x".into(),
            manifest_digest: None,
            config_digest: Digest::of(b"config"),
            platform: "linux/amd64".parse().unwrap(),
            signed: None,
        },
        config: Config { user: Some("1000:1000".into()), ..Config::default() },
        boot: Default::default(),
        patches: vec!["write /a".into()],
        layers,
        files,
        disk,
    };
    let descriptor = vmdk::of(&index).unwrap();
    index.files.push(entry(VMDK, descriptor.len() as u64, hash(&descriptor)));
    index.files.sort_by(|a, b| a.path.cmp(&b.path));
    index
}

#[test]
fn every_flipped_bit_of_an_index_is_seen() {
    let json = to_json(sample()).unwrap();
    let index = from_json(&json).unwrap();
    assert!(index.seal.starts_with(KIND));
    assert_eq!(to_json(index).unwrap(), json);
    let mut changed = json.clone();
    for at in 0..json.len() {
        for bit in 0..8 {
            changed[at] ^= 1 << bit;
            assert!(from_json(&changed).is_err(), "bit {bit} of byte {at}");
            changed[at] = json[at];
        }
        assert!(from_json(&json[..at]).is_err(), "the first {at} bytes");
    }
    for more in [" ", "\n", "\0", "{}"] {
        assert!(from_json(&[&json, more.as_bytes()].concat()).is_err(), "{more:?} behind it");
    }
}

#[test]
fn an_older_version_says_what_to_do() {
    let json = String::from_utf8(to_json(sample()).unwrap()).unwrap();
    let error = |json: &str| format!("{:#}", from_json(json.as_bytes()).unwrap_err());
    let old = error(&json.replace("\"version\": 2", "\"version\": 1"));
    assert!(old.contains("version 1") && old.contains("Build the bundle again"), "{old}");
    for other in ["{}", "", "[", "{\n  \"format\": \"another\",\n  \"version\": 2,"] {
        assert!(error(other).contains("does not begin as the index"), "{other}");
    }
    let sealed = error(&json.replace("1000:1000", "0000:1000"));
    assert!(sealed.contains("its seal"), "{sealed}");
    let written = error(&json.replace("  \"image\"", " \"image\""));
    assert!(written.contains("not written as"), "{written}");
}

#[test]
fn an_index_that_readers_would_refuse_is_not_written() {
    type Change = fn(&mut Index);
    let cases: [(Change, &str); 13] = [
        (|i| i.version = 3, "another format or version"),
        (|i| i.layers[0].path = "layers/x".into(), "has the path"),
        (|i| drop(i.layers.pop()), "not a file of this bundle"),
        (|i| drop(i.files.pop()), "its files lack"),
        (|i| i.files.swap(0, 1), "not in the order"),
        (|i| i.files.insert(1, i.files[0].clone()), "there twice"),
        (|i| i.files[1].path = "../escaped".into(), "not a file of this bundle"),
        (
            |i| i.files[2].content = ContentHash::Blake3NonzeroBlocks(Blake3::of(b"")),
            "alone is hashed",
        ),
        (|i| i.files[1].size = 1000, "whole blocks"),
        (|i| i.disk[1].offset += 1, "another offset or size"),
        (|i| i.disk.swap(1, 2), "in their order"),
        (|i| i.files[0].size += 1, "disk's descriptor"),
        (|i| i.config.working_dir = Some("app".into()), "WorkingDir"),
    ];
    for (change, says) in cases {
        let mut index = sample();
        change(&mut index);
        let error = format!("{:#}", to_json(index).unwrap_err());
        assert!(error.contains(says), "{says}: {error}");
    }
    let mut index = sample();
    index.patches = vec!["x".repeat(1 << 20); 16];
    assert!(to_json(index).unwrap_err().to_string().contains("are allowed"));
}
