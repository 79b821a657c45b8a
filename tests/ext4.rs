//! The upper's file system, judged by e2fsck and by the kernel. Needs root.

use std::collections::HashMap;
use std::fs::{self, File};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use rootfs_compile::ext4::{self, Options};
use rootfs_compile::sink::FileSink;
use rootfs_compile::tree::{Dir, Inode, InodeId, Kind, Name, Rdev, Stat, Timestamp, Tree, Xattrs};

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

fn write(tree: &Tree<Vec<u8>>, size: u64, to: &Path) -> Result<u64, ext4::Error> {
    let mut sink = FileSink::new(File::create(to).unwrap());
    ext4::write(tree, &Options { size, seed: [3; 32] }, &mut sink)?;
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

fn add(
    tree: &mut Tree<Vec<u8>>,
    dir: InodeId,
    name: &[u8],
    stat: Stat,
    kind: Kind<Vec<u8>>,
) -> InodeId {
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
        add(
            &mut tree,
            root,
            format!("link-{len}").as_bytes(),
            stat(0o777, 9, 9),
            Kind::Symlink(vec![b'x'; len].into()),
        );
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

#[test]
fn every_kind_of_inode_is_as_the_tree_says() {
    let tree = sample();
    let scratch = Scratch::new("kinds");
    // At 200 MiB, the large file spans block groups.
    for size in [200 << 20, (200 << 20) + 4096 * 777] {
        write(&tree, size, &scratch.image()).unwrap();
        check(&scratch.image());
        compare(&tree, &scratch.mount());
        assert!(Command::new("umount").arg(scratch.0.join("mnt")).status().unwrap().success());
    }
}

#[test]
fn sizes_are_any_number_of_blocks_from_16_mib_to_beyond_a_tebibyte() {
    let scratch = Scratch::new("sizes");
    let tree = Tree::new(Stat::IMPLIED_DIR);
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
        assert!(matches!(write(&tree, size, &scratch.image()), Err(ext4::Error::Size(_))));
    }
    let file = Kind::File(vec![1; 30 << 20]);
    let id = add(&mut tree, InodeId::ROOT, b"big", Stat::IMPLIED_DIR, file);
    let Err(ext4::Error::Full { least, .. }) = write(&tree, 16 << 20, &scratch.image()) else {
        panic!("30 MiB do not fit into 16");
    };
    write(&tree, least, &scratch.image()).unwrap();
    check(&scratch.image());
    tree.inode_mut(id).xattrs.set(*b"user.x", vec![0; 5000]);
    let error = write(&tree, 1 << 30, &scratch.image()).unwrap_err().to_string();
    assert!(error.starts_with("big: ") && error.contains("4096"), "{error}");
}
