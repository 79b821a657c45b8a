//! A tree in memory becomes an ext4 image, without mkfs, without a mount and without root.
//!
//! ```sh
//! cargo run -p rootfs-fsimage --example tree_to_ext4 -- etc.ext4 && e2fsck -fn etc.ext4
//! ```

use std::error::Error;
use std::fs::File;
use std::path::{Path, PathBuf};

use fsimage::ext4::{self, Options};
use fsimage::io::sink::FileSink;
use fsimage::tree::{Dir, Inode, InodeId, Kind, Name, Stat, Timestamp, Tree, Xattrs};

/// Adds an inode of `kind` to the directory `dir`.
fn add(
    tree: &mut Tree<Vec<u8>>,
    dir: InodeId,
    name: &str,
    mode: u16,
    kind: Kind<Vec<u8>>,
) -> Result<InodeId, Box<dyn Error>> {
    let stat = Stat { mode, uid: 0, gid: 0, mtime: Timestamp::EPOCH };
    let id = tree.push(Inode { stat, xattrs: Xattrs::default(), kind })?;
    let dir = tree.dir_mut(dir).ok_or("only a directory has entries")?;
    dir.entries.insert(Name::new(name.as_bytes())?, id);
    Ok(id)
}

fn image(path: &Path) -> Result<u64, Box<dyn Error>> {
    let mut tree = Tree::new(Stat::IMPLIED_DIR);
    let etc = add(&mut tree, InodeId::ROOT, "etc", 0o755, Kind::Dir(Dir::default()))?;
    add(&mut tree, etc, "motd", 0o644, Kind::File(b"Written without mkfs.\n".to_vec()))?;
    add(&mut tree, etc, "issue", 0o777, Kind::Symlink((*b"motd").into()))?;

    // Every address follows from the tree and the size, so the same tree gives the same bytes.
    let size = ext4::least_size(&tree, 1 << 20)?;
    let options = Options { size, seed: [0; 32] };
    let mut sink = FileSink::new(File::create(path)?);
    ext4::write(&tree, &options, &mut sink)?;
    sink.finish(&[])?;
    Ok(size)
}

fn main() -> Result<(), Box<dyn Error>> {
    let path = PathBuf::from(std::env::args_os().nth(1).ok_or("usage: tree_to_ext4 FILE")?);
    println!("{}: {} bytes", path.display(), image(&path)?);
    Ok(())
}

#[test]
fn the_image_is_an_ext4() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("image");
    let size = image(&path).unwrap();
    assert_eq!(File::open(&path).unwrap().metadata().unwrap().len(), size);
    let e2fsck = std::process::Command::new("e2fsck").arg("-fn").arg(&path).output();
    let e2fsck = e2fsck.expect("e2fsck is missing: apt-get install e2fsprogs");
    assert!(e2fsck.status.success(), "{}", String::from_utf8_lossy(&e2fsck.stdout));
}
