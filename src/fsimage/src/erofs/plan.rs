//! Every address of a file system's metadata, before a byte of it is written.
//!
//! The metadata are three runs: inodes, each followed by its xattrs and by the
//! inline tail of a directory, a short symlink's target or chunk indexes; then
//! directory blocks and long symlinks; then shared xattrs. The root comes first,
//! because its nid has 16 bits. The children of a directory stand together.

use std::collections::HashMap;

use super::dirent;
use super::disk::{self, CHUNK_INDEX_SIZE, COMPACT_SIZE, EXTENDED_SIZE, NID_SLOT};
use super::error::PlanError;
use super::xattr::SharedXattrs;
use crate::tree::arena::{DirId, Tree};
use crate::tree::extents::Extents;
use crate::tree::inode::{Inode, InodeId, Kind, Timestamp};
use crate::tree::walk::Reached;
use crate::tree::xattrs::Xattrs;
use crate::units::{BLOCK_SIZE, Nid, align_up, blocks_of};

/// Longer tails get a block of their own: an inline tail must not cross a
/// block's end, so long ones would leave long gaps before them.
const MAX_INLINE: u64 = BLOCK_SIZE / 2;

/// Largest log2 of blocks in a chunk.
const MAX_CHUNK_BITS: u32 = 31;

/// What the metadata are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// A layer on its own: data lie on the primary device, whiteouts and other
    /// marks are kept.
    Object,
    /// The merged image: data lie on the layers, no mark may be left.
    Image,
}

/// Where an inode's content lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// Nothing: an empty file, a fifo, a socket.
    None,
    /// A device number.
    Device(u32),
    /// Whole blocks from `start`, the last perhaps in part.
    Plain {
        /// First block on the device, in blocks of 1024 bytes.
        start: u32,
        /// Bytes of content.
        size: u64,
    },
    /// `blocks` full blocks from `start`, then `tail` bytes behind the inode.
    Inline {
        /// First block on the device, in blocks of 1024 bytes.
        start: u32,
        /// How many full blocks there are.
        blocks: u32,
        /// Bytes behind the inode.
        tail: u64,
    },
    /// `count` chunk indexes behind the inode, each for 2^`bits` blocks.
    Chunks {
        /// log2 of the blocks in a chunk.
        bits: u32,
        /// How many chunks the file has.
        count: u64,
        /// Bytes of content, holes included.
        size: u64,
    },
}

/// One inode, placed.
#[derive(Clone, Copy, Debug)]
pub struct Node {
    /// The inode in the tree.
    pub id: InodeId,
    /// The directory that holds it (of a hard link: the first that does).
    pub parent: DirId,
    /// Byte offset of the inode on its device.
    pub offset: u64,
    /// Whether the inode has the extended form of 64 bytes instead of the compact one of 32.
    pub extended: bool,
    /// Count of links; of a directory, 2 and one for each directory in it.
    pub nlink: u32,
    /// Bytes of xattrs behind the inode.
    pub xattr_size: u64,
    /// Where its content lies.
    pub content: Content,
}

/// Addresses of all metadata of a tree.
#[derive(Debug)]
pub struct Plan<'t> {
    /// The tree whose metadata are placed.
    pub tree: &'t Tree<Extents>,
    /// What the metadata are for.
    pub form: Form,
    /// mtime of compact inodes.
    pub epoch: Timestamp,
    /// In the order in which they are written.
    pub nodes: Vec<Node>,
    /// Where `nodes` has an inode, by its id.
    position: Vec<u32>,
    /// Xattrs with marks, of the inodes that have marks.
    marked: HashMap<InodeId, Xattrs>,
    /// The xattrs that are stored once for several inodes.
    pub shared: SharedXattrs,
    /// Byte offset at which the metadata begin.
    pub start: u64,
    /// The block from which nids count, in blocks of 1024 bytes.
    pub meta_blkaddr: u32,
    /// Byte offset of directory blocks and long symlinks.
    pub blocks_start: u64,
    /// Byte offset of shared xattrs.
    pub shared_start: u64,
    /// Byte offset of the end, a multiple of the block size.
    pub end: u64,
}

impl<'t> Plan<'t> {
    /// Places the metadata of `tree` from byte `start` on.
    ///
    /// # Errors
    /// When EROFS cannot hold an inode of `tree`, with a path of it, or cannot address all
    /// metadata.
    pub fn new(tree: &'t Tree<Extents>, form: Form, start: u64) -> Result<Self, PlanError> {
        let walk =
            tree.reached().map_err(|dir| at_path(tree, dir.inode(), PlanError::DirLinked))?;
        let marked = match form {
            Form::Object => marks(tree, &walk),
            Form::Image => HashMap::new(),
        };
        let xattrs = |id| marked.get(&id).unwrap_or(&tree.inode(id).xattrs);
        let shared = SharedXattrs::choose(walk.iter().map(|w| xattrs(w.id)))
            .map_err(|source| name_the_culprit(tree, &walk, &xattrs, source))?;
        let epoch = most_common_mtime(tree, &walk);

        let mut nodes = Vec::with_capacity(walk.len());
        let mut position = vec![u32::MAX; tree.len()];
        // A nid of 0 would be an inode number of 0, which readdir takes for a free slot.
        let mut at = align_up(start, NID_SLOT).ok_or(PlanError::TooLarge("metadata"))?;
        if at.is_multiple_of(BLOCK_SIZE) {
            at += NID_SLOT;
        }
        let too_large = || PlanError::TooLarge("metadata");
        let meta_blkaddr = u32::try_from(at / BLOCK_SIZE).map_err(|_| too_large())?;
        for (i, walked) in walk.iter().enumerate() {
            let inode = tree.inode(walked.id);
            let located = |source| at_path(tree, walked.id, source);
            let content = content(inode, form).map_err(located)?;
            let extended = needs_extended(inode, walked.nlink, epoch, content);
            let xattr_size = shared.body_size(xattrs(walked.id)).map_err(located)?;
            let head = if extended { EXTENDED_SIZE } else { COMPACT_SIZE } + xattr_size;
            at = align_up(at, NID_SLOT).ok_or_else(too_large)?;
            let end = match content {
                Content::Inline { tail, .. } => {
                    let tail_at = at.checked_add(head).ok_or_else(too_large)?;
                    if tail_at % BLOCK_SIZE + tail > BLOCK_SIZE {
                        at = align_up((tail_at / BLOCK_SIZE + 1) * BLOCK_SIZE - head, NID_SLOT)
                            .ok_or_else(too_large)?;
                    }
                    at + head + tail
                }
                Content::Chunks { count, .. } => {
                    let indexes = count.checked_mul(CHUNK_INDEX_SIZE).ok_or_else(too_large)?;
                    let first = align_up(at + head, CHUNK_INDEX_SIZE).ok_or_else(too_large)?;
                    first.checked_add(indexes).ok_or_else(too_large)?
                }
                _ => at + head,
            };
            position[walked.id.0 as usize] = u32::try_from(i).map_err(|_| too_large())?;
            nodes.push(Node {
                id: walked.id,
                parent: walked.parent,
                offset: at,
                extended,
                nlink: walked.nlink,
                xattr_size,
                content,
            });
            at = end;
        }

        let blocks_start = align_up(at, BLOCK_SIZE).ok_or_else(too_large)?;
        let mut next = blocks_start / BLOCK_SIZE;
        for node in &mut nodes {
            if let Content::Inline { start, blocks, .. } = &mut node.content {
                *start = u32::try_from(next).map_err(|_| too_large())?;
                next += u64::from(*blocks);
            } else if let Content::Plain { start, size } = &mut node.content
                && !matches!(tree.inode(node.id).kind, Kind::File(_))
            {
                *start = u32::try_from(next).map_err(|_| too_large())?;
                next += blocks_of(*size);
            }
        }
        let shared_start = next * BLOCK_SIZE;
        let end = align_up(shared_start + shared.bytes.len() as u64, BLOCK_SIZE)
            .filter(|end| end / BLOCK_SIZE < u64::from(u32::MAX))
            .ok_or_else(too_large)?;
        Ok(Self {
            tree,
            form,
            epoch,
            nodes,
            position,
            marked,
            shared,
            start,
            meta_blkaddr,
            blocks_start,
            shared_start,
            end,
        })
    }

    /// Where `id` was placed.
    pub fn node(&self, id: InodeId) -> &Node {
        &self.nodes[self.position[id.0 as usize] as usize]
    }

    /// The EROFS number of the inode `id`.
    pub fn nid(&self, id: InodeId) -> Nid {
        let base = u64::from(self.meta_blkaddr) * BLOCK_SIZE;
        Nid((self.node(id).offset - base) / NID_SLOT)
    }

    /// The xattrs that `id` has on disk, marks among them.
    pub fn xattrs(&self, id: InodeId) -> &Xattrs {
        self.marked.get(&id).unwrap_or(&self.tree.inode(id).xattrs)
    }
}

/// The xattrs of those inodes of a layer that carry marks for the merge.
fn marks(tree: &Tree<Extents>, walk: &[Reached]) -> HashMap<InodeId, Xattrs> {
    let mut marked = HashMap::new();
    for Reached { id, .. } in walk {
        let inode = tree.inode(*id);
        let mut xattrs = inode.xattrs.clone();
        match &inode.kind {
            Kind::Dir(dir) => {
                if dir.opaque {
                    xattrs.set(disk::MARK_OPAQUE, *b"y");
                }
                if dir.implied {
                    xattrs.set(disk::MARK_IMPLIED, []);
                }
            }
            Kind::LowerLink(target) => xattrs.set(disk::MARK_LOWER_LINK, target.to_bytes()),
            Kind::Char(rdev) if rdev.encode() == 0 => xattrs.set(disk::MARK_DEVICE, []),
            _ => {}
        }
        if xattrs != inode.xattrs {
            marked.insert(*id, xattrs);
        }
    }
    marked
}

/// The time that saves most inodes their extended form; the earliest of several.
fn most_common_mtime(tree: &Tree<Extents>, walk: &[Reached]) -> Timestamp {
    // Sorted, because an image chooses its times: no table of them can be made slow.
    let mut times: Vec<_> = walk.iter().map(|walked| tree.inode(walked.id).stat.mtime).collect();
    times.sort_unstable();
    let best = times.chunk_by(PartialEq::eq).rev().max_by_key(|same| same.len());
    best.map_or(Timestamp::EPOCH, |same| same[0])
}

fn needs_extended(inode: &Inode<Extents>, nlink: u32, epoch: Timestamp, content: Content) -> bool {
    let small = u32::from(u16::MAX);
    let size = size_of(inode, content);
    inode.stat.mtime != epoch
        || inode.stat.uid > small
        || inode.stat.gid > small
        || nlink > small
        || size > u64::from(u32::MAX)
}

/// `i_size` of an inode.
pub fn size_of(inode: &Inode<Extents>, content: Content) -> u64 {
    match content {
        Content::None | Content::Device(_) => match &inode.kind {
            Kind::File(extents) => extents.size,
            _ => 0,
        },
        Content::Plain { size, .. } | Content::Chunks { size, .. } => size,
        Content::Inline { blocks, tail, .. } => u64::from(blocks) * BLOCK_SIZE + tail,
    }
}

fn content(inode: &Inode<Extents>, form: Form) -> Result<Content, PlanError> {
    let left = |what| match form {
        Form::Object => Ok(Content::None),
        Form::Image => Err(PlanError::MarkLeft(what)),
    };
    Ok(match &inode.kind {
        Kind::Dir(dir) => {
            if form == Form::Image && (dir.opaque || dir.implied) {
                return Err(PlanError::MarkLeft("mark of a directory"));
            }
            let names = dir.entries.keys().map(|name| (name.as_bytes(), ()));
            let lens = with_dots(names, (), ()).map(|(name, ())| name.len());
            let (counts, tail) = dirent::split(lens);
            let blocks =
                u32::try_from(counts.len()).map_err(|_| PlanError::TooLarge("directory"))?;
            if tail <= MAX_INLINE {
                Content::Inline { start: 0, blocks: blocks - 1, tail }
            } else {
                Content::Plain { start: 0, size: u64::from(blocks - 1) * BLOCK_SIZE + tail }
            }
        }
        Kind::Symlink(target) => match target.len() as u64 {
            tail if tail == 0 || tail > 4095 || target.contains(&0) => {
                return Err(PlanError::BadSymlink(target.len()));
            }
            tail if tail <= MAX_INLINE => Content::Inline { start: 0, blocks: 0, tail },
            size => Content::Plain { start: 0, size },
        },
        Kind::File(extents) => file_content(extents, form)?,
        Kind::Char(rdev) | Kind::Block(rdev) => Content::Device(rdev.encode()),
        Kind::Fifo | Kind::Socket => Content::None,
        Kind::Whiteout => left("whiteout").map(|_| Content::Device(0))?,
        Kind::LowerLink(_) => left("link to a lower layer")?,
    })
}

/// A directory's entries with `.` and `..` in their places.
pub fn with_dots<'n, T>(
    entries: impl Iterator<Item = (&'n [u8], T)>,
    dot: T,
    dotdot: T,
) -> impl Iterator<Item = (&'n [u8], T)> {
    let mut entries = entries.peekable();
    let mut dots = [(&b"."[..], dot), (&b".."[..], dotdot)].into_iter().peekable();
    std::iter::from_fn(move || match (entries.peek(), dots.peek()) {
        // Few names sort before these.
        (Some((name, _)), Some((dots, _))) if name < dots => entries.next(),
        (_, Some(_)) => dots.next(),
        (_, None) => entries.next(),
    })
}

fn file_content(extents: &Extents, form: Form) -> Result<Content, PlanError> {
    let blocks = blocks_of(extents.size);
    let mut end = 0;
    for run in &extents.runs {
        let run_end = run.file_block.checked_add(run.len.into()).ok_or(PlanError::BadExtents)?;
        if run.len == 0 || run.file_block < end || run_end > blocks {
            return Err(PlanError::BadExtents);
        }
        if run.start.0.checked_add(run.len).is_none() {
            return Err(PlanError::TooLarge("a file's last block"));
        }
        end = run_end;
    }
    if extents.size == 0 {
        return Ok(Content::None);
    }
    if let [run] = &*extents.runs
        && form == Form::Object
        && u64::from(run.len) == blocks
    {
        return Ok(Content::Plain { start: run.start.0, size: extents.size });
    }
    let (bits, count) = chunks(extents);
    Ok(Content::Chunks { bits, count, size: extents.size })
}

/// How a file is divided: log2 of the blocks in a chunk, and how many there are. Each
/// is one hole or one run of blocks, so every boundary between runs is one of chunks.
fn chunks(extents: &Extents) -> (u32, u64) {
    let blocks = blocks_of(extents.size);
    let boundaries = extents
        .runs
        .iter()
        .flat_map(|run| [run.file_block, run.file_block.saturating_add(run.len.into())])
        .filter(|at| *at != 0 && *at != blocks);
    let bits = boundaries.map(u64::trailing_zeros).fold(MAX_CHUNK_BITS, u32::min);
    (bits, blocks.div_ceil(1 << bits))
}

/// Bytes of the chunk indexes that a file of several chunks has in a layer, and again
/// in the image: few bytes of data far apart can make half a mebibyte of them.
pub fn index_bytes(extents: &Extents) -> u64 {
    match chunks(extents).1 {
        ..=1 => 0,
        count => count.saturating_mul(CHUNK_INDEX_SIZE),
    }
}

fn at_path<C>(tree: &Tree<C>, id: InodeId, source: PlanError) -> PlanError {
    let path = tree.path_of(id).map_or_else(|| "?".to_owned(), |path| path.to_string());
    PlanError::At { path, source: Box::new(source) }
}

/// Finds the inode for which xattr sharing failed.
fn name_the_culprit<'a>(
    tree: &Tree<Extents>,
    walk: &[Reached],
    xattrs: &impl Fn(InodeId) -> &'a Xattrs,
    source: PlanError,
) -> PlanError {
    let none = SharedXattrs::default();
    match walk.iter().find(|w| none.body_size(xattrs(w.id)).is_err()) {
        Some(walked) => at_path(tree, walked.id, source),
        None => source,
    }
}
