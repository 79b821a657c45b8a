//! Layers become one image.

use fsimage::digest::Digest;
use fsimage::erofs::fsmeta::{self, LayerDevice};
use fsimage::erofs::plan::Form;
use fsimage::erofs::read::Reader;
use fsimage::tree::extents::Extents;
use fsimage::tree::merge::{Merger, on_device};
use fsimage::tree::{Kind, Tree};
use fsimage::units::{BLOCK_SIZE, DeviceId};
use rootfs_compile::layer::{Budgets, Limits};

use super::layer::{compile, limits, read};
use super::memory;
use super::shape::{Seen, assert_addresses, shape};

/// Bytes that stand for one entry of a tar.
const ENTRY: usize = 4;

/// Layers of an input at most.
const LAYERS: usize = 6;

/// Names of which paths are made: few, so that layers meet; and those that mean something.
const NAMES: [&str; 8] = ["a", "b", "c", ".", "..", ".wh.a", ".wh..wh..opq", ".wh..wh.plnk"];

/// Any bytes as some layers, four for each entry: the image has nothing of how a layer is
/// noted, it is the same whether the layers come from their tars or out of a cache, and the
/// reader of what is written gets the tree that was merged.
pub fn merge(input: &[u8]) {
    let limits = limits();
    let budgets = Budgets::new(&limits);
    let (mut compiled, mut cached, mut devices) = (Vec::new(), Vec::new(), Vec::new());
    let layers = input.as_chunks::<ENTRY>().0.split(|entry| entry[0] == 0xff);
    for entries in layers.take(LAYERS) {
        let Some(layer) = compile(&tar(entries), &limits, &budgets) else {
            return;
        };
        cached.push(read(&layer.file, &limits));
        let size = layer.file.metadata().expect("it is open").len();
        devices.push(LayerDevice { diff_id: Digest::of(b"").into(), blake3: layer.blake3, size });
        compiled.push(layer.tree);
    }
    let (merged, again) = (link(compiled, &limits), link(cached, &limits));
    assert_eq!(merged.as_ref().map(shape), again.as_ref().map(shape), "the cache shows");
    let Some(merged) = merged else {
        return;
    };
    for (path, seen) in shape(&merged) {
        let Seen::Inode(inode) = seen else { continue };
        let is_note = match inode.kind {
            Kind::Whiteout | Kind::LowerLink(_) => true,
            Kind::Dir(dir) => dir.opaque || dir.implied && path.0.is_empty(),
            _ => false,
        };
        assert!(!is_note, "{path} is a note of a layer");
    }
    let written = fsmeta::write(&merged, &devices, memory::file()).expect("small trees fit");
    let image = memory::bytes(&written.file);
    let reader = Reader::new(&image).expect("what was written can be read");
    let tree = reader.tree(Form::Image, &budgets.metadata).expect("what was written can be read");
    assert_eq!(shape(&tree), shape(&merged));
    let blocks = devices.iter().map(|device| device.size / BLOCK_SIZE);
    let blocks: Vec<u64> = std::iter::once(image.len() as u64 / BLOCK_SIZE).chain(blocks).collect();
    assert_addresses(&tree, &blocks);
}

/// The image of `layers`; nothing if one cannot be put on those below it.
fn link(layers: Vec<Tree<Extents>>, limits: &Limits) -> Option<Tree<Extents>> {
    let budgets = Budgets::new(limits);
    let mut merger = Merger::new(budgets.bounds(limits));
    for (device, layer) in (1..).map(DeviceId).zip(layers) {
        merger.add(on_device(layer, device)).ok()?;
    }
    Some(merger.finish())
}

/// The tar of `entries`.
fn tar(entries: &[[u8; ENTRY]]) -> Vec<u8> {
    let mut tar = Vec::new();
    for [kind, path, target, more] in entries {
        let len = if kind & 7 == 0 { usize::from(*more) * 16 } else { 0 };
        tar.extend(header(kind & 7, &name(*path, kind >> 3), &name(*target, *more), *more, len));
        tar.resize(tar.len() + len, *more);
        tar.resize(tar.len().next_multiple_of(512), 0);
    }
    tar.resize(tar.len() + 1024, 0);
    tar
}

/// One to three names.
fn name(two: u8, more: u8) -> String {
    let names = [two & 7, two >> 3 & 7, more & 7].map(|n| NAMES[usize::from(n)]);
    names[..usize::from(two >> 6).clamp(1, 3)].join("/")
}

/// A header as POSIX has it for `ustar`.
fn header(kind: u8, path: &str, target: &str, more: u8, len: usize) -> [u8; 512] {
    let mut header = [0; 512];
    let mut put =
        |at: usize, text: &str| header[at..at + text.len()].copy_from_slice(text.as_bytes());
    put(0, path);
    put(100, &format!("{:07o}", 0o600 | u32::from(more & 7)));
    put(108, &format!("{:07o}", more >> 4));
    put(116, &format!("{:07o}", more >> 5));
    put(124, &format!("{len:011o}"));
    put(136, &format!("{:011o}", u32::from(more) << 24));
    put(148, "        ");
    put(156, ["0", "1", "2", "5", "5", "6", "3", "1"][usize::from(kind)]);
    put(157, target);
    put(257, "ustar\x0000");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    header
}
