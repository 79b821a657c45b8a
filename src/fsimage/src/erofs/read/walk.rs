//! From the bytes of an EROFS image to a tree: every inode and every entry, checked.

use rustc_hash::FxHashMap;

use crate::budget::{Budget, Exhausted, Tally};
use crate::erofs::disk::{self, BadSuperBlock};
use crate::erofs::plan::Form;
use crate::erofs::read::content;
use crate::erofs::read::error::{ReadError, Result, bad};
use crate::erofs::read::inode::RawInode;
use crate::erofs::read::reader::Reader;
use crate::tree::arena::{DirId, Tree};
use crate::tree::extents::Extents;
use crate::tree::file_type::FileType;
use crate::tree::inode::{Dir, Inode, InodeId, Kind, Rdev, Stat, Timestamp};
use crate::tree::name::{BadName, GuestPath, Name};
use crate::tree::weight::Weigh as _;
use crate::tree::xattrs::Xattrs;
use crate::units::Nid;

impl Reader<'_> {
    /// The whole tree, every inode and entry of it checked. A layer's marks
    /// (`Form::Object`) become what they mean. What is kept of it is taken from
    /// `budget`, as the writer took it when there was a layer of it.
    ///
    /// # Errors
    /// At the first inode or entry that is wrong, when a count of links or of inodes is not
    /// what is written, or when `budget` is used up.
    pub fn tree(&self, form: Form, budget: &Budget) -> Result<Tree<Extents>> {
        let mut walk = Walk {
            reader: self,
            form,
            tree: Tree::new(Stat::IMPLIED_DIR),
            ids: FxHashMap::default(),
            met: Vec::new(),
            named: 0,
            kept: Tally::new(budget),
        };
        walk.run()?;
        let inodes = walk.tree.len() as u64;
        if inodes != self.superblock.inos {
            let told = self.superblock.inos;
            let what = format!("{told} inodes, but there are {inodes}");
            return Err(BadSuperBlock(what).into());
        }
        Ok(walk.tree)
    }
}

/// What is known of an inode that an entry led to.
struct Met {
    nid: Nid,
    file_type: FileType,
    /// The count of links that the inode has on disk.
    told: u32,
    /// The count of links that the entries make.
    counted: u32,
}

impl Met {
    fn new(raw: &RawInode<'_>, counted: u32) -> Self {
        Self { nid: raw.nid, file_type: raw.disk.file_type, told: raw.disk.nlink, counted }
    }
}

struct Walk<'r, 'd> {
    reader: &'r Reader<'d>,
    form: Form,
    tree: Tree<Extents>,
    ids: FxHashMap<Nid, InodeId>,
    /// By id.
    met: Vec<Met>,
    /// Bytes of directories, links' targets and chunk indexes, which belong to one
    /// inode each.
    named: u64,
    /// Weight of what is kept.
    kept: Tally<'r>,
}

impl<'d> Walk<'_, 'd> {
    fn run(&mut self) -> Result<()> {
        let root_nid = Nid(self.reader.superblock.root_nid.into());
        let (raw, root) = self.inode(root_nid)?;
        if !matches!(root.kind, Kind::Dir(_)) {
            return Err(bad(root_nid, "the root is not a directory"));
        }
        *self.tree.inode_mut(InodeId::ROOT) = root;
        self.ids.insert(root_nid, InodeId::ROOT);
        self.met.push(Met::new(&raw, 2));
        let mut dirs = vec![(DirId::ROOT, raw, root_nid)];
        while let Some((id, raw, parent)) = dirs.pop() {
            self.dir(id, &raw, parent, &mut dirs)?;
        }
        self.kept.pay().map_err(|error| exhausted(root_nid, error))?;
        for Met { nid, told, counted, .. } in &self.met {
            if told != counted {
                return Err(bad(*nid, format!("nlink is {told}, but {counted} entries lead here")));
            }
        }
        Ok(())
    }

    /// Reads the entries of directory `id`; new subdirectories go onto `dirs`.
    fn dir(
        &mut self,
        id: DirId,
        raw: &RawInode<'d>,
        parent: Nid,
        dirs: &mut Vec<(DirId, RawInode<'d>, Nid)>,
    ) -> Result<()> {
        let (mut dot, mut dotdot) = (None, None);
        let mut found = Vec::new();
        content::entries(self.reader, raw, |entry| {
            let wrong = |what: String| ReadError::Dirent {
                nid: raw.nid,
                name: entry.name.escape_ascii().to_string(),
                what,
            };
            match entry.name {
                b"." => dot = Some(entry.nid),
                b".." => dotdot = Some(entry.nid),
                _ => {
                    let name = Name::new(entry.name).map_err(|e: BadName| wrong(e.to_string()))?;
                    self.keep(raw.nid, name.weight())?;
                    let child = self.child(id, raw.nid, entry.nid, dirs)?;
                    let file_type = self.met[child.0 as usize].file_type as u8;
                    if file_type != entry.file_type {
                        return Err(wrong(format!("type {} for {file_type}", entry.file_type)));
                    }
                    found.push((name, child));
                }
            }
            Ok(())
        })?;
        if dot != Some(raw.nid) || dotdot != Some(parent) {
            return Err(bad(raw.nid, "\".\" or \"..\" is missing or leads elsewhere"));
        }
        // They are in order, from which a map is made faster than by inserting.
        self.tree[id].entries = found.into_iter().collect();
        Ok(())
    }

    /// The inode that an entry of directory `dir` leads to.
    fn child(
        &mut self,
        dir: DirId,
        dir_nid: Nid,
        nid: Nid,
        dirs: &mut Vec<(DirId, RawInode<'d>, Nid)>,
    ) -> Result<InodeId> {
        if let Some(id) = self.ids.get(&nid) {
            if self.tree.dir(*id).is_some() {
                return Err(bad(nid, "a directory with two names"));
            }
            self.met[id.0 as usize].counted += 1;
            return Ok(*id);
        }
        let (raw, inode) = self.inode(nid)?;
        let id = self.tree.push(inode).map_err(|e| bad(nid, e.to_string()))?;
        self.ids.insert(nid, id);
        let new_dir = self.tree.dir_id(id);
        self.met.push(Met::new(&raw, if new_dir.is_some() { 2 } else { 1 }));
        if let Some(new_dir) = new_dir {
            self.met[dir.inode().0 as usize].counted += 1;
            dirs.push((new_dir, raw, dir_nid));
        }
        Ok(id)
    }

    fn inode(&mut self, nid: Nid) -> Result<(RawInode<'d>, Inode<Extents>)> {
        let reader = self.reader;
        let raw = reader.raw_inode(nid)?;
        self.name_bytes(&raw)?;
        let mut xattrs = reader.xattrs(&raw)?;
        let d = &raw.disk;
        let mtime = if d.extended {
            Timestamp { sec: d.mtime as i64, nsec: d.mtime_nsec }
        } else {
            let superblock = &reader.superblock;
            Timestamp { sec: superblock.epoch as i64, nsec: superblock.fixed_nsec }
        };
        if mtime.nsec >= 1_000_000_000 {
            return Err(bad(nid, format!("{} nanoseconds", mtime.nsec)));
        }
        let stat = Stat { mode: d.permissions, uid: d.uid, gid: d.gid, mtime };
        let kind = self.kind(&raw, &mut xattrs)?;
        let inode = Inode { stat, xattrs, kind };
        // Each extent was counted as it came.
        let counted = match &inode.kind {
            Kind::File(extents) => extents.weight(),
            _ => 0,
        };
        self.keep(nid, inode.weight() - counted)?;
        Ok((raw, inode))
    }

    /// Counts what is kept of the inode `nid`.
    fn keep(&mut self, nid: Nid, weight: u64) -> Result<()> {
        self.kept.count(weight).map_err(|error| exhausted(nid, error))
    }

    /// Counts the bytes that `raw` names as its own, before they are read. All
    /// inodes together cannot have more than there are, unless they lie over each
    /// other: then a small file could stand for a tree without bounds.
    fn name_bytes(&mut self, raw: &RawInode<'_>) -> Result<()> {
        let bytes = match raw.disk.file_type {
            FileType::Dir | FileType::Symlink => raw.disk.size,
            FileType::Regular => content::index_bytes(raw).unwrap_or(u64::MAX),
            _ => 0,
        };
        self.named = self.named.saturating_add(bytes);
        match self.named <= self.reader.data.len() as u64 {
            true => Ok(()),
            false => Err(bad(
                raw.nid,
                "directories, links or chunk indexes lie over each other, or past the end",
            )),
        }
    }

    fn kind(&mut self, raw: &RawInode<'_>, xattrs: &mut Xattrs) -> Result<Kind<Extents>> {
        let object = self.form == Form::Object;
        let mut mark = |name| if object { xattrs.remove(name) } else { None };
        Ok(match raw.disk.file_type {
            FileType::Dir => Kind::Dir(Dir {
                opaque: mark(disk::MARK_OPAQUE).is_some(),
                implied: mark(disk::MARK_IMPLIED).is_some(),
                ..Dir::default()
            }),
            FileType::Regular => match mark(disk::MARK_LOWER_LINK) {
                Some(target) => Kind::LowerLink(
                    GuestPath::parse(&target).map_err(|e| bad(raw.nid, e.to_string()))?,
                ),
                None => {
                    let reader = self.reader;
                    let keep = |weight| self.keep(raw.nid, weight);
                    Kind::File(content::extents(reader, raw, keep)?)
                }
            },
            FileType::Symlink => Kind::Symlink(content::target(self.reader, raw)?.into()),
            FileType::Char => {
                let real = mark(disk::MARK_DEVICE).is_some();
                match raw.disk.u {
                    0 if object && !real => Kind::Whiteout,
                    dev => Kind::Char(Rdev::decode(dev)),
                }
            }
            FileType::Block => Kind::Block(Rdev::decode(raw.disk.u)),
            FileType::Fifo => Kind::Fifo,
            FileType::Socket => Kind::Socket,
        })
    }
}

fn exhausted(nid: Nid, error: Exhausted) -> ReadError {
    bad(nid, error.to_string())
}
