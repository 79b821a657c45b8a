//! The loops in which a build spends its time, one by one:
//! `cargo bench --bench hot [-- FILTER]`.
//!
//! Inputs are made here and always the same; results land in memory where the
//! interface allows it, else in a file of the temporary directory.

use std::fs::File;
use std::hint::black_box;
use std::io::{self, Read, Write as _};

use bundle::vmdk;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use fsimage::budget::{Bounds, Budget, Steps};
use fsimage::digest::{Blake3, DiffId, HashingReader, TreeHash};
use fsimage::erofs::fsmeta;
use fsimage::erofs::plan::{Form, Plan};
use fsimage::erofs::read::Reader;
use fsimage::ext4;
use fsimage::tree::extents::Extents;
use fsimage::tree::merge::{Merger, on_device};
use fsimage::tree::{Dir, Inode, InodeId, Kind, Name, Stat, Tree, Xattrs};
use fsimage::units::{BLOCK_SIZE, BlockAddr, DeviceId, blocks_of};
use rootfs_compile::layer::{self, Budgets, Limits};

const DATA: usize = 16 << 20;
const DIRS: u32 = 200;
const FILES_PER_DIR: u32 = 100;
const FILE: usize = 700;
const ENTRIES: u64 = (DIRS + DIRS * FILES_PER_DIR) as u64;
const LAYERS: u16 = 10;

/// Words of a small language: compresses about as well as source code.
fn text(len: usize) -> Vec<u8> {
    let mut state = 1u64;
    let mut out = Vec::with_capacity(len + 16);
    while out.len() < len {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let word = (state >> 33) % 4096;
        // A square favours the low words, as languages do.
        write!(out, "w{:x} ", word * word / 4096).expect("a Vec takes all");
    }
    out.truncate(len);
    out
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).expect("a Vec takes all");
    encoder.finish().expect("a Vec takes all")
}

/// A layer of [`ENTRIES`] entries, whose files have [`FILE`] bytes.
fn tar() -> Vec<u8> {
    let content = text(FILE);
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_ustar();
    header.set_mtime(1_700_000_000);
    for d in 0..DIRS {
        header.set_entry_type(tar::EntryType::Directory);
        header.set_mode(0o755);
        header.set_size(0);
        let path = format!("usr/share/package-{d}/");
        tar.append_data(&mut header, path, io::empty()).expect("a Vec takes all");
        for f in 0..FILES_PER_DIR {
            header.set_entry_type(tar::EntryType::Regular);
            header.set_mode(0o644);
            header.set_size(content.len() as u64);
            let path = format!("usr/share/package-{d}/file-{f}.txt");
            tar.append_data(&mut header, path, &content[..]).expect("a Vec takes all");
        }
    }
    tar.into_inner().expect("a Vec takes all")
}

/// The same shape as [`tar`], with files as `content` makes them.
fn tree<C>(mut content: impl FnMut(u32) -> C) -> Tree<C> {
    let mut tree = Tree::new(Stat::IMPLIED_DIR);
    let mut add = |parent: InodeId, name: String, kind: Kind<C>| {
        let id = tree.push(Inode { stat: Stat::IMPLIED_DIR, xattrs: Xattrs::default(), kind });
        let (id, name) = (id.expect("few inodes"), Name::new(name.as_bytes()).expect("a name"));
        tree.dir_mut(parent).expect("a directory").entries.insert(name, id);
        id
    };
    for d in 0..DIRS {
        let dir = add(InodeId::ROOT, format!("package-{d}"), Kind::Dir(Dir::default()));
        for f in 0..FILES_PER_DIR {
            let kind = Kind::File(content(d * FILES_PER_DIR + f));
            add(dir, format!("file-{f}.txt"), kind);
        }
    }
    tree
}

fn on_blocks() -> Tree<Extents> {
    let len = blocks_of(FILE as u64) as u32;
    tree(|i| Extents::contiguous(FILE as u64, DeviceId::PRIMARY, BlockAddr(1 + len * i), len))
}

fn scratch() -> File {
    tempfile::tempfile().expect("a temporary file")
}

fn bytes(c: &mut Criterion) {
    let plain = text(DATA);
    let packed = gzip(&plain);
    let mut group = c.benchmark_group("bytes");
    group.sample_size(20).throughput(Throughput::Bytes(DATA as u64));
    group.bench_function("inflate", |b| {
        b.iter(|| {
            io::copy(&mut flate2::bufread::MultiGzDecoder::new(&packed[..]), &mut io::sink())
        });
    });
    group.bench_function("sha256", |b| {
        b.iter(|| {
            let mut reader = HashingReader::new(&plain[..]);
            let mut buffer = vec![0; 256 << 10];
            while reader.read(&mut buffer).expect("memory is readable") > 0 {}
            black_box(reader.digest())
        });
    });
    group.bench_function("blake3", |b| {
        b.iter(|| {
            let mut hash = TreeHash::default();
            plain.chunks(256 << 10).for_each(|chunk| hash.update(chunk));
            black_box(hash.finish(&[]))
        });
    });
    group.finish();
}

fn entries(c: &mut Criterion) {
    let plain = tar();
    let packed = gzip(&plain);
    let id = DiffId::of(&plain);
    let limits = Limits::default();
    let compile = |blob: &[u8]| {
        let outcome = layer::compile(blob, id, scratch(), &limits, &Budgets::new(&limits), &|_| {});
        outcome.checked(|_, _| Ok(())).expect("a sound layer")
    };
    let mut group = c.benchmark_group("entries");
    group.sample_size(20).throughput(Throughput::Elements(ENTRIES));
    group.bench_function("layer, plain tar", |b| b.iter(|| compile(&plain)));
    group.bench_function("layer, gzip", |b| b.iter(|| compile(&packed)));

    let object = content_of(compile(&plain).file);
    group.bench_function("read an object", |b| {
        b.iter(|| {
            Reader::new(&object)
                .and_then(|r| r.tree(Form::Object, &Budget::default()))
                .expect("an object")
        });
    });

    let layers = || (1..=LAYERS).map(|n| on_device(on_blocks(), DeviceId(n))).collect::<Vec<_>>();
    group.bench_function(format!("merge {LAYERS} layers"), |b| {
        let merge = |layers: Vec<_>| {
            let (budget, steps) = (Budget::default(), Steps::default());
            let mut merger =
                Merger::new(Bounds { budget: &budget, steps: &steps, max_depth: limits.depth });
            for layer in layers {
                merger.add(layer).expect("no links");
            }
            merger.finish()
        };
        b.iter_batched(layers, merge, BatchSize::LargeInput);
    });

    let merged = on_device(on_blocks(), DeviceId(1));
    group.bench_function("fsmeta, plan", |b| {
        b.iter(|| Plan::new(&merged, Form::Image, 4096).expect("a plan").end);
    });
    let device = fsmeta::LayerDevice {
        diff_id: id,
        blake3: Blake3::of(b""),
        size: (1 + u64::from(DIRS * FILES_PER_DIR) * blocks_of(FILE as u64)) * BLOCK_SIZE,
    };
    group.bench_function("fsmeta, plan and write", |b| {
        b.iter(|| fsmeta::write(&merged, &[device], scratch()).expect("an image").inodes);
    });

    let upper = tree(|_| vec![b'x'; FILE]);
    group.bench_function("ext4, plan and write", |b| {
        b.iter(|| {
            let layout = ext4::Layout::at(&upper, 1 << 30).expect("it fits");
            layout.write(&[7; 32], &mut Count(0)).expect("a counter takes all");
        });
    });
    group.finish();

    let disk: Vec<_> = (0..500)
        .map(|n| vmdk::Extent { path: format!("layers/{n}.erofs"), size: 1 << 20 })
        .collect();
    c.bench_function("vmdk of 500 extents", |b| b.iter(|| vmdk::descriptor(&disk, 7)));
}

fn content_of(mut file: File) -> Vec<u8> {
    let mut bytes = Vec::new();
    io::Seek::rewind(&mut file).expect("a file");
    file.read_to_end(&mut bytes).expect("a file");
    bytes
}

/// Throws bytes away: an ext4 image is mostly zeros, which no one need hold.
struct Count(u64);

impl fsimage::io::sink::Sink for Count {
    fn data(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0 += black_box(bytes).len() as u64;
        Ok(())
    }

    fn zeros(&mut self, len: u64) -> io::Result<()> {
        self.0 += len;
        Ok(())
    }

    fn position(&self) -> u64 {
        self.0
    }
}

criterion_group!(benches, bytes, entries);
criterion_main!(benches);
