//! The upper's file system, judged by e2fsck and, as root, by the kernel.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io;
use std::ops::Range;
use std::os::unix::fs::{FileExt as _, FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use fsimage::ext4::{self, Content, Error, Layout};
use fsimage::io::sink::{FileSink, Sink};
use fsimage::tree::{Dir, Inode, InodeId, Kind, Name, Rdev, Stat, Timestamp, Tree, Xattrs};

/// A directory that goes away with its owner, and what is mounted in it.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("ext4-{name}-{}", std::process::id()));
        fs::create_dir_all(path.join("mnt")).unwrap();
        Self(path)
    }

    fn image(&self) -> PathBuf {
        self.0.join("image")
    }

    fn mount(&self) -> PathBuf {
        let at = self.0.join("mnt");
        let mut mount = Command::new("mount");
        mount.args(["-t", "ext4", "-o", "ro,loop"]).arg(self.image()).arg(&at);
        let out = mount.output().expect("mount is missing: apt-get install mount");
        assert!(out.status.success(), "mount (as root?): {}", String::from_utf8_lossy(&out.stderr));
        at
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0.join("mnt")).output();
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn write<C: Content>(tree: &Tree<C>, size: u64, to: &Path) -> Result<u64, Error> {
    let mut sink = FileSink::new(File::create(to).unwrap());
    Layout::at(tree, size)?.write(&[3; 32], &mut sink)?;
    let (file, _) = sink.finish(&[])?;
    assert_eq!(file.metadata().unwrap().len(), size);
    Ok(file.metadata().unwrap().blocks() * 512)
}

/// Clean, and nothing else said.
fn check(image: &Path) {
    let mut fsck = Command::new("e2fsck");
    fsck.env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin").arg("-fn").arg(image);
    let out = fsck.output().expect("e2fsck is missing: apt-get install e2fsprogs");
    let text = String::from_utf8_lossy(&out.stdout) + String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "{text}");
    let odd: Vec<_> = text
        .lines()
        .filter(|l| !l.starts_with("Pass ") && !l.starts_with("e2fsck ") && !l.contains(" files ("))
        .filter(|l| !l.trim().is_empty())
        .collect();
    assert!(odd.is_empty(), "{text}");
}

fn add<C>(tree: &mut Tree<C>, dir: InodeId, name: &[u8], stat: Stat, kind: Kind<C>) -> InodeId {
    let id = tree.push(Inode { stat, xattrs: Xattrs::default(), kind }).unwrap();
    tree.dir_mut(dir).unwrap().entries.insert(Name::new(name).unwrap(), id);
    id
}

fn sample() -> Tree<Vec<u8>> {
    let root = InodeId::ROOT;
    let mut tree = Tree::new(Stat {
        mode: 0o1777,
        uid: 7,
        gid: 8,
        mtime: Timestamp { sec: 1 << 33, nsec: 5 },
    });
    let stat = |mode, sec, nsec| Stat {
        mode,
        uid: 70_000,
        gid: u32::MAX - 1,
        mtime: Timestamp { sec, nsec },
    };
    for len in [0, 1, 4095, 4096, 4097, 300_000, 40 << 20] {
        let bytes = (0..len).map(|i| (i * 31 % 251) as u8 + 1).collect();
        add(
            &mut tree,
            root,
            format!("file-{len}").as_bytes(),
            stat(0o4755, -5, 999_999_999),
            Kind::File(bytes),
        );
    }
    add(&mut tree, root, b"zeros", stat(0o600, 1, 1), Kind::File(vec![0; 10 << 20]));
    for len in [1, 59, 60, 4095] {
        let (name, target) = (format!("link-{len}"), vec![b'x'; len].into());
        add(&mut tree, root, name.as_bytes(), stat(0o777, 9, 9), Kind::Symlink(target));
    }
    add(&mut tree, root, b"small", stat(0o640, 2, 2), Kind::Char(Rdev::new(1, 3).unwrap()));
    add(
        &mut tree,
        root,
        b"large",
        stat(0o640, 2, 2),
        Kind::Block(Rdev::new(4000, 1_000_000).unwrap()),
    );
    add(&mut tree, root, b"fifo", stat(0o640, 2, 2), Kind::Fifo);
    add(&mut tree, root, b"socket", stat(0o640, 2, 2), Kind::Socket);
    let shared = add(&mut tree, root, b"shared", stat(0o644, 3, 3), Kind::File(b"shared".to_vec()));
    let dir = add(&mut tree, root, b"dir", stat(0o2755, 4, 4), Kind::Dir(Dir::default()));
    tree.dir_mut(dir).unwrap().entries.insert(Name::new(b"other-name").unwrap(), shared);
    for i in 0..5000 {
        let name = format!("{i:0>width$}", width = 4 + i % 251);
        add(&mut tree, dir, name.as_bytes(), stat(0o600, i as i64, 0), Kind::File(Vec::new()));
    }
    for (i, len) in [0, 3, 60, 500, 3000].into_iter().enumerate() {
        let id = add(
            &mut tree,
            root,
            format!("xattr-{i}").as_bytes(),
            stat(0o644, 0, 0),
            Kind::File(Vec::new()),
        );
        let xattrs = &mut tree.inode_mut(id).xattrs;
        xattrs.set(*b"user.value", vec![i as u8 + 1; len]);
        xattrs.set(*b"trusted.b", *b"1");
        xattrs.set(
            *b"security.capability",
            [1, 0, 0, 2, 0, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        );
    }
    tree
}

fn compare(tree: &Tree<Vec<u8>>, at: &Path) {
    let mut dirs = vec![(InodeId::ROOT, at.to_owned())];
    let mut inodes: HashMap<InodeId, u64> = HashMap::new();
    let mut links: HashMap<InodeId, u64> = HashMap::new();
    while let Some((id, path)) = dirs.pop() {
        let dir = tree.dir(id).unwrap();
        let mut found: Vec<String> = fs::read_dir(&path)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name != "lost+found")
            .collect();
        found.sort();
        let wanted: Vec<String> = dir.entries.keys().map(Name::to_string).collect();
        assert_eq!(found, wanted, "{}", path.display());
        for (name, child) in &dir.entries {
            let path = path.join(name.to_string());
            let inode = tree.inode(*child);
            let m = fs::symlink_metadata(&path).unwrap();
            let shown = path.display();
            let stat = inode.stat;
            assert_eq!(m.mode() & 0o7777, u32::from(stat.mode), "{shown}");
            assert_eq!((m.uid(), m.gid()), (stat.uid, stat.gid), "{shown}");
            assert_eq!(
                (m.mtime(), m.mtime_nsec()),
                (stat.mtime.sec, stat.mtime.nsec.into()),
                "{shown}"
            );
            assert_eq!(*inodes.entry(*child).or_insert(m.ino()), m.ino(), "{shown}");
            *links.entry(*child).or_default() += 1;
            let device = |rdev: Rdev| (u64::from(rdev.major()), u64::from(rdev.minor()));
            let found_device = {
                let dev = m.rdev();
                (dev >> 8 & 0xfff | dev >> 32 & !0xfff, dev & 0xff | dev >> 12 & 0xffff_ff00)
            };
            let kind = m.file_type();
            match &inode.kind {
                Kind::Dir(_) => {
                    assert!(kind.is_dir(), "{shown}");
                    dirs.push((*child, path.clone()));
                }
                Kind::File(bytes) => assert!(fs::read(&path).unwrap() == *bytes, "{shown}"),
                Kind::Symlink(target) => {
                    let found = fs::read_link(&path).unwrap();
                    assert_eq!(found.as_os_str().as_encoded_bytes(), &**target, "{shown}");
                }
                Kind::Char(rdev) => {
                    assert!(kind.is_char_device() && found_device == device(*rdev), "{shown}")
                }
                Kind::Block(rdev) => {
                    assert!(kind.is_block_device() && found_device == device(*rdev), "{shown}")
                }
                Kind::Fifo => assert!(kind.is_fifo(), "{shown}"),
                Kind::Socket => assert!(kind.is_socket(), "{shown}"),
                other => panic!("{other:?}"),
            }
            for xattr in inode.xattrs.iter() {
                let mut value = vec![0; 4096];
                let name = String::from_utf8(xattr.name.to_vec()).unwrap();
                let n = rustix::fs::lgetxattr(&path, &*name, &mut value).unwrap();
                assert_eq!(&value[..n], &*xattr.value, "{shown} {name}");
            }
        }
    }
    for (id, count) in links {
        if tree.dir(id).is_none() {
            let path = tree.path_of(id).unwrap().to_string();
            assert_eq!(fs::symlink_metadata(at.join(&path)).unwrap().nlink(), count, "{path}");
        }
    }
}

/// Bytes that follow from their position, none of them zero, outside of holes.
#[derive(Debug, Default)]
struct Sparse {
    size: u64,
    data: Vec<Range<u64>>,
    /// So many bytes less than were asked for, or more.
    off: i64,
    /// The longest range that was asked for.
    longest: std::cell::Cell<u64>,
}

const PERIOD: u64 = 251;
const PART: u64 = 1 << 16;

fn pattern(at: u64, len: u64) -> Vec<u8> {
    (at..at + len).map(|at| (at % PERIOD) as u8 + 1).collect()
}

impl Content for Sparse {
    fn size(&self) -> u64 {
        self.size
    }

    fn data(&self) -> io::Result<Vec<Range<u64>>> {
        Ok(self.data.clone())
    }

    fn copy(&self, range: Range<u64>, sink: &mut dyn Sink) -> io::Result<()> {
        self.longest.update(|longest| longest.max(range.end - range.start));
        let end = range.end.checked_add_signed(self.off).unwrap();
        let all = pattern(0, PERIOD + PART.min(end - range.start));
        for at in (range.start..end).step_by(PART as usize) {
            let start = (at % PERIOD) as usize;
            sink.data(&all[start..][..PART.min(end - at) as usize])?;
        }
        Ok(())
    }
}

/// Takes an image and keeps none of it.
#[derive(Default)]
struct Count {
    position: u64,
    data: u64,
    longest: usize,
    /// Where it fails.
    full: Option<u64>,
}

impl Sink for Count {
    fn data(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.full.is_some_and(|full| self.position + bytes.len() as u64 > full) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.data += bytes.len() as u64;
        self.longest = self.longest.max(bytes.len());
        self.position += bytes.len() as u64;
        Ok(())
    }

    fn zeros(&mut self, len: u64) -> io::Result<()> {
        self.position += len;
        Ok(())
    }

    fn position(&self) -> u64 {
        self.position
    }
}

fn count<C: Content>(tree: &Tree<C>, size: u64, full: Option<u64>) -> Result<Count, Error> {
    let mut sink = Count { full, ..Count::default() };
    Layout::at(tree, size)?.write(&[3; 32], &mut sink)?;
    assert_eq!(sink.position, size);
    Ok(sink)
}

/// A tree of one file for each size and list of ranges.
fn files(list: impl IntoIterator<Item = (u64, Vec<Range<u64>>)>) -> Tree<Sparse> {
    let mut tree = Tree::new(Stat::IMPLIED_DIR);
    for (i, (size, data)) in list.into_iter().enumerate() {
        let file = Kind::File(Sparse { size, data, ..Sparse::default() });
        add(&mut tree, InodeId::ROOT, i.to_string().as_bytes(), Stat::IMPLIED_DIR, file);
    }
    tree
}

fn part(range: Range<u64>) -> Vec<Range<u64>> {
    vec![range]
}

/// Every `step`-th of `n` places has a block.
fn grid(n: u64, step: u64) -> Vec<Range<u64>> {
    (0..n).map(|i| i * step * 4096).map(|at| at..at + 4096).collect()
}

/// All data are there, holes are zero at their ends, and take no space.
fn compare_sparse(tree: &Tree<Sparse>, at: &Path) {
    for (name, id) in &tree.dir(InodeId::ROOT).unwrap().entries {
        let Kind::File(content) = &tree.inode(*id).kind else { panic!("{name}") };
        let file = File::open(at.join(name.to_string())).unwrap();
        let read = |range: Range<u64>| {
            let mut bytes = vec![0; (range.end - range.start) as usize];
            file.read_exact_at(&mut bytes, range.start).unwrap();
            bytes
        };
        let (mut end, mut blocks) = (0, 0);
        let last = content.size..content.size;
        for data in content.data.iter().chain([&last]) {
            let near = 8192.min(data.start - end);
            for hole in [end..end + near, data.start - near..data.start] {
                assert!(read(hole.clone()).iter().all(|b| *b == 0), "{name}: {hole:?}");
            }
            let len = data.end - data.start;
            assert!(read(data.clone()) == pattern(data.start, len), "{name}: {data:?}");
            (end, blocks) = (data.end, blocks + len.div_ceil(4096));
        }
        let m = file.metadata().unwrap();
        assert_eq!(m.len(), content.size, "{name}");
        let tree = if content.data.len() > 4 { content.data.len() as u64 / 340 + 2 } else { 0 };
        assert!((blocks..=blocks + tree).contains(&(m.blocks() / 8)), "{name}: {}", m.blocks());
    }
}

#[test]
#[ignore = "needs root: it mounts"]
fn holes_of_files_have_no_blocks() {
    let scratch = Scratch::new("holes");
    let mib = 1 << 20;
    let tree = files([
        (0, vec![]),
        (10 * mib + 5, part(mib..10 * mib + 5)),
        (10 * mib + 5, vec![0..mib, 9 * mib..10 * mib + 5]),
        (10 * mib + 5, part(0..8192)),
        (10 * mib + 5, vec![]),
        (5000, vec![0..0, 4096..4096, 4096..5000]),
        // Neighbours that stay apart.
        (32 * 4096, (0..32).map(|i| i * 4096..(i + 1) * 4096).collect()),
        (2000 * 7 * 4096, grid(2000, 7)),
        // A group has 32768 blocks, so its last one is followed by a hole.
        (2 * 33_000 * 4096, grid(33_000, 2)),
        (400 * mib, vec![mib..70 * mib, 128 * mib..200 * mib, 256 * mib..400 * mib]),
    ]);
    write(&tree, 600 * mib, &scratch.image()).unwrap();
    check(&scratch.image());
    compare_sparse(&tree, &scratch.mount());
}

#[test]
#[ignore = "needs root: it mounts"]
fn a_file_may_be_larger_than_its_disk() {
    let scratch = Scratch::new("large");
    let (tib, max) = (1 << 40, ext4::MAX_FILE);
    let tree = files([
        (tib, vec![tib / 2..tib / 2 + 4096, tib - 4096..tib]),
        (max, part(max - 4096..max)),
        (max - 4000, vec![0..4096, max - 4096..max - 4000]),
        (max, vec![]),
    ]);
    let used = write(&tree, 64 << 20, &scratch.image()).unwrap();
    assert!(used < 1 << 20, "{used}");
    check(&scratch.image());
    compare_sparse(&tree, &scratch.mount());
}

#[test]
fn content_that_breaks_its_promises_is_an_error_with_its_path() {
    let size = 16 << 20;
    let error = |tree: &Tree<Sparse>| match count(tree, size, None) {
        Err(Error::Content { path, source }) => {
            assert_eq!(path, "0");
            source.to_string()
        }
        other => panic!("{:?}", other.map(|_| ())),
    };
    for data in [
        part(1..4096),
        part(0..4095),
        part(0..8193),
        part(8192..12288),
        part(Range { start: 4096, end: 0 }),
        vec![4096..8192, 0..4096],
        vec![0..8192, 4096..8192],
        part(u64::MAX - 4095..u64::MAX),
    ] {
        assert!(error(&files([(8192, data.clone())])).contains("ascend"), "{data:?}");
    }
    for (off, came) in [(-8000, 192), (-1, 8191), (1, 8193), (1 << 20, 8192 + 65536)] {
        let mut tree = files([(16384, part(4096..12288))]);
        let id = tree.dir(InodeId::ROOT).unwrap().entries.values().next().copied().unwrap();
        let Kind::File(content) = &mut tree.inode_mut(id).kind else { panic!() };
        content.off = off;
        let error = error(&tree);
        // The first part that is too long ends it.
        let text = if off == 1 << 20 { "came for the 8192".into() } else { format!("{came} ") };
        assert!(error.contains(&text), "{off}: {error}");
    }
    // What the sink says is not the content's fault.
    let tree = files([(8 << 20, part(0..8 << 20))]);
    assert!(matches!(count(&tree, size, Some(9 << 20)), Err(Error::Io(_))));
    let tree = files([(ext4::MAX_FILE + 1, vec![])]);
    assert!(matches!(count(&tree, size, None), Err(Error::FileSize { .. })));
}

#[test]
fn content_is_never_collected() {
    let len = 512 << 20;
    let tree = files([(len, part(0..len))]);
    let sink = count(&tree, 1 << 30, None).unwrap();
    assert!((len..len + (1 << 20)).contains(&sink.data), "{}", sink.data);
    assert!(sink.longest <= PART as usize, "{}", sink.longest);
    let Kind::File(content) = &tree.inode(InodeId(1)).kind else { panic!() };
    assert!(content.longest.get() <= 128 << 20, "{:?}", content.longest);
}

#[test]
#[ignore = "needs root: it mounts"]
fn a_whiteout_may_have_many_names() {
    let scratch = Scratch::new("whiteout");
    let mut tree = Tree::<Vec<u8>>::new(Stat::IMPLIED_DIR);
    let id = add(&mut tree, InodeId::ROOT, b"0", Stat::IMPLIED_DIR, Kind::Whiteout);
    for (from, to) in [(1, 3000), (3000, 65_000)] {
        let entries = &mut tree.dir_mut(InodeId::ROOT).unwrap().entries;
        entries.extend((from..to).map(|i| (Name::new(format!("{i}").as_bytes()).unwrap(), id)));
        write(&tree, 16 << 20, &scratch.image()).unwrap();
        check(&scratch.image());
        for name in ["0", "2999"] {
            let m = fs::symlink_metadata(scratch.mount().join(name)).unwrap();
            assert!(m.file_type().is_char_device() && m.rdev() == 0);
            assert_eq!((m.nlink(), m.blocks()), (to as u64, 0));
            assert!(Command::new("umount").arg(scratch.0.join("mnt")).status().unwrap().success());
        }
    }
    tree.dir_mut(InodeId::ROOT).unwrap().entries.insert(Name::new(b"more").unwrap(), id);
    assert!(matches!(count(&tree, 16 << 20, None), Err(Error::Links { links: 65_001, .. })));
}

#[test]
#[ignore = "needs root: it mounts"]
fn every_kind_of_inode_is_as_the_tree_says() {
    // At 200 MiB, the large file spans block groups.
    for size in [200 << 20, (200 << 20) + 4096 * 777] {
        let (tree, scratch) = (sample(), Scratch::new("kinds"));
        write(&tree, size, &scratch.image()).unwrap();
        check(&scratch.image());
        compare(&tree, &scratch.mount());
    }
}

#[test]
fn sizes_are_any_number_of_blocks_from_16_mib_to_beyond_a_tebibyte() {
    let scratch = Scratch::new("sizes");
    let tree = Tree::<Vec<u8>>::new(Stat::IMPLIED_DIR);
    let mib = 1u64 << 20;
    let group = 128 * mib;
    for size in [
        16 * mib,
        17 * mib + 4096,
        group,
        group + 4096,
        group * 16 + 8192,
        4096 * mib,
        102_400 * mib,
        mib * mib + 4096,
    ] {
        let used = write(&tree, size, &scratch.image()).unwrap();
        check(&scratch.image());
        let bound = if size <= 4096 * mib { mib } else { size / 4096 };
        assert!(used <= bound, "{size}: {used} bytes on disk");
    }
}

#[test]
fn what_does_not_fit_is_an_error_that_says_what_would() {
    let scratch = Scratch::new("errors");
    let mut tree = Tree::new(Stat::IMPLIED_DIR);
    for size in [0, 16 << 20 | 1, (16 << 20) - 4096, (16 << 40) + 4096] {
        assert!(matches!(write(&tree, size, &scratch.image()), Err(Error::Size(_))));
    }
    let file = Kind::File(vec![1; 30 << 20]);
    let id = add(&mut tree, InodeId::ROOT, b"big", Stat::IMPLIED_DIR, file);
    let Err(Error::Full { least, .. }) = write(&tree, 16 << 20, &scratch.image()) else {
        panic!("30 MiB do not fit into 16");
    };
    write(&tree, least, &scratch.image()).unwrap();
    check(&scratch.image());
    tree.inode_mut(id).xattrs.set(*b"user.x", vec![0; 5000]);
    let error = write(&tree, 1 << 30, &scratch.image()).unwrap_err().to_string();
    assert!(error.starts_with("big: ") && error.contains("4096"), "{error}");
}
