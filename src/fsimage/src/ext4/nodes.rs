//! The inodes of a tree: their numbers, and what each needs of the disk.

use std::ops::Range;

use super::content::{self, Content};
use super::dirent::{self, Dirent};
use super::disk::{BLOCK, FIRST_INO, I_BLOCK, ROOT_INO};
use super::xattr;
use crate::ext4::error::Error;
use crate::ext4::limits::MAX_FILE;
use crate::tree::arena::{DirId, Tree};
use crate::tree::file_type::FileType;
use crate::tree::inode::{InodeId, Kind};
use crate::tree::xattrs::OVERLAY_OPAQUE;

const MAX_LINKS: u32 = 65_000;
const LOST_AND_FOUND: &[u8] = b"lost+found";

/// An inode of the tree, numbered. Without an id it is lost+found.
#[derive(Debug)]
pub(super) struct Node {
    pub id: Option<InodeId>,
    pub parent: u32,
    pub nlink: u32,
    /// Bytes, holes included.
    pub size: u64,
    /// The bytes that need blocks: whole blocks, up to the last one's end.
    pub data: Vec<Range<u64>>,
    pub xattrs: xattr::Placed,
}

impl Node {
    fn new(id: Option<InodeId>, parent: u32, nlink: u32) -> Self {
        let (data, xattrs) = (Vec::new(), xattr::Placed::default());
        Self { id, parent, nlink, size: 0, data, xattrs }
    }
}

/// All inodes that the root leads to.
#[derive(Debug)]
pub(super) struct Nodes {
    /// The root first, then lost+found, which e2fsck wants.
    pub list: Vec<Node>,
    /// Numbers by [`InodeId`].
    numbers: Vec<u32>,
}

impl Nodes {
    pub(super) fn new<C: Content>(tree: &Tree<C>) -> Result<Self, Error> {
        let mut nodes = number(tree)?;
        for i in 0..nodes.list.len() {
            let (size, data) = nodes.data(tree, i)?;
            let node = &mut nodes.list[i];
            (node.size, node.data) = (size, data);
            node.xattrs = xattrs(tree, node.id)?;
        }
        Ok(nodes)
    }

    /// The number of the node at `i`.
    pub(super) fn ino(i: usize) -> u32 {
        if i == 0 { ROOT_INO } else { FIRST_INO + i as u32 - 1 }
    }

    pub(super) fn last_ino(&self) -> u32 {
        Self::ino(self.list.len() - 1)
    }

    /// The entries of the directory at `i`.
    pub(super) fn entries<'t, C>(&self, tree: &'t Tree<C>, i: usize) -> Vec<Dirent<'t>> {
        let node = &self.list[i];
        let dir = node.id.and_then(|id| tree.dir(id));
        let mut entries = vec![
            Dirent { name: b".", ino: Self::ino(i), file_type: FileType::Dir },
            Dirent { name: b"..", ino: node.parent, file_type: FileType::Dir },
        ];
        if i == 0 && dir.is_some_and(|dir| !dir.entries.contains_key(LOST_AND_FOUND)) {
            entries.push(Dirent { name: LOST_AND_FOUND, ino: FIRST_INO, file_type: FileType::Dir });
        }
        entries.extend(dir.into_iter().flat_map(|dir| &dir.entries).map(|(name, id)| Dirent {
            name: name.as_bytes(),
            ino: self.numbers[id.0 as usize],
            file_type: tree.inode(*id).kind.file_type(),
        }));
        entries
    }

    /// The size of what the node at `i` holds, and which of it needs blocks.
    fn data<C: Content>(&self, tree: &Tree<C>, i: usize) -> Result<(u64, Vec<Range<u64>>), Error> {
        let id = self.list[i].id;
        let all = |size| (size, std::iter::once(0..size).collect());
        match id.map(|id| &tree.inode(id).kind) {
            None | Some(Kind::Dir(_)) => {
                let blocks = dirent::block_count(self.entries(tree, i).iter().map(|e| e.name));
                Ok(all((blocks * BLOCK) as u64))
            }
            Some(Kind::File(content)) => {
                let size = content.size();
                if size > MAX_FILE {
                    return Err(Error::FileSize { path: shown(tree, id), size });
                }
                let data = content::ranges(content, size)
                    .map_err(|source| Error::Content { path: shown(tree, id), source })?;
                Ok((size, data))
            }
            Some(Kind::Symlink(target)) => {
                if target.is_empty() || target.len() >= BLOCK || target.contains(&0) {
                    return Err(Error::Symlink(shown(tree, id)));
                }
                let (size, data) = all(target.len() as u64);
                // A short one lies in the inode.
                Ok((size, if target.len() < I_BLOCK { Vec::new() } else { data }))
            }
            Some(Kind::Char(_) | Kind::Block(_) | Kind::Whiteout | Kind::Fifo | Kind::Socket) => {
                Ok((0, Vec::new()))
            }
            Some(Kind::LowerLink(_)) => Err(Error::LowerLink(shown(tree, id))),
        }
    }
}

/// A path for messages.
pub(super) fn shown<C>(tree: &Tree<C>, id: Option<InodeId>) -> String {
    id.and_then(|id| tree.path_of(id)).unwrap_or_default().to_string()
}

fn number<C>(tree: &Tree<C>) -> Result<Nodes, Error> {
    let linked = |dir: DirId| Error::DirLinked(shown(tree, Some(dir.inode())));
    let mut numbers = vec![0; tree.len()];
    let mut list = Vec::new();
    for reached in tree.reached().map_err(linked)? {
        let is_root = list.is_empty();
        numbers[reached.id.0 as usize] = Nodes::ino(list.len());
        let parent = numbers[reached.parent.inode().0 as usize];
        list.push(Node::new(Some(reached.id), parent, reached.nlink));
        if is_root && !tree[DirId::ROOT].entries.contains_key(LOST_AND_FOUND) {
            list[0].nlink += 1;
            list.push(Node::new(None, ROOT_INO, 2));
        }
    }
    for node in &mut list {
        let is_dir = node.id.is_none_or(|id| tree.dir(id).is_some());
        if node.nlink > MAX_LINKS {
            if !is_dir {
                let path = shown(tree, node.id);
                return Err(Error::Links { path, links: node.nlink });
            }
            // What dir_nlink means: too many to count.
            node.nlink = 1;
        }
    }
    Ok(Nodes { list, numbers })
}

fn xattrs<C>(tree: &Tree<C>, id: Option<InodeId>) -> Result<xattr::Placed, Error> {
    let Some(id) = id else { return Ok(xattr::Placed::default()) };
    let mut xattrs = tree.inode(id).xattrs.clone();
    if tree.dir(id).is_some_and(|dir| dir.opaque) {
        xattrs.set(OVERLAY_OPAQUE, *b"y");
    }
    xattr::place(&xattrs).map_err(|error| error.of(&shown(tree, Some(id))))
}
