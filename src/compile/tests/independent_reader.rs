//! A reader that shares no line with this project must see the same image.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use erofs_rs::EroFS;
use erofs_rs::backend::SliceImage;
use fsimage::budget::Budget;
use fsimage::erofs::plan::Form;
use fsimage::erofs::read::Reader;
use fsimage::tree::extents::Extents;
use fsimage::tree::{GuestPath, InodeId, Kind, Tree};
use fsimage::units::BLOCK_SIZE;
use rootfs_compile::build::{Request, build};
use rootfs_compile::manifest::Manifest;
use rootfs_compile::progress::Silent;

/// A directory that goes away with its owner.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// What both readers tell of a path.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    kind: char,
    mode: u16,
    uid: u32,
    gid: u32,
    mtime: (i64, u32),
    xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// A file's bytes, a link's target, or a device's numbers.
    content: Vec<u8>,
}

fn ours(tree: &Tree<Extents>, layers: &[Vec<u8>]) -> BTreeMap<Vec<u8>, Seen> {
    let mut all = BTreeMap::new();
    let mut dirs = vec![(InodeId::ROOT, GuestPath::default())];
    while let Some((id, path)) = dirs.pop() {
        for (name, child) in &tree.dir(id).unwrap().entries {
            let path = path.join(name);
            let inode = tree.inode(*child);
            let (kind, content) = match &inode.kind {
                Kind::Dir(_) => {
                    dirs.push((*child, path.clone()));
                    ('d', Vec::new())
                }
                Kind::File(extents) => {
                    let mut bytes = vec![0; extents.size.next_multiple_of(BLOCK_SIZE) as usize];
                    for run in &extents.runs {
                        let layer = &layers[usize::from(run.device.0) - 1];
                        let (to, len) =
                            (run.file_block * BLOCK_SIZE, u64::from(run.len) * BLOCK_SIZE);
                        let (to, len) = (to as usize, len as usize);
                        let from = run.start.offset() as usize;
                        bytes[to..to + len].copy_from_slice(&layer[from..from + len]);
                    }
                    bytes.truncate(extents.size as usize);
                    ('f', bytes)
                }
                Kind::Symlink(target) => ('l', target.to_vec()),
                Kind::Char(rdev) | Kind::Block(rdev) => {
                    ('n', format!("{}:{}", rdev.major(), rdev.minor()).into_bytes())
                }
                _ => ('o', Vec::new()),
            };
            let xattrs = inode.xattrs.iter().map(|x| (x.name.to_vec(), x.value.to_vec())).collect();
            let stat = inode.stat;
            let mtime = (stat.mtime.sec, stat.mtime.nsec);
            let seen = Seen {
                kind,
                mode: stat.mode,
                uid: stat.uid,
                gid: stat.gid,
                mtime,
                xattrs,
                content,
            };
            all.insert(path.to_bytes(), seen);
        }
    }
    all
}

fn theirs(fsmeta: &[u8], layers: &[Vec<u8>]) -> BTreeMap<Vec<u8>, Seen> {
    let devices = layers.iter().map(|layer| SliceImage::new(layer)).collect();
    let fs = EroFS::new_with_devices(SliceImage::new(fsmeta), devices).unwrap();
    let mut all = BTreeMap::new();
    for entry in fs.walk_dir("/").unwrap() {
        let entry = entry.unwrap();
        let path = entry.dir_entry.path();
        let path = path.as_bytes().strip_prefix(b"/").unwrap_or(path.as_bytes()).to_vec();
        let inode = fs.get_inode(entry.dir_entry.nid()).unwrap();
        let mut content = Vec::new();
        let kind = if inode.is_dir() {
            'd'
        } else if inode.is_symlink() {
            content = fs.read_link_inode(inode).unwrap().as_bytes().to_vec();
            'l'
        } else if let Some((major, minor)) = inode.device() {
            content = format!("{major}:{minor}").into_bytes();
            'n'
        } else if !inode.is_file() {
            'o'
        } else {
            fs.open_inode_file(inode).unwrap().read_to_end(&mut content).unwrap();
            'f'
        };
        let xattrs = fs.xattrs_inode(inode).unwrap();
        let xattrs = xattrs.iter().map(|(name, value)| (name.to_vec(), value.to_vec())).collect();
        let mode = inode.permissions().mode() as u16;
        let (uid, gid, mtime) = (inode.uid(), inode.gid(), inode.modified_unix());
        all.insert(path, Seen { kind, mode, uid, gid, mtime, xattrs, content });
    }
    all
}

#[test]
fn an_independent_reader_sees_the_same_tree() {
    let scratch = Scratch(std::env::temp_dir().join(format!("independent-{}", std::process::id())));
    let output = scratch.0.join("bundle");
    let top = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."));
    let manifest = Manifest::load(&top.join("manifests/hello.yaml"), &Default::default()).unwrap();
    let mut request = Request::new(manifest, &output, scratch.0.join("cache"));
    request.platform = Some("linux/amd64".parse().unwrap());
    build(&request, &Silent).unwrap();
    let index = bundle::open::read_index(&output).unwrap();
    let layers: Vec<Vec<u8>> =
        index.layers.iter().map(|layer| std::fs::read(output.join(&layer.path)).unwrap()).collect();
    let fsmeta = std::fs::read(output.join("fsmeta.erofs")).unwrap();

    let tree = Reader::new(&fsmeta).unwrap().tree(Form::Image, &Budget::default()).unwrap();
    let (ours, theirs) = (ours(&tree, &layers), theirs(&fsmeta, &layers));
    assert!(ours.len() > 100, "hello has more than {} paths", ours.len());
    assert!(ours.keys().eq(theirs.keys()));
    for (path, seen) in &ours {
        assert_eq!(seen, &theirs[path], "{}", path.escape_ascii());
    }
}
