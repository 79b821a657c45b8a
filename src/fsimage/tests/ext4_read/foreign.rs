//! File systems that mke2fs made and the kernel filled, read as the kernel reads them.

use std::collections::{BTreeSet, HashMap};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt as _, FileTypeExt as _, MetadataExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use fsimage::budget::Budget;
use fsimage::ext4::read::{FileData, Reader};
use fsimage::tree::{InodeId, Kind, Name, Rdev, Tree};
use rustix::fs::{AtFlags, CWD, FallocateFlags, FileType, Mode, XattrFlags};

use super::mutants::Random;

/// What mke2fs is told: block maps and extents, blocks of 1 to 4 KiB, checksums of
/// every age, data in inodes, and descriptors in each of their places.
const FEATURES: [&[&str]; 9] = [
    &["-t", "ext4"],
    &["-t", "ext4", "-b", "1024"],
    &["-t", "ext4", "-O", "inline_data,ea_inode"],
    &["-t", "ext4", "-b", "1024", "-I", "1024", "-O", "inline_data,ea_inode,metadata_csum_seed"],
    &["-t", "ext2", "-b", "1024"],
    &["-t", "ext3"],
    &["-t", "ext4", "-b", "2048", "-O", "^metadata_csum,uninit_bg,64bit"],
    &["-t", "ext4", "-b", "1024", "-O", "meta_bg,^resize_inode,^flex_bg,sparse_super2"],
    &["-t", "ext4", "-I", "128", "-O", "^metadata_csum,^64bit,^dir_index,^filetype,^extra_isize"],
];

/// A directory with an image, gone with its owner, and what is mounted in it.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        // In memory if it can be: nearly all the time would be spent on waiting for disks.
        let memory = PathBuf::from("/dev/shm");
        let base = if memory.is_dir() { memory } else { std::env::temp_dir() };
        let path = base.join(format!("ext4-read-{name}-{}", std::process::id()));
        fs::create_dir_all(path.join("mnt")).unwrap();
        Self(path)
    }

    fn image(&self) -> PathBuf {
        self.0.join("image")
    }

    fn mnt(&self) -> PathBuf {
        self.0.join("mnt")
    }

    fn mke2fs(&self, options: &[&str]) {
        let image = self.image();
        File::create(&image).unwrap().set_len(64 << 20).unwrap();
        tool(
            Command::new("mke2fs")
                .args(["-q", "-F", "-E", "lazy_itable_init=0"])
                .args(options)
                .arg(image),
        );
    }

    fn mount(&self, options: &str) {
        tool(
            Command::new("mount")
                .args(["-t", "ext4", "-o", options])
                .arg(self.image())
                .arg(self.mnt()),
        );
    }

    fn unmount(&self) {
        tool(Command::new("umount").arg(self.mnt()));
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.mnt()).output();
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn tool(command: &mut Command) {
    let out = command.env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin").output();
    let out =
        out.unwrap_or_else(|error| panic!("{command:?}: {error}: apt-get install e2fsprogs mount"));
    assert!(
        out.status.success(),
        "{command:?} (as root?): {}",
        String::from_utf8_lossy(&out.stderr)
    );
}

/// Fills a directory with some of everything.
fn fill(top: &Path, random: &mut Random) {
    let mut dirs = vec![top.to_owned()];
    let mut files: Vec<PathBuf> = Vec::new();
    for i in 0..400 {
        let dir = dirs[random.next() as usize % dirs.len()].clone();
        let width = 1 + random.next() as usize % 120;
        let path = dir.join(format!("{i:n>width$}"));
        match random.next() % 12 {
            0 | 1 => {
                fs::create_dir(&path).unwrap();
                dirs.push(path.clone());
            }
            2 => symlink("t".repeat(1 + random.next() as usize % 900), &path).unwrap(),
            3 if !files.is_empty() => {
                let target = &files[random.next() as usize % files.len()];
                fs::hard_link(target, &path).unwrap();
                continue;
            }
            4 => node(&path, FileType::Fifo, 0, 0),
            5 => node(&path, FileType::CharacterDevice, random.next() as u32 % 300, 7),
            6 => node(&path, FileType::BlockDevice, 4000, random.next() as u32 % 1_000_000),
            7 => node(&path, FileType::Socket, 0, 0),
            _ => {
                let len =
                    random.next() as usize % [20, 200, 9000, 90_000][random.next() as usize % 4];
                let byte = random.next();
                let bytes: Vec<u8> = (0..len as u64).map(|i| (i * 31 + byte) as u8).collect();
                fs::write(&path, bytes).unwrap();
                files.push(path.clone());
            }
        }
        decorate(&path, random);
    }
    scattered(&top.join("scattered"));
    let many = top.join("many");
    fs::create_dir(&many).unwrap();
    for i in 0..3000 {
        File::create(many.join(format!("{i:0>60}"))).unwrap();
    }
    for i in (0..3000).step_by(3) {
        fs::remove_file(many.join(format!("{i:0>60}"))).unwrap();
    }
}

fn node(path: &Path, file_type: FileType, major: u32, minor: u32) {
    let dev = rustix::fs::makedev(major, minor);
    rustix::fs::mknodat(CWD, path, file_type, Mode::from(0o640), dev).unwrap();
}

/// A file with holes, reserved blocks, and more extents than an inode holds.
fn scattered(path: &Path) {
    let file = File::create(path).unwrap();
    for i in 0..1500u64 {
        file.write_all_at(&[i as u8 | 1; 5], i * 8192).unwrap();
    }
    for (flags, at) in [(FallocateFlags::empty(), 13 << 20), (FallocateFlags::PUNCH_HOLE, 1 << 20)]
    {
        let flags = flags | FallocateFlags::KEEP_SIZE;
        match rustix::fs::fallocate(&file, flags, at, 1 << 20) {
            // Block maps cannot reserve.
            Ok(()) | Err(rustix::io::Errno::OPNOTSUPP) => {}
            Err(error) => panic!("{error}"),
        }
    }
    file.set_len(15 << 20).unwrap();
}

/// Owner, mode, time and xattrs.
fn decorate(path: &Path, random: &mut Random) {
    let owner = |id: u64| Some(id as u32 % 200_000);
    std::os::unix::fs::lchown(path, owner(random.next()), owner(random.next())).unwrap();
    let is_link = fs::symlink_metadata(path).unwrap().is_symlink();
    if !is_link {
        let mode = Mode::from_raw_mode(random.next() as u32 & 0o7777);
        rustix::fs::chmodat(CWD, path, mode, AtFlags::empty()).unwrap();
        for _ in 0..random.next() % 4 {
            let space = ["user", "trusted", "security"][random.next() as usize % 3];
            let name = format!("{space}.{}", "n".repeat(1 + random.next() as usize % 40));
            let value = vec![
                random.next() as u8;
                random.next() as usize % [30, 300, 9000][random.next() as usize % 3]
            ];
            // Not every file takes every xattr, nor every file system so much.
            let _ = rustix::fs::setxattr(path, &*name, &value, XattrFlags::empty());
        }
    }
    let time = rustix::fs::Timespec {
        tv_sec: (random.next() % (1 << 31)) as i64,
        tv_nsec: (random.next() % 1_000_000_000) as _,
    };
    let times = rustix::fs::Timestamps { last_access: time, last_modification: time };
    rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

/// All that the kernel shows below `top` is in the tree, and nothing else.
fn compare(tree: &Tree<FileData>, reader: &Reader<'_>, top: &Path) {
    let mut dirs = vec![(InodeId::ROOT, top.to_owned())];
    let mut inodes: HashMap<InodeId, u64> = HashMap::new();
    while let Some((id, path)) = dirs.pop() {
        let found: BTreeSet<Vec<u8>> = fs::read_dir(&path)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_encoded_bytes())
            .collect();
        let dir = tree.dir(id).unwrap();
        assert!(
            dir.entries.keys().map(Name::as_bytes).eq(found.iter().map(|n| &n[..])),
            "{path:?}"
        );
        for (name, child) in &dir.entries {
            let path = path.join(name.to_string());
            same_inode(tree, reader, *child, &path);
            let ino = fs::symlink_metadata(&path).unwrap().ino();
            assert_eq!(*inodes.entry(*child).or_insert(ino), ino, "{path:?}");
            if tree.dir(*child).is_some() {
                dirs.push((*child, path));
            }
        }
    }
}

fn same_inode(tree: &Tree<FileData>, reader: &Reader<'_>, id: InodeId, path: &Path) {
    let inode = tree.inode(id);
    let (stat, m) = (inode.stat, fs::symlink_metadata(path).unwrap());
    assert_eq!(
        (u32::from(stat.mode), stat.uid, stat.gid),
        (m.mode() & 0o7777, m.uid(), m.gid()),
        "{path:?}"
    );
    assert_eq!(
        (stat.mtime.sec, i64::from(stat.mtime.nsec)),
        (m.mtime(), m.mtime_nsec()),
        "{path:?}"
    );
    let file_type = m.file_type();
    let device = |rdev: Rdev| rustix::fs::makedev(rdev.major(), rdev.minor()) == m.rdev();
    let alike = match &inode.kind {
        Kind::Dir(_) => file_type.is_dir(),
        Kind::File(data) => {
            let mut found = vec![0xee; m.len() as usize];
            reader.read_file(data, 0, &mut found).unwrap();
            file_type.is_file() && data.size() == m.len() && found == fs::read(path).unwrap()
        }
        Kind::Symlink(target) => {
            fs::read_link(path).is_ok_and(|found| found.as_os_str().as_encoded_bytes() == &**target)
        }
        Kind::Char(rdev) => file_type.is_char_device() && device(*rdev),
        Kind::Block(rdev) => file_type.is_block_device() && device(*rdev),
        Kind::Fifo => file_type.is_fifo(),
        Kind::Socket => file_type.is_socket(),
        other => panic!("{path:?}: {other:?}"),
    };
    assert!(alike, "{path:?} {:?}", inode.kind);
    let mut names = vec![0; 65_536];
    let len = rustix::fs::llistxattr(path, &mut names[..]).unwrap();
    let found: BTreeSet<&[u8]> =
        names[..len].split(|byte| *byte == 0).filter(|n| !n.is_empty()).collect();
    assert!(found.iter().copied().eq(inode.xattrs.iter().map(|xattr| &*xattr.name)), "{path:?}");
    for xattr in inode.xattrs.iter() {
        let mut value = vec![0; 65_536];
        let len = rustix::fs::lgetxattr(path, &*xattr.name, &mut value[..]).unwrap();
        assert!(value[..len] == *xattr.value, "{path:?} {}", xattr.name.escape_ascii());
    }
}

/// Reads the image and compares it with what the kernel shows.
fn judge(scratch: &Scratch, what: &dyn std::fmt::Debug) {
    let file = File::open(scratch.image()).unwrap();
    let memory = Budget::default();
    let reader = Reader::new(&file, &memory).unwrap_or_else(|error| panic!("{what:?}: {error}"));
    let tree = reader.tree().unwrap_or_else(|error| panic!("{what:?}: {error}"));
    scratch.mount("ro,loop");
    compare(&tree, &reader, &scratch.mnt());
    scratch.unmount();
}

#[test]
#[ignore = "needs root: it mounts"]
fn what_the_kernel_wrote_is_read_as_the_kernel_reads_it() {
    let scratch = Scratch::new("kernel");
    for (i, features) in FEATURES.iter().enumerate() {
        scratch.mke2fs(features);
        scratch.mount("loop");
        fill(&scratch.mnt(), &mut Random(i as u64 + 1));
        scratch.unmount();
        judge(&scratch, features);
    }
}

#[test]
#[ignore = "needs root: it mounts"]
fn what_mke2fs_filled_is_read_as_the_kernel_reads_it() {
    let (source, scratch) = (Scratch::new("source"), Scratch::new("filled"));
    source.mke2fs(FEATURES[0]);
    source.mount("loop");
    fill(&source.mnt(), &mut Random(99));
    for features in FEATURES {
        let mnt = source.mnt();
        scratch.mke2fs(&[features, &["-d", mnt.to_str().unwrap()]].concat());
        judge(&scratch, &features);
    }
}

/// A machine that is killed leaves what it has committed to the journal there.
#[test]
#[ignore = "needs root: it mounts"]
fn what_stands_in_the_journal_is_read_as_the_kernel_replays_it() {
    let (scratch, copy) = (Scratch::new("journal"), Scratch::new("killed"));
    let kinds = [(0, "data=ordered"), (1, "data=journal"), (5, "data=journal")];
    for (i, mode) in kinds {
        let features = FEATURES[i];
        let mut random = Random(i as u64 + 50);
        scratch.mke2fs(features);
        // Nothing is left to be committed at the end, so the image stands still then.
        scratch.mount(&format!("loop,commit=3600,{mode}"));
        let mnt = scratch.mnt();
        let orphan = fill_journal(&mnt, &mut random);
        fs::copy(scratch.image(), copy.image()).unwrap();
        drop(orphan);
        scratch.unmount();
        let file = File::open(copy.image()).unwrap();
        let memory = Budget::default();
        let reader = Reader::new(&file, &memory).unwrap();
        assert!(reader.superblock().needs_recovery(), "{features:?} {mode}");
        let tree = reader.tree().unwrap_or_else(|error| panic!("{features:?} {mode}: {error}"));
        // The kernel replays in the file that is still open here: into a copy.
        fs::copy(copy.image(), scratch.image()).unwrap();
        scratch.mount("loop");
        compare(&tree, &reader, &mnt);
        scratch.unmount();
        flip(&copy.image(), 64 << 20, 150, &mut random);
    }
}

/// Writes what ends in the journal of the file system at `mnt`; returns a file that
/// is open and has no name.
fn fill_journal(mnt: &Path, random: &mut Random) -> File {
    let sync = || rustix::fs::syncfs(File::open(mnt).unwrap()).unwrap();
    let [first, second] = ["first", "second"].map(|name| mnt.join(name));
    fs::create_dir(&first).unwrap();
    fill(&first, random);
    sync();
    fs::create_dir(&second).unwrap();
    fs::write(second.join("file"), "second").unwrap();
    let orphan = File::create(mnt.join("orphan")).unwrap();
    orphan.set_len(100_000).unwrap();
    fs::remove_file(mnt.join("orphan")).unwrap();
    let len = exhaust(&mnt.join("ballast"));
    File::options()
        .write(true)
        .open(mnt.join("ballast"))
        .unwrap()
        .set_len(len - (2 << 20))
        .unwrap();
    sync();
    // Blocks of a directory become blocks of files: the journal revokes them, and
    // there are no others.
    let short = mnt.join("short");
    fs::create_dir(&short).unwrap();
    for j in 0..2000 {
        File::create(short.join(format!("{j:0>200}"))).unwrap();
    }
    sync();
    fs::remove_dir_all(short).unwrap();
    sync();
    // These look like the journal's own blocks.
    let magic = 0xc03b_3998u32.to_be_bytes();
    for j in 0..20 {
        fs::write(mnt.join(format!("like-a-journal-{j}")), magic.repeat(3000)).unwrap();
    }
    exhaust(&mnt.join("rest"));
    sync();
    orphan
}

/// Writes a file until the disk is full; returns its length.
fn exhaust(path: &Path) -> u64 {
    let file = File::create(path).unwrap();
    let mut len = 0;
    for step in [1 << 16, 1 << 10] {
        while file.write_all_at(&vec![7; step], len).is_ok() {
            len += step as u64;
        }
    }
    file.set_len(len).unwrap();
    len
}

#[test]
#[ignore = "needs root: it mounts"]
fn one_flipped_bit_is_an_error_or_another_tree_but_never_a_panic() {
    let scratch = Scratch::new("flips");
    let mut random = Random(7);
    let mut refused = 0;
    for features in [2, 3, 4, 7].map(|i| FEATURES[i]) {
        scratch.mke2fs(features);
        scratch.mount("loop");
        fill(&scratch.mnt(), &mut random);
        scratch.unmount();
        refused += flip(&scratch.image(), 8 << 20, 200, &mut random);
    }
    assert!(refused > 100, "{refused}");
}

/// Reads the image with one bit flipped in its first `most` bytes, `count` times;
/// returns how often that is an error.
fn flip(image: &Path, most: usize, count: u32, random: &mut Random) -> u32 {
    let file = File::options().read(true).write(true).open(image).unwrap();
    let read = || Reader::new(&file, &Budget::default()).and_then(|reader| reader.tree());
    let blocks = data_blocks(&file, most).unwrap();
    let mut refused = 0;
    for _ in 0..count {
        let at = blocks[random.next() as usize % blocks.len()] + random.next() % 1024;
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).unwrap();
        file.write_all_at(&[byte[0] ^ 1 << (random.next() % 8)], at).unwrap();
        refused += u32::from(read().is_err());
        file.write_all_at(&byte, at).unwrap();
    }
    read().unwrap();
    refused
}

/// Offsets of the KiB of the first `most` bytes that are not zero.
fn data_blocks(file: &File, most: usize) -> io::Result<Vec<u64>> {
    let mut bytes = vec![0; most];
    file.read_exact_at(&mut bytes, 0)?;
    let blocks = bytes.chunks(1024).enumerate();
    Ok(blocks
        .filter(|(_, b)| b.iter().any(|byte| *byte != 0))
        .map(|(i, _)| i as u64 * 1024)
        .collect())
}
