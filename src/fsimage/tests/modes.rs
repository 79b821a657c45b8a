//! The type of a file is that of its content, whatever bits of a type its mode has: those of
//! `st_mode` come with it where a tree is made of files of the host.

use std::os::unix::fs::FileExt as _;

use fsimage::budget::Budget;
use fsimage::digest::DiffId;
use fsimage::erofs::layer::ObjectWriter;
use fsimage::erofs::plan::Form;
use fsimage::ext4::Layout;
use fsimage::io::sink::FileSink;
use fsimage::tree::extents::Extents;
use fsimage::tree::{DirId, Inode, InodeId, Kind, Name, Rdev, Stat, Timestamp, Tree, Xattrs};

const SYMLINK_BITS: u16 = 0o120_000;

fn tree<C>() -> Tree<C> {
    let mut tree = Tree::new(Stat::IMPLIED_DIR);
    let stat = Stat { mode: SYMLINK_BITS | 0o4751, uid: 0, gid: 0, mtime: Timestamp::EPOCH };
    let kind = Kind::Char(Rdev::new(1, 3).unwrap());
    let inode = Inode { stat, xattrs: Xattrs::default(), kind };
    tree.add(DirId::ROOT, Name::new(b"null").unwrap(), inode).unwrap();
    tree
}

fn assert_device<C>(read: &Tree<C>) {
    let id: InodeId = *read[DirId::ROOT].entries.get(b"null".as_slice()).unwrap();
    assert!(matches!(read.inode(id).kind, Kind::Char(_)));
    assert_eq!(read.inode(id).stat.mode, 0o4751);
}

#[test]
fn ext4_has_the_type_of_the_content() {
    let tree: Tree<Vec<u8>> = tree();
    let mut sink = FileSink::new(tempfile::tempfile().unwrap());
    Layout::leaving(&tree, 1 << 20).unwrap().write(&[7; 32], &mut sink).unwrap();
    let (file, _) = sink.finish(&[]).unwrap();
    let memory = Budget::default();
    let reader = fsimage::ext4::read::Reader::new(&file, &memory).unwrap();
    assert_device(&reader.tree().unwrap());
}

#[test]
fn erofs_has_the_type_of_the_content() {
    let writer = ObjectWriter::new(tempfile::tempfile().unwrap()).unwrap();
    let (file, _) = writer.finish(&tree::<Extents>(), DiffId::of(b"")).unwrap();
    let mut bytes = vec![0; file.metadata().unwrap().len() as usize];
    file.read_exact_at(&mut bytes, 0).unwrap();
    let reader = fsimage::erofs::read::Reader::new(&bytes).unwrap();
    assert_device(&reader.tree(Form::Object, &Budget::default()).unwrap());
}
