//! The reader of ext4: what was written comes back, e2fsck and the kernel judge
//! what is accepted, and no damage makes it panic. The kernel's part is ignored
//! unless root asks for it.

mod foreign;
mod forge;
mod mutants;

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::process::Command;

use fsimage::budget::Budget;
use fsimage::ext4::read::{self, FileData, OnDisk, Reader, with_marks};
use fsimage::ext4::{self, Layout};
use fsimage::io::sink::{FileSink, Sink};
use fsimage::tree::{Dir, Inode, InodeId, Kind, Name, Rdev, Stat, Timestamp, Tree, Xattrs};

const MIB: u64 = 1 << 20;

fn name(bytes: &[u8]) -> Name {
    Name::new(bytes).unwrap()
}

fn add<C>(tree: &mut Tree<C>, dir: InodeId, at: &[u8], stat: Stat, kind: Kind<C>) -> InodeId {
    let id = tree.push(Inode { stat, xattrs: Xattrs::default(), kind }).unwrap();
    tree.dir_mut(dir).unwrap().entries.insert(name(at), id);
    id
}

/// A tree with an empty `/upper` and `/work`; the first is returned too.
fn empty() -> (Tree<Vec<u8>>, InodeId) {
    let mut tree = Tree::new(Stat::IMPLIED_DIR);
    let private = Stat { mode: 0o700, ..Stat::IMPLIED_DIR };
    let root = InodeId::ROOT;
    let upper = add(&mut tree, root, b"upper", Stat::IMPLIED_DIR, Kind::Dir(Dir::default()));
    add(&mut tree, root, b"work", private, Kind::Dir(Dir::default()));
    (tree, upper)
}

/// An upper with every kind of inode, mark, xattr and mapping.
fn sample() -> Tree<Vec<u8>> {
    let (mut tree, upper) = empty();
    let stat = |mode, sec, nsec| Stat {
        mode,
        uid: 70_000,
        gid: u32::MAX - 1,
        mtime: Timestamp { sec, nsec },
    };
    for len in [0, 1, 4096, 4097, 300_000] {
        let bytes = (0..len).map(|i| (i * 31 % 251) as u8 + 1).collect();
        let at = format!("file-{len}");
        add(&mut tree, upper, at.as_bytes(), stat(0o4755, -5, 999_999_999), Kind::File(bytes));
    }
    for len in [1, 59, 60, 4095] {
        let target = Kind::Symlink(vec![b'x'; len].into());
        add(&mut tree, upper, format!("link-{len}").as_bytes(), stat(0o777, 1 << 33, 9), target);
    }
    let device = |major, minor| Rdev::new(major, minor).unwrap();
    add(&mut tree, upper, b"small", stat(0o640, 2, 2), Kind::Char(device(1, 3)));
    add(&mut tree, upper, b"large", stat(0o640, 2, 2), Kind::Block(device(4000, 1_000_000)));
    add(&mut tree, upper, b"fifo", stat(0o640, 2, 2), Kind::Fifo);
    add(&mut tree, upper, b"socket", stat(0o640, 2, 2), Kind::Socket);
    let shared = add(&mut tree, upper, b"shared", stat(0o644, 3, 3), Kind::File(b"s".to_vec()));
    let dir = add(&mut tree, upper, b"dir", stat(0o2755, 4, 4), Kind::Dir(Dir::default()));
    tree.dir_mut(dir).unwrap().entries.insert(name(b"other-name"), shared);
    for i in 0..100 {
        let at = format!("{i:0>width$}", width = 4 + i * 2);
        add(&mut tree, dir, at.as_bytes(), stat(0o600, i as i64, 0), Kind::File(Vec::new()));
    }
    let whiteout = Stat { mode: 0, ..Stat::IMPLIED_DIR };
    let gone = add(&mut tree, dir, b"gone", whiteout, Kind::Whiteout);
    tree.dir_mut(dir).unwrap().entries.insert(name(b"gone-too"), gone);
    let opaque = Kind::Dir(Dir { opaque: true, ..Dir::default() });
    add(&mut tree, dir, b"replaced", stat(0o755, 4, 4), opaque);
    let acl = [
        2, 0, 0, 0, 1, 0, 6, 0, 255, 255, 255, 255, 2, 0, 7, 0, 232, 3, 0, 0, 4, 0, 4, 0, 255, 255,
        255, 255, 16, 0, 7, 0, 255, 255, 255, 255, 32, 0, 0, 0, 255, 255, 255, 255,
    ];
    for (i, len) in [0, 3, 60, 500, 3000].into_iter().enumerate() {
        let at = format!("xattr-{i}");
        let id = add(&mut tree, upper, at.as_bytes(), stat(0o644, 0, 0), Kind::File(Vec::new()));
        let xattrs = &mut tree.inode_mut(id).xattrs;
        xattrs.set(*b"user.value", vec![i as u8 + 1; len]);
        xattrs.set(*b"trusted.b", *b"1");
        xattrs.set(*b"system.posix_acl_access", acl);
        let capability = [1, 0, 0, 2, 0, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        xattrs.set(*b"security.capability", capability);
    }
    tree
}

/// The image of `tree` in a file without a name.
fn image(tree: &Tree<impl ext4::Content>, size: u64) -> File {
    let mut sink = FileSink::new(tempfile::tempfile().unwrap());
    Layout::at(tree, size).unwrap().write(&[3; 32], &mut sink).unwrap();
    sink.finish(&[]).unwrap().0
}

/// A path at which other programs can open `file`.
fn path_of(file: &File) -> String {
    use std::os::fd::AsRawFd as _;
    format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd())
}

/// Whether e2fsck finds nothing to mend, and what it says.
fn fsck(file: &File) -> (bool, String) {
    let mut fsck = Command::new("e2fsck");
    fsck.env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin").arg("-fn").arg(path_of(file));
    let out = fsck.output().expect("e2fsck is missing: apt-get install e2fsprogs");
    let text = String::from_utf8_lossy(&out.stdout) + String::from_utf8_lossy(&out.stderr);
    (out.status.success(), text.into_owned())
}

/// What paths lead to is the same; arenas may differ in order. lost+found, which
/// the writer adds, is left out.
fn same(wanted: &Tree<Vec<u8>>, found: &Tree<FileData>, reader: &Reader<'_>) {
    let mut pairs = vec![(InodeId::ROOT, InodeId::ROOT)];
    let mut ids = HashMap::new();
    while let Some((x, y)) = pairs.pop() {
        assert_eq!(*ids.entry(x).or_insert(y), y, "hard links differ");
        let (m, n) = (wanted.inode(x), found.inode(y));
        assert_eq!((m.stat, &m.xattrs), (n.stat, &n.xattrs));
        match (&m.kind, &n.kind) {
            (Kind::Dir(c), Kind::Dir(d)) => {
                assert_eq!(c.opaque, d.opaque);
                let mut entries = d.entries.clone();
                entries.remove(&name(b"lost+found"));
                assert!(c.entries.keys().eq(entries.keys()));
                pairs.extend(c.entries.values().copied().zip(entries.values().copied()));
            }
            (Kind::File(bytes), Kind::File(data)) => {
                let mut found = vec![0xee; bytes.len()];
                reader.read_file(data, 0, &mut found).unwrap();
                assert!(data.size() == bytes.len() as u64 && found == *bytes);
            }
            (Kind::Symlink(a), Kind::Symlink(b)) => assert_eq!(a, b),
            (Kind::Char(a), Kind::Char(b)) | (Kind::Block(a), Kind::Block(b)) => assert_eq!(a, b),
            (Kind::Fifo, Kind::Fifo)
            | (Kind::Socket, Kind::Socket)
            | (Kind::Whiteout, Kind::Whiteout) => {}
            (a, b) => panic!("{a:?} {b:?}"),
        }
    }
}

fn bytes(file: &File) -> Vec<u8> {
    let mut bytes = vec![0; file.metadata().unwrap().len() as usize];
    file.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

#[test]
fn what_was_written_comes_back_and_makes_the_same_bytes_again() {
    for size in [16 * MIB, 200 * MIB + 4096 * 777] {
        for tree in [empty().0, sample()] {
            let file = image(&tree, size);
            read::check(&file, &Budget::default()).unwrap();
            let memory = Budget::default();
            let reader = Reader::new(&file, &memory).unwrap();
            let found = with_marks(reader.tree().unwrap());
            same(&tree, &found, &reader);
            let again = found.map_files(|data| OnDisk { reader: &reader, data });
            assert!(bytes(&image(&again, size)) == bytes(&file), "{size}");
        }
    }
}

#[test]
fn an_upper_of_any_size_is_sound() {
    for size in [16 * MIB, 128 * MIB + 4096, 128 * 16 * MIB + 8192, 4 << 30, 1 << 40, 8 << 40] {
        read::check(&image(&empty().0, size), &Budget::default()).unwrap();
    }
}

#[test]
fn deep_extent_trees_and_many_directory_blocks_are_sound() {
    let (tree, upper) = empty();
    let mut tree = tree.map_files(Sparse);
    for (i, runs) in [1u8, 0, 100, 255].into_iter().enumerate() {
        let file = Kind::File(Sparse(vec![runs]));
        add(&mut tree, upper, i.to_string().as_bytes(), Stat::IMPLIED_DIR, file);
    }
    let dir = add(&mut tree, upper, b"dir", Stat::IMPLIED_DIR, Kind::Dir(Dir::default()));
    for i in 0..3000 {
        let at = format!("{i:0>width$}", width = 4 + i % 251);
        add(&mut tree, dir, at.as_bytes(), Stat::IMPLIED_DIR, Kind::Fifo);
    }
    let file = image(&tree, 600 * MIB);
    read::check(&file, &Budget::default()).unwrap();
    let (clean, text) = fsck(&file);
    assert!(clean, "{text}");
}

#[test]
fn what_is_kept_of_an_upper_has_a_budget_that_names_its_option() {
    let file = image(&sample(), 16 * MIB);
    let budget = Budget::default();
    read::check(&file, &budget).unwrap();
    let used = budget.used();
    read::check(&file, &Budget::new(used)).unwrap();
    for less in [used - 1, used / 2, 0] {
        let error = read::check(&file, &Budget::new(less)).unwrap_err().to_string();
        assert!(error.contains("--max-metadata-bytes"), "{error}");
    }
}

#[test]
fn all_that_an_upper_is_made_of_is_weighed() {
    let with = |fill: &dyn Fn(&mut Tree<Sparse>, InodeId)| {
        let (tree, upper) = empty();
        let mut tree = tree.map_files(Sparse);
        fill(&mut tree, upper);
        tree
    };
    let one = |tree: &mut Tree<Sparse>, dir, i: u32, kind| {
        add(tree, dir, format!("{i:06}").as_bytes(), Stat::IMPLIED_DIR, kind)
    };
    let inodes = with(&|tree, upper| {
        for i in 0..2000 {
            one(tree, upper, i, Kind::Fifo);
        }
    });
    let dirs = with(&|tree, upper| {
        for i in 0..2000 {
            one(tree, upper, i, Kind::Dir(Dir::default()));
        }
    });
    let names = with(&|tree, upper| {
        let id = one(tree, upper, 0, Kind::Fifo);
        let entries = &mut tree.dir_mut(upper).unwrap().entries;
        entries.extend((1..2000).map(|i| (name(format!("{i:0>200}").as_bytes()), id)));
    });
    let xattrs = with(&|tree, upper| {
        for i in 0..200 {
            let id = one(tree, upper, i, Kind::Fifo);
            tree.inode_mut(id).xattrs.set(*b"user.a", vec![1; 3000]);
        }
    });
    let runs = with(&|tree, upper| {
        for i in 0..5 {
            one(tree, upper, i, Kind::File(Sparse(vec![255])));
        }
    });
    let all = [(inodes, 240), (dirs, 500), (names, 300), (xattrs, 600), (runs, 130)];
    for (i, (tree, kib)) in all.into_iter().enumerate() {
        let file = image(&tree, 200 * MIB);
        let budget = Budget::default();
        read::check(&file, &budget).unwrap();
        assert!(budget.used() > kib << 10, "case {i}: {} bytes", budget.used());
        let error = read::check(&file, &Budget::new(kib << 10)).unwrap_err().to_string();
        assert!(error.contains("--max-metadata-bytes"), "{error}");
    }
}

/// Every second block has data; as many of them as its one byte says, times seven.
struct Sparse(Vec<u8>);

impl Sparse {
    fn runs(&self) -> u64 {
        self.0.first().map_or(0, |n| u64::from(*n) * 7)
    }
}

impl ext4::Content for Sparse {
    fn size(&self) -> u64 {
        self.runs() * 8192
    }

    fn data(&self) -> std::io::Result<Vec<std::ops::Range<u64>>> {
        Ok((0..self.runs()).map(|i| i * 8192..i * 8192 + 4096).collect())
    }

    fn copy(&self, range: std::ops::Range<u64>, sink: &mut dyn Sink) -> std::io::Result<()> {
        sink.data(&vec![1; (range.end - range.start) as usize])
    }
}

/// Blocks of zeros are holes.
struct Holes(Vec<u8>);

impl ext4::Content for Holes {
    fn size(&self) -> u64 {
        self.0.len() as u64
    }

    fn data(&self) -> std::io::Result<Vec<std::ops::Range<u64>>> {
        let blocks = self.0.chunks(4096).enumerate();
        let full = blocks.filter(|(_, block)| block.iter().any(|byte| *byte != 0));
        let range = |i: usize, len: usize| (i * 4096) as u64..(i * 4096 + len) as u64;
        Ok(full.map(|(i, block)| range(i, block.len())).collect())
    }

    fn copy(&self, range: std::ops::Range<u64>, sink: &mut dyn Sink) -> std::io::Result<()> {
        sink.data(&self.0[range.start as usize..range.end as usize])
    }
}
