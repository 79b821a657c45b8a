//! A tree in memory becomes an ext4 image, without mkfs, without a mount and without root.
//!
//! ```sh
//! cargo run -p rootfs-fsimage --example tree_to_ext4 -- etc.ext4 && e2fsck -fn etc.ext4
//! ```

use std::error::Error;
use std::fs::File;
use std::path::{Path, PathBuf};

use fsimage::ext4::Layout;
use fsimage::io::sink::FileSink;
use fsimage::tree::{DirId, Inode, Kind, Name, Stat, Timestamp, Tree, Xattrs};

/// An inode of root's, without xattrs.
fn inode(mode: u16, kind: Kind<Vec<u8>>) -> Inode<Vec<u8>> {
    let stat = Stat { mode, uid: 0, gid: 0, mtime: Timestamp::EPOCH };
    Inode { stat, xattrs: Xattrs::default(), kind }
}

fn image(path: &Path) -> Result<u64, Box<dyn Error>> {
    let mut tree = Tree::new(Stat::IMPLIED_DIR);
    let etc = tree.add_dir(DirId::ROOT, Name::new(b"etc")?, Stat::IMPLIED_DIR)?;
    let motd = Kind::File(b"Written without mkfs.\n".to_vec());
    tree.add(etc, Name::new(b"motd")?, inode(0o644, motd))?;
    let issue = Kind::Symlink((*b"motd").into());
    tree.add(etc, Name::new(b"issue")?, inode(0o777, issue))?;

    // Every address follows from the tree and the size, so the same tree gives the same bytes.
    let layout = Layout::leaving(&tree, 1 << 20)?;
    let mut sink = FileSink::new(File::create(path)?);
    layout.write(&[0; 32], &mut sink)?;
    sink.finish(&[])?;
    Ok(layout.size())
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
