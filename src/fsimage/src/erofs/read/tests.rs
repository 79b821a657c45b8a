//! The reader on what the writer wrote, whole and damaged.

use super::reader::Reader;
use crate::budget::Budget;
use crate::digest::{Blake3, DiffId};
use crate::erofs::disk::*;
use crate::erofs::fsmeta::{self, LayerDevice};
use crate::erofs::layer::ObjectWriter;
use crate::erofs::plan::Form;
use crate::io::sink::Sink;
use crate::tree::extents::{Extent, Extents};
use crate::tree::{
    Dir, GuestPath, Inode, InodeId, Kind, Name, Rdev, Stat, Timestamp, Tree, Xattrs,
};
use crate::units::{BLOCK_SIZE, BlockAddr, DeviceId};

fn scratch() -> std::fs::File {
    let path = std::env::temp_dir().join(format!(
        "erofs-{}-{:?}",
        std::process::id(),
        std::thread::current().id()
    ));
    let file = std::fs::File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(&path)
        .unwrap();
    std::fs::remove_file(&path).unwrap();
    file
}

fn bytes_of(file: std::fs::File) -> Vec<u8> {
    use std::io::{Read, Seek};
    let mut file = file;
    let mut bytes = Vec::new();
    file.rewind().unwrap();
    file.read_to_end(&mut bytes).unwrap();
    bytes
}

fn name(text: &str) -> Name {
    Name::new(text.as_bytes()).unwrap()
}

/// Adds an inode under `dir`.
fn add(tree: &mut Tree<Extents>, dir: InodeId, at: &str, kind: Kind<Extents>) -> InodeId {
    let stat =
        Stat { mode: 0o4751, uid: 70_000, gid: 5, mtime: Timestamp { sec: -1, nsec: 999_999_999 } };
    let id = tree.push(Inode { stat, xattrs: Xattrs::default(), kind }).unwrap();
    tree.dir_mut(dir).unwrap().entries.insert(name(at), id);
    id
}

/// Every kind of inode and every way to address content, data in `device`.
fn sample(device: DeviceId) -> Tree<Extents> {
    let mut tree = Tree::new(Stat { mode: 0o1777, ..Stat::IMPLIED_DIR });
    let root = InodeId::ROOT;
    let run = |file_block, start, len| Extent { file_block, device, start: BlockAddr(start), len };
    let runs = |size, runs: &[Extent]| Kind::File(Extents { size, runs: runs.into() });
    add(&mut tree, root, "empty", runs(0, &[]));
    add(&mut tree, root, "hole", runs(1 << 40, &[]));
    add(&mut tree, root, "plain", runs(5000, &[run(0, 1, 2)]));
    add(&mut tree, root, "sparse", runs(70_000, &[run(2, 3, 1), run(8, 4, 2), run(16, 6, 2)]));
    add(&mut tree, root, "!before-the-dot", Kind::Fifo);
    add(&mut tree, root, ".\u{1}between-the-dots", Kind::Socket);
    let device_node = add(&mut tree, root, "char", Kind::Char(Rdev::new(4095, 1_048_575).unwrap()));
    tree.dir_mut(root).unwrap().entries.insert(name("char-link"), device_node);
    add(&mut tree, root, "block", Kind::Block(Rdev::new(8, 1).unwrap()));
    for len in [1, 100, 2048, 2049, 4095] {
        add(&mut tree, root, &format!("link-{len}"), Kind::Symlink(vec![b'x'; len].into()));
    }
    let big = add(&mut tree, root, "big", Kind::Dir(Dir::default()));
    for i in 0..3000 {
        let file = add(&mut tree, big, &format!("{i:0>width$}", width = 1 + i % 255), runs(0, &[]));
        let xattrs = &mut tree.inode_mut(file).xattrs;
        xattrs.set(*b"user.same", vec![7; 30]);
        xattrs.set(*b"security.capability", [i as u8, (i >> 8) as u8]);
        xattrs.set(*b"system.posix_acl_access", [2, 0, 0, 0]);
        xattrs.set(*b"trusted.empty", []);
    }
    let long = add(&mut tree, root, "long-xattr", Kind::Fifo);
    tree.inode_mut(long).xattrs.set(*b"user.long", vec![9; 65535]);
    tree.inode_mut(root).xattrs.set(*b"user.root", *b"yes");
    tree
}

/// Arenas differ in order; what the paths lead to must not.
fn same(a: &Tree<Extents>, b: &Tree<Extents>) {
    let mut pairs = vec![(InodeId::ROOT, InodeId::ROOT)];
    let mut ids = std::collections::HashMap::new();
    while let Some((x, y)) = pairs.pop() {
        assert_eq!(*ids.entry(x).or_insert(y), y, "hard links differ");
        let (m, n) = (a.inode(x), b.inode(y));
        assert_eq!((m.stat, &m.xattrs), (n.stat, &n.xattrs));
        match (&m.kind, &n.kind) {
            (Kind::Dir(c), Kind::Dir(d)) => {
                assert_eq!((c.opaque, c.implied), (d.opaque, d.implied));
                assert!(c.entries.keys().eq(d.entries.keys()));
                pairs.extend(c.entries.values().copied().zip(d.entries.values().copied()));
            }
            (c, d) => assert_eq!(c, d),
        }
    }
    assert_eq!(a.len(), b.len());
}

#[test]
fn an_object_comes_back_with_its_marks() {
    let mut tree = sample(DeviceId::PRIMARY);
    let root = InodeId::ROOT;
    add(&mut tree, root, "whiteout", Kind::Whiteout);
    add(&mut tree, root, "real-0-0", Kind::Char(Rdev::new(0, 0).unwrap()));
    add(&mut tree, root, "below", Kind::LowerLink(GuestPath::parse(b"usr/bin/x").unwrap()));
    add(&mut tree, root, "opaque", Kind::Dir(Dir { opaque: true, ..Dir::default() }));
    add(&mut tree, root, "implied", Kind::Dir(Dir { implied: true, ..Dir::default() }));
    let mut writer = ObjectWriter::new(scratch()).unwrap();
    writer.data().data(&[1; 64 << 10]).unwrap();
    let (file, hash) = writer.finish(&tree, DiffId::of(b"x")).unwrap();
    let bytes = bytes_of(file);
    assert_eq!(hash, Blake3::of(&bytes));
    let reader = Reader::new(&bytes).unwrap();
    same(&tree, &reader.tree(Form::Object, &Budget::default()).unwrap());
}

#[test]
fn an_image_comes_back_for_any_number_of_layers() {
    for layers in [1u16, 3, 24, 500, 65535] {
        let tree = sample(DeviceId(layers));
        let device = LayerDevice {
            diff_id: DiffId::of(b"x"),
            blake3: Blake3::of(b"x"),
            size: 9 * BLOCK_SIZE,
        };
        let devices = vec![device; layers.into()];
        let written = fsmeta::write(&tree, &devices, scratch()).unwrap();
        let bytes = bytes_of(written.file);
        assert_eq!(written.blake3, Blake3::of(&bytes));
        let reader = Reader::new(&bytes).unwrap();
        assert_eq!(reader.devices().len(), usize::from(layers));
        same(&tree, &reader.tree(Form::Image, &Budget::default()).unwrap());
    }
}

#[test]
fn one_flipped_byte_is_an_error_or_another_tree_but_never_a_panic() {
    let mut tree = Tree::new(Stat::IMPLIED_DIR);
    let dir = add(&mut tree, InodeId::ROOT, "dir", Kind::Dir(Dir::default()));
    add(&mut tree, dir, "link", Kind::Symlink(b"target".as_slice().into()));
    let file = Extents::contiguous(1500, DeviceId::PRIMARY, BlockAddr(2), 2);
    let file = add(&mut tree, dir, "file", Kind::File(file));
    tree.inode_mut(file).xattrs.set(*b"user.a", *b"b");
    let mut writer = ObjectWriter::new(scratch()).unwrap();
    writer.data().data(&[1; 2048]).unwrap();
    let (object, _) = writer.finish(&tree, DiffId::of(b"x")).unwrap();
    let good = bytes_of(object);
    let metadata = 2048 + 2048;
    for at in metadata..good.len() {
        for flip in [1, 0x80, 0xff] {
            let mut bytes = good.clone();
            bytes[at] ^= flip;
            let _ = Reader::new(&bytes)
                .and_then(|reader| reader.tree(Form::Object, &Budget::default()));
        }
    }
    // The superblock has a checksum: every flip is found.
    for at in 1024..2048 {
        let mut bytes = good.clone();
        bytes[at] ^= 1;
        assert!(Reader::new(&bytes).is_err(), "offset {at}");
    }
}

#[test]
fn what_erofs_cannot_hold_is_an_error_with_its_path() {
    let fails = |kind, xattr: Option<(&[u8], usize)>| {
        let mut tree = Tree::new(Stat::IMPLIED_DIR);
        let dir = add(&mut tree, InodeId::ROOT, "dir", Kind::Dir(Dir::default()));
        let id = add(&mut tree, dir, "it", kind);
        if let Some((name, len)) = xattr {
            tree.inode_mut(id).xattrs.set(name, vec![0; len]);
        }
        let writer = ObjectWriter::new(scratch()).unwrap();
        // As it is shown: with all that led to it.
        format!("{:#}", anyhow::Error::from(writer.finish(&tree, DiffId::of(b"x")).unwrap_err()))
    };
    let message = fails(Kind::Fifo, Some((b"user.a", 65536)));
    assert!(message.contains("dir/it") && message.contains("65535"), "{message}");
    assert_eq!(message.matches("65536").count(), 1, "said twice: {message}");
    let message = fails(Kind::Fifo, Some((b"com.apple.quarantine", 1)));
    assert!(message.contains("dir/it") && message.contains("name space"), "{message}");
    let message = fails(Kind::Symlink(Box::default()), None);
    assert!(message.contains("dir/it") && message.contains("symbolic link"), "{message}");
}

/// An object of `files` files with two chunk indexes each, and where each one's inode is.
fn chunked(files: usize) -> (Vec<u8>, Vec<u64>) {
    let mut tree = Tree::new(Stat::IMPLIED_DIR);
    let run = |file_block, start| Extent {
        file_block,
        device: DeviceId::PRIMARY,
        start: BlockAddr(start),
        len: 1,
    };
    for i in 0..files {
        let runs = [run(0, 2), run(1, 3)][..].into();
        let runs = Kind::File(Extents { size: 3 << 10, runs });
        add(&mut tree, InodeId::ROOT, &format!("f{i:04}"), runs);
    }
    let mut writer = ObjectWriter::new(scratch()).unwrap();
    writer.data().data(&[1; 2048]).unwrap();
    let start = writer.data().position();
    let plan = crate::erofs::plan::Plan::new(&tree, Form::Object, start).unwrap();
    let offsets = (1..=files as u32).map(|id| plan.node(InodeId(id)).offset).collect();
    let (object, _) = writer.finish(&tree, DiffId::of(b"x")).unwrap();
    (bytes_of(object), offsets)
}

#[test]
fn the_blocks_of_one_link_are_no_others() {
    let mut tree = Tree::new(Stat::IMPLIED_DIR);
    for i in 0..200 {
        // Too long to stand behind the inode.
        let target = Kind::Symlink(vec![b'x'; 4000].into());
        add(&mut tree, InodeId::ROOT, &format!("l{i:04}"), target);
    }
    let mut writer = ObjectWriter::new(scratch()).unwrap();
    let start = writer.data().position();
    let plan = crate::erofs::plan::Plan::new(&tree, Form::Object, start).unwrap();
    let offsets: Vec<u64> = (1..=200).map(|id| plan.node(InodeId(id)).offset).collect();
    let (object, _) = writer.finish(&tree, DiffId::of(b"x")).unwrap();
    let mut bytes = bytes_of(object);
    let read = |bytes: &[u8]| Reader::new(bytes)?.tree(Form::Object, &Budget::default());
    read(&bytes).unwrap();
    // All lead to the blocks of the first, and those of the others are cut off.
    let first = bytes[offsets[0] as usize + 16..][..4].to_owned();
    for at in &offsets {
        bytes[*at as usize + 16..][..4].copy_from_slice(&first);
    }
    let mut head: [u8; HEAD_SIZE] = *bytes.first_chunk().unwrap();
    let sealed = head[SUPER_OFFSET..].first_chunk().unwrap();
    let mut superblock = SuperBlock::decode(sealed).unwrap();
    superblock.blocks = u32::from_le_bytes(first.try_into().unwrap()) + 4;
    superblock.seal(&mut head);
    bytes.truncate(superblock.blocks as usize * BLOCK_SIZE as usize);
    bytes[..HEAD_SIZE].copy_from_slice(&head);
    let error = read(&bytes).unwrap_err().to_string();
    assert!(error.contains("lie over each other"), "{error}");
}

#[test]
fn what_is_kept_of_a_tree_has_a_budget_that_names_its_option() {
    let (object, _) = chunked(200);
    let reader = Reader::new(&object).unwrap();
    let budget = Budget::default();
    reader.tree(Form::Object, &budget).unwrap();
    let used = budget.used();
    reader.tree(Form::Object, &Budget::new(used)).unwrap();
    for less in [used - 1, used / 2, 0] {
        let error = reader.tree(Form::Object, &Budget::new(less)).unwrap_err().to_string();
        assert!(error.contains("--max-metadata-bytes"), "{error}");
    }
}

/// An object without data, the offset of its root, and the number of a fifo in it.
fn fifos() -> (Vec<u8>, usize, u64) {
    let mut tree = Tree::new(Stat::IMPLIED_DIR);
    for i in 0..100 {
        add(&mut tree, InodeId::ROOT, &format!("name-{i:0>100}"), Kind::Fifo);
    }
    let mut writer = ObjectWriter::new(scratch()).unwrap();
    let start = writer.data().position();
    let plan = crate::erofs::plan::Plan::new(&tree, Form::Object, start).unwrap();
    let base = u64::from(plan.meta_blkaddr) * BLOCK_SIZE;
    let fifo = (plan.node(InodeId(1)).offset - base) / NID_SLOT;
    let root = plan.node(InodeId::ROOT).offset as usize;
    (bytes_of(writer.finish(&tree, DiffId::of(b"x")).unwrap().0), root, fifo)
}

/// The object with `blocks`, one behind the other, as the entries of its root.
fn with_root((mut bytes, root, _): (Vec<u8>, usize, u64), blocks: &[u8]) -> Vec<u8> {
    let size = if DiskInode::decode(&bytes[root..]).unwrap().extended { 8 } else { 4 };
    bytes[root + 8..][..size].copy_from_slice(&(blocks.len() as u64).to_le_bytes()[..size]);
    let first = (bytes.len() as u64 / BLOCK_SIZE) as u32;
    bytes[root + 16..][..4].copy_from_slice(&first.to_le_bytes());
    bytes.extend_from_slice(blocks);
    let mut head: [u8; HEAD_SIZE] = *bytes.first_chunk().unwrap();
    let mut superblock = SuperBlock::decode(head[SUPER_OFFSET..].first_chunk().unwrap()).unwrap();
    superblock.blocks = (bytes.len() as u64 / BLOCK_SIZE) as u32;
    superblock.seal(&mut head);
    bytes[..HEAD_SIZE].copy_from_slice(&head);
    bytes
}

/// A directory's block with `names`, all of the fifo `nid`.
fn block_of(names: &[String], nid: u64) -> Vec<u8> {
    let mut block = Vec::new();
    let mut nameoff = names.len() * DIRENT_SIZE;
    for name in names {
        let nameoff16 = nameoff as u16;
        DiskDirent { nid, nameoff: nameoff16, file_type: 5 }.encode(&mut block);
        nameoff += name.len();
    }
    names.iter().for_each(|name| block.extend_from_slice(name.as_bytes()));
    block.resize(BLOCK_SIZE as usize, 0);
    block
}

#[test]
fn entries_are_weighed_before_the_next_is_read() {
    let object = fifos();
    let fifo = object.2;
    let refused = |blocks: &[u8], budget: u64| {
        let bytes = with_root(object.clone(), blocks);
        let tree = Reader::new(&bytes).unwrap().tree(Form::Object, &Budget::new(budget));
        tree.unwrap_err().to_string()
    };
    // 85 000 entries, of which no two may be alike, and none may be like these.
    let error = refused(&block_of(&vec![String::new(); 85], fifo).repeat(1000), 1 << 30);
    assert!(error.contains("a name is empty"), "{error}");
    // In order but for the last, which is not reached.
    let names = |i: u32| (0..40).map(|j| format!("n{i:06}{j:03}")).collect::<Vec<_>>();
    let mut blocks: Vec<u8> = (0..1000).flat_map(|i| block_of(&names(i), fifo)).collect();
    blocks.extend(block_of(&names(0), fifo));
    let error = refused(&blocks, 1 << 30);
    assert!(error.contains("not behind the one before it"), "{error}");
    let error = refused(&blocks, 1 << 20);
    assert!(error.contains("--max-metadata-bytes"), "{error}");
}

#[test]
fn extents_are_weighed_before_the_next_is_read() {
    let mut tree = Tree::new(Stat::IMPLIED_DIR);
    let run = |at: u64| Extent {
        file_block: at,
        device: DeviceId::PRIMARY,
        // No two are neighbours.
        start: BlockAddr(2 + at as u32 % 2 * 2),
        len: 1,
    };
    let runs: Vec<Extent> = (0..20_000).map(run).collect();
    let file = Kind::File(Extents { size: 20_000 << 10, runs: runs[..].into() });
    add(&mut tree, InodeId::ROOT, "file", file);
    let mut writer = ObjectWriter::new(scratch()).unwrap();
    writer.data().data(&[1; 8192]).unwrap();
    let (object, _) = writer.finish(&tree, DiffId::of(b"x")).unwrap();
    let mut bytes = bytes_of(object);
    let read = |bytes: &[u8], budget| {
        Reader::new(bytes).unwrap().tree(Form::Object, &Budget::new(budget)).map(drop)
    };
    read(&bytes, 1 << 20).unwrap();
    // The last index leads nowhere, and is not reached.
    let index = [&[0, 0, 0xff, 0][..], &4u32.to_le_bytes()].concat();
    let good = [&[0, 0, 0, 0][..], &4u32.to_le_bytes()].concat();
    let last = bytes.windows(8).rposition(|window| window == good).unwrap();
    bytes[last..last + 8].copy_from_slice(&index);
    let error = |budget| read(&bytes, budget).unwrap_err().to_string();
    assert!(error(1 << 20).contains("not in the table"), "{}", error(1 << 20));
    assert!(error(400 << 10).contains("--max-metadata-bytes"), "{}", error(400 << 10));
}
