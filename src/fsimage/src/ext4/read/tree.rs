//! All that the root leads to.

use rustc_hash::FxHashMap;

use super::claims::Claims;
use super::content::FileData;
use super::dir::{Listing, RawEntry};
use super::inode::{EA_INODE_FL, INDEX_FL, INLINE_DATA_FL, Inodes, RawInode, has_extents};
use super::mapping::Mapping;
use super::superblock::INCOMPAT_INLINE_DATA;
use super::xattr::XattrReader;
use crate::ext4::disk::{I_BLOCK, ROOT_INO};
use crate::ext4::read::error::{ReadError, Result, bad};
use crate::ext4::read::reader::Reader;
use crate::fields::Fields;
use crate::tree::arena::{DirId, Tree};
use crate::tree::file_type::FileType;
use crate::tree::inode::{Dir, Inode, InodeId, Kind, Rdev, Stat};
use crate::tree::name::Name;
use crate::tree::weight::Weigh as _;
use crate::tree::xattrs::OVERLAY_OPAQUE;

/// Weight of an entry beyond what it weighs in the tree and the bytes of its name:
/// a directory that is checked is written once more into memory.
const WRITTEN_AGAIN: u64 = 40;

/// A tree, and which inodes its nodes are.
pub(super) struct Walked {
    pub tree: Tree<FileData>,
    /// Inode numbers by [`InodeId`].
    pub inos: Vec<u32>,
    pub ids: FxHashMap<u32, InodeId>,
    /// How many links each inode has: its names, and a directory's `.` and `..`.
    pub links: Vec<u32>,
    /// The directory that names each directory.
    pub parents: Vec<u32>,
    /// Every block of what was read, blocks of xattrs aside.
    pub claims: Claims,
}

impl Walked {
    /// `error`, with a path of the inode that it is about.
    pub(super) fn located(&self, error: ReadError) -> ReadError {
        match error {
            ReadError::Inode { ino, path: None, what } => {
                let id = self.ids.get(&ino);
                let path = id.and_then(|id| self.tree.path_of(*id)).map(|path| path.to_string());
                ReadError::Inode { ino, path, what }
            }
            other => other,
        }
    }
}

impl Reader<'_> {
    /// The whole tree, every inode and entry of it checked. Overlayfs's marks are
    /// devices and xattrs here; [`with_marks`] makes of them what they mean. All that is
    /// kept is taken from the reader's budget of memory as it comes.
    ///
    /// # Errors
    /// At the first structure that is wrong, with a path of its inode where one is known, or
    /// when the budget of memory is used up.
    pub fn tree(&self) -> Result<Tree<FileData>> {
        Ok(self.walk()?.tree)
    }

    pub(super) fn walk(&self) -> Result<Walked> {
        let mut walk = Walk {
            reader: self,
            inodes: Inodes::new(self),
            xattrs: XattrReader::new(self),
            done: Walked {
                tree: Tree::new(Stat::IMPLIED_DIR),
                inos: vec![ROOT_INO],
                ids: FxHashMap::default(),
                links: vec![2],
                parents: vec![ROOT_INO],
                claims: Claims::default(),
            },
        };
        match walk.run() {
            Ok(()) => Ok(walk.done),
            Err(error) => Err(walk.done.located(error)),
        }
    }
}

struct Walk<'r> {
    reader: &'r Reader<'r>,
    inodes: Inodes<'r>,
    xattrs: XattrReader<'r>,
    done: Walked,
}

/// A directory that is to be read.
struct Pending {
    id: DirId,
    listing: Listing,
}

impl Walk<'_> {
    fn run(&mut self) -> Result<()> {
        self.done.ids.insert(ROOT_INO, InodeId::ROOT);
        let (root, Some(listing)) = self.inode(ROOT_INO)? else {
            return Err(bad(ROOT_INO, "the root is not a directory"));
        };
        *self.done.tree.inode_mut(InodeId::ROOT) = root;
        let mut dirs = vec![Pending { id: DirId::ROOT, listing }];
        while let Some(dir) = dirs.pop() {
            self.dir(dir, &mut dirs)?;
        }
        self.reader.pay(ROOT_INO)
    }

    /// Walks what a directory names; new subdirectories go onto `dirs`.
    fn dir(&mut self, dir: Pending, dirs: &mut Vec<Pending>) -> Result<()> {
        let index = dir.id.inode().0 as usize;
        let (ino, parent) = (self.done.inos[index], self.done.parents[index]);
        let (mut dot, mut dotdot) = (None, None);
        let reader = self.reader;
        reader.entries(ino, &dir.listing, &mut |entry| {
            let wrong = |what: String| {
                bad(ino, format!("the name \"{}\": {what}", entry.name.escape_ascii()))
            };
            let once = match entry.name {
                b"." => dot.replace(entry.ino).is_none(),
                b".." => dotdot.replace(entry.ino).is_none(),
                bytes => {
                    let name = Name::new(bytes).map_err(|error| wrong(error.to_string()))?;
                    let again = WRITTEN_AGAIN + bytes.len() as u64;
                    reader.keep(ino, name.weight() + again)?;
                    let child = self.child(dir.id, ino, &name, &entry, dirs)?;
                    self.done.tree[dir.id].entries.insert(name, child).is_none()
                }
            };
            if !once {
                return Err(wrong("it is there twice".into()));
            }
            Ok(())
        })?;
        if dot != Some(ino) || dotdot != Some(parent) {
            return Err(bad(ino, "\".\" or \"..\" is missing or leads elsewhere"));
        }
        Ok(())
    }

    /// The inode that an entry of directory `dir` leads to.
    fn child(
        &mut self,
        dir: DirId,
        dir_ino: u32,
        name: &Name,
        entry: &RawEntry<'_>,
        dirs: &mut Vec<Pending>,
    ) -> Result<InodeId> {
        let wrong = |what: &str| Err(bad(dir_ino, format!("the name \"{name}\": {what}")));
        let known = self.done.ids.get(&entry.ino).copied();
        let id = match known {
            Some(id) if self.done.tree.dir(id).is_some() => {
                return wrong(&format!("inode {} is a directory with another name", entry.ino));
            }
            Some(id) => {
                self.done.links[id.0 as usize] += 1;
                id
            }
            None => self.first_name(dir, dir_ino, entry, dirs)?,
        };
        let kind = self.done.tree.inode(id).kind.file_type() as u8;
        // 0: the file system does not keep types.
        if entry.file_type != 0 && entry.file_type != kind {
            return wrong(&format!(
                "its type is {}, that of inode {} is {kind}",
                entry.file_type, entry.ino
            ));
        }
        Ok(id)
    }

    /// Reads the inode of an entry that is the first to lead there.
    fn first_name(
        &mut self,
        dir: DirId,
        dir_ino: u32,
        entry: &RawEntry<'_>,
        dirs: &mut Vec<Pending>,
    ) -> Result<InodeId> {
        let (inode, listing) = self.inode(entry.ino)?;
        let full = |error: crate::tree::TooManyInodes| bad(entry.ino, error.to_string());
        let done = &mut self.done;
        let id = done.tree.push(inode).map_err(full)?;
        done.ids.insert(entry.ino, id);
        done.inos.push(entry.ino);
        done.links.push(if listing.is_some() { 2 } else { 1 });
        done.parents.push(dir_ino);
        if let (Some(id), Some(listing)) = (done.tree.dir_id(id), listing) {
            done.links[dir.inode().0 as usize] += 1;
            dirs.push(Pending { id, listing });
        }
        Ok(id)
    }

    /// Reads an inode, and where its entries are if it is a directory.
    fn inode(&mut self, ino: u32) -> Result<(Inode<FileData>, Option<Listing>)> {
        let raw = self.inodes.get(ino)?;
        let stat =
            Stat { mode: raw.mode() & 0o7777, uid: raw.uid(), gid: raw.gid(), mtime: raw.mtime()? };
        if raw.links() == 0 {
            return Err(bad(ino, "it has a name, but its count of links is 0"));
        }
        if raw.has(EA_INODE_FL) {
            return Err(bad(ino, "it has a name, but holds the value of an xattr"));
        }
        let super::xattr::InodeXattrs { xattrs, inline } = self.xattrs.all(&raw)?;
        let mut listing = None;
        let file_type = FileType::from_mode(raw.mode())
            .ok_or_else(|| bad(ino, format!("the mode {:o} has no file type", raw.mode())))?;
        let kind = match file_type {
            FileType::Dir => {
                listing = Some(self.listing(&raw, inline)?);
                Kind::Dir(Dir::default())
            }
            FileType::Regular => Kind::File(self.file(&raw, inline)?),
            FileType::Symlink => Kind::Symlink(self.target(&raw, inline)?.into()),
            FileType::Char => Kind::Char(device(&raw)?),
            FileType::Block => Kind::Block(device(&raw)?),
            FileType::Fifo => Kind::Fifo,
            FileType::Socket => Kind::Socket,
        };
        let inode = Inode { stat, xattrs, kind };
        // The xattrs were counted as they came.
        self.reader.keep(ino, inode.weight() - inode.xattrs.weight())?;
        Ok((inode, listing))
    }

    /// The blocks of an inode, which nothing else may have.
    fn mapping(&mut self, raw: &RawInode) -> Result<Mapping> {
        let mapping = self.reader.mapping(raw)?;
        let runs = mapping.runs.iter().chain(&mapping.unwritten).map(|run| (run.start, run.len));
        for (start, len) in runs.chain(mapping.nodes.iter().map(|(_, block)| (*block, 1))) {
            self.done.claims.claim(start, len).map_err(|block| {
                bad(raw.ino, format!("block {block} belongs to something else too"))
            })?;
        }
        Ok(mapping)
    }

    fn is_inline(&self, raw: &RawInode) -> bool {
        raw.has(INLINE_DATA_FL) && self.reader.superblock.incompat & INCOMPAT_INLINE_DATA != 0
    }

    /// Content that is in the inode, `rest` of it behind what fits `i_block`.
    fn inline(&self, raw: &RawInode, rest: Vec<u8>) -> Result<Vec<u8>> {
        let mut bytes = raw.i_block().to_vec();
        bytes.extend(rest);
        if raw.size() > bytes.len() as u64 {
            return Err(bad(raw.ino, format!("{} bytes, all in the inode", raw.size())));
        }
        bytes.truncate(raw.size() as usize);
        Ok(bytes)
    }

    fn listing(&mut self, raw: &RawInode, rest: Vec<u8>) -> Result<Listing> {
        if self.is_inline(raw) {
            let bytes = [&raw.i_block()[..], &rest].concat();
            self.reader.keep(raw.ino, bytes.len() as u64)?;
            return Ok(Listing::Inline(bytes.into()));
        }
        let mapping = self.mapping(raw)?;
        if !mapping.unwritten.is_empty() {
            return Err(bad(raw.ino, "a directory with blocks that were never written"));
        }
        let (size, seed, hashed) = (raw.size(), raw.seed, raw.has(INDEX_FL));
        Ok(Listing::Blocks { size, seed, hashed, runs: mapping.runs.into() })
    }

    fn file(&mut self, raw: &RawInode, inline: Vec<u8>) -> Result<FileData> {
        if self.is_inline(raw) {
            return Ok(FileData::Inline(self.inline(raw, inline)?.into()));
        }
        let size = raw.size();
        if size > i64::MAX as u64 {
            return Err(bad(raw.ino, format!("a file of {size} bytes")));
        }
        let mut runs = self.mapping(raw)?.runs;
        // Blocks may be reserved behind the end.
        let end = size.div_ceil(self.reader.superblock.block_size as u64);
        runs.retain(|run| run.file_block < end);
        if let Some(last) = runs.last_mut() {
            last.len = last.len.min(end - last.file_block);
        }
        Ok(FileData::Runs { size, runs: runs.into() })
    }

    fn target(&mut self, raw: &RawInode, inline: Vec<u8>) -> Result<Vec<u8>> {
        let size = raw.size();
        // As long as a path of Linux.
        if size == 0 || size >= 4096 {
            return Err(bad(raw.ino, format!("a symbolic link of {size} bytes")));
        }
        let target = if self.is_inline(raw) {
            self.inline(raw, inline)?
        } else if size < I_BLOCK as u64 && !has_extents(raw) {
            raw.i_block()[..size as usize].to_vec()
        } else {
            let mut target = vec![0; size as usize];
            let mapping = self.mapping(raw)?;
            self.reader.read_runs(&mapping.runs, 0, &mut target)?;
            target
        };
        if target.contains(&0) {
            return Err(bad(raw.ino, "the target of a symbolic link holds a NUL"));
        }
        Ok(target)
    }
}

fn device(raw: &RawInode) -> Result<Rdev> {
    // Small numbers have an older field of their own.
    let f = Fields(raw.i_block());
    let (old, new) = (f.u32(0), f.u32(4));
    if old == 0 {
        return Ok(Rdev::decode(new));
    }
    let (major, minor) = (u64::from(old >> 8), u64::from(old & 0xff));
    Rdev::new(major, minor).ok_or_else(|| bad(raw.ino, format!("the device number {old:#x}")))
}

/// The same tree with overlayfs's marks as what they mean: a character device 0:0
/// is a whiteout, and `trusted.overlay.opaque` hides the directory below.
pub fn with_marks<C>(mut tree: Tree<C>) -> Tree<C> {
    for inode in tree.inodes_mut() {
        match &mut inode.kind {
            Kind::Char(rdev) if rdev.encode() == 0 => inode.kind = Kind::Whiteout,
            Kind::Dir(dir) if inode.xattrs.get(OVERLAY_OPAQUE) == Some(b"y") => {
                dir.opaque = true;
                inode.xattrs.remove(OVERLAY_OPAQUE);
            }
            _ => {}
        }
    }
    tree
}
