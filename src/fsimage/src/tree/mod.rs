//! A file tree in memory: an arena of inodes, and directories that name them.
//!
//! One type serves a layer (which may hold whiteouts, opaque and implied
//! directories and links into lower layers), the merged image, and the upper.

pub mod extents;
pub mod journal;
pub mod links;
pub mod merge;
mod name;
mod notes;
mod replay;
pub mod weight;

use std::collections::{BTreeMap, HashMap};

pub use self::name::{BadName, GuestPath, Name, shown};

/// Index of an inode in its tree. 0 is the root directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InodeId(pub u32);

impl InodeId {
    /// The root directory.
    pub const ROOT: InodeId = InodeId(0);
}

/// A file tree; `C` is how a regular file's content is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tree<C> {
    inodes: Vec<Inode<C>>,
}

/// What a name leads to. A hard link is a second entry with the same id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inode<C> {
    pub stat: Stat,
    pub xattrs: Xattrs,
    pub kind: Kind<C>,
}

/// Owner, permissions and time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Stat {
    /// Permission bits with setuid, setgid and sticky: `0o0000..=0o7777`.
    pub mode: u16,
    pub uid: u32,
    pub gid: u32,
    pub mtime: Timestamp,
}

impl Stat {
    /// What a directory gets that no layer describes: 0755, root's, 1970.
    pub const IMPLIED_DIR: Stat = Stat { mode: 0o755, uid: 0, gid: 0, mtime: Timestamp::EPOCH };
}

/// A point in time, in the kernel's form: whole seconds towards the past, and
/// nanoseconds (below 10⁹) towards the future from there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp {
    pub sec: i64,
    pub nsec: u32,
}

impl Timestamp {
    /// 1970-01-01 00:00 UTC.
    pub const EPOCH: Timestamp = Timestamp { sec: 0, nsec: 0 };
}

/// File type, with what only that type has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind<C> {
    Dir(Dir),
    File(C),
    Symlink(Box<[u8]>),
    Char(Rdev),
    Block(Rdev),
    Fifo,
    Socket,
    /// In a layer: hides what lower layers have under this name.
    Whiteout,
    /// In a layer: a hard link to what is called so, if the layer does not have it
    /// yet; in its journal, any hard link.
    LowerLink(GuestPath),
}

/// A directory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dir {
    /// In the order of the names' bytes.
    pub entries: BTreeMap<Name, InodeId>,
    /// In a layer: nothing of lower layers shows through.
    pub opaque: bool,
    /// In a layer: only implied by paths below it, so the lower directory's
    /// metadata stay.
    pub implied: bool,
}

/// Device number of a character or block device: 12 bits of major, 20 of minor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Rdev {
    major: u32,
    minor: u32,
}

impl Rdev {
    /// `None` when a number does not fit what Linux can store.
    pub fn new(major: u64, minor: u64) -> Option<Self> {
        let major = u32::try_from(major).ok().filter(|m| *m < 1 << 12)?;
        let minor = u32::try_from(minor).ok().filter(|m| *m < 1 << 20)?;
        Some(Self { major, minor })
    }

    /// The 32-bit form of the kernel's `new_encode_dev`.
    pub fn encode(self) -> u32 {
        (self.minor & 0xff) | self.major << 8 | (self.minor & !0xff) << 12
    }

    /// The inverse of [`Rdev::encode`].
    pub fn decode(dev: u32) -> Self {
        Self { major: dev >> 8 & 0xfff, minor: dev & 0xff | dev >> 12 & 0xfff00 }
    }

    pub fn major(self) -> u32 {
        self.major
    }

    pub fn minor(self) -> u32 {
        self.minor
    }
}

/// Extended attributes of one inode, by full name (`user.origin`), in the
/// order of the names' bytes, each name once.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Xattrs(Vec<Xattr>);

/// Names that begin so are the compiler's own and never reach an image.
pub const PRIVATE_XATTRS: &[u8] = b"trusted.rootfs-compile.";

/// In a layer: names of xattrs that were not taken over, joined by NUL.
pub const DROPPED_XATTRS: &[u8] = b"trusted.rootfs-compile.dropped";

/// One extended attribute.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Xattr {
    pub name: Box<[u8]>,
    pub value: Box<[u8]>,
}

impl Xattrs {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Xattr> {
        self.0.iter()
    }

    pub fn get(&self, name: &[u8]) -> Option<&[u8]> {
        let at = self.0.binary_search_by(|x| (*x.name).cmp(name)).ok()?;
        Some(&self.0[at].value)
    }

    /// Sets `name`, in place of an earlier value.
    pub fn set(&mut self, name: impl Into<Box<[u8]>>, value: impl Into<Box<[u8]>>) {
        let xattr = Xattr { name: name.into(), value: value.into() };
        match self.0.binary_search_by(|x| x.name.cmp(&xattr.name)) {
            Ok(at) => self.0[at] = xattr,
            Err(at) => self.0.insert(at, xattr),
        }
    }

    /// Takes `name` away and returns its value.
    pub fn remove(&mut self, name: &[u8]) -> Option<Box<[u8]>> {
        let at = self.0.binary_search_by(|x| (*x.name).cmp(name)).ok()?;
        Some(self.0.remove(at).value)
    }
}

/// From many at once, sorted once; of several with one name, the first counts.
impl FromIterator<Xattr> for Xattrs {
    fn from_iter<I: IntoIterator<Item = Xattr>>(xattrs: I) -> Self {
        let mut all: Vec<Xattr> = xattrs.into_iter().collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all.dedup_by(|later, first| later.name == first.name);
        Self(all)
    }
}

/// A tree would need more than 2³² inodes.
#[derive(Debug, thiserror::Error)]
#[error("more than 2^32 inodes")]
pub struct TooManyInodes;

impl<C> Tree<C> {
    /// A tree of one empty directory.
    pub fn new(root: Stat) -> Self {
        let kind = Kind::Dir(Dir::default());
        Self { inodes: vec![Inode { stat: root, xattrs: Xattrs::default(), kind }] }
    }

    /// How many inodes the arena holds, reachable or not.
    pub fn len(&self) -> usize {
        self.inodes.len()
    }

    /// Never: there is always a root.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// Adds an inode that no directory names yet.
    pub fn push(&mut self, inode: Inode<C>) -> Result<InodeId, TooManyInodes> {
        let id = u32::try_from(self.inodes.len()).map_err(|_| TooManyInodes)?;
        self.inodes.push(inode);
        Ok(InodeId(id))
    }

    pub fn inode(&self, id: InodeId) -> &Inode<C> {
        &self.inodes[id.0 as usize]
    }

    pub fn inode_mut(&mut self, id: InodeId) -> &mut Inode<C> {
        &mut self.inodes[id.0 as usize]
    }

    /// The directory `id`, or `None` if it is something else.
    pub fn dir(&self, id: InodeId) -> Option<&Dir> {
        match &self.inode(id).kind {
            Kind::Dir(dir) => Some(dir),
            _ => None,
        }
    }

    /// The directory `id`, or `None` if it is something else.
    pub fn dir_mut(&mut self, id: InodeId) -> Option<&mut Dir> {
        match &mut self.inode_mut(id).kind {
            Kind::Dir(dir) => Some(dir),
            _ => None,
        }
    }

    /// Whether `id` is a directory that only whiteouts in it imply.
    ///
    /// `known` has what was found before, of it and of what is below: that stays
    /// true when such a directory becomes a whiteout, and when another one is
    /// described. So each directory is looked into once.
    pub fn is_hollow(&self, id: InodeId, known: &mut HashMap<InodeId, bool>) -> bool {
        // A directory comes twice: before those in it, and behind them.
        let mut dirs = vec![(id, false)];
        while let Some((id, behind)) = dirs.pop() {
            if known.contains_key(&id) {
                continue;
            }
            let hollow = |child: &InodeId| match self.inode(*child).kind {
                Kind::Whiteout => Some(true),
                Kind::Dir(_) => known.get(child).copied(),
                _ => Some(false),
            };
            let Some(dir) = self.dir(id).filter(|dir| dir.implied) else {
                known.insert(id, false);
                continue;
            };
            if behind || dir.entries.values().any(|child| hollow(child) == Some(false)) {
                let all = dir.entries.values().all(|child| hollow(child) == Some(true));
                known.insert(id, all);
                continue;
            }
            dirs.push((id, true));
            let unknown = dir.entries.values().filter(|child| hollow(child).is_none());
            dirs.extend(unknown.map(|child| (*child, false)));
        }
        known[&id]
    }

    /// The inode `id`, which no name may lead to any more.
    fn take(&mut self, id: InodeId) -> Inode<C> {
        let none = Inode { stat: Stat::IMPLIED_DIR, xattrs: Xattrs::default(), kind: Kind::Fifo };
        std::mem::replace(self.inode_mut(id), none)
    }

    /// What `path` names, no symbolic link followed.
    pub fn lookup(&self, path: &GuestPath) -> Option<InodeId> {
        path.0.iter().try_fold(InodeId::ROOT, |at, name| self.dir(at)?.entries.get(name).copied())
    }

    /// A path of `id`, found by search: for messages, where it need not be fast.
    pub fn path_of(&self, id: InodeId) -> Option<GuestPath> {
        let mut path = GuestPath::default();
        // With the depth of the directory that each is in.
        let mut dirs = vec![(0, None, InodeId::ROOT)];
        while let Some((depth, name, at)) = dirs.pop() {
            path.0.truncate(depth);
            path.0.extend(name);
            if at == id {
                return Some(path);
            }
            let depth = path.0.len();
            for (name, child) in self.dir(at).into_iter().flat_map(|dir| &dir.entries) {
                if *child == id {
                    return Some(path.join(name));
                }
                if self.dir(*child).is_some() {
                    dirs.push((depth, Some(name.clone()), *child));
                }
            }
        }
        None
    }

    /// The same tree, with contents that are known in another way.
    pub fn map_files<D>(self, mut map: impl FnMut(C) -> D) -> Tree<D> {
        let inodes = self.inodes.into_iter().map(|inode| {
            let kind = match inode.kind {
                Kind::File(content) => Kind::File(map(content)),
                Kind::Dir(dir) => Kind::Dir(dir),
                Kind::Symlink(target) => Kind::Symlink(target),
                Kind::Char(rdev) => Kind::Char(rdev),
                Kind::Block(rdev) => Kind::Block(rdev),
                Kind::Fifo => Kind::Fifo,
                Kind::Socket => Kind::Socket,
                Kind::Whiteout => Kind::Whiteout,
                Kind::LowerLink(target) => Kind::LowerLink(target),
            };
            Inode { stat: inode.stat, xattrs: inode.xattrs, kind }
        });
        Tree { inodes: inodes.collect() }
    }

    pub fn inodes_mut(&mut self) -> impl Iterator<Item = &mut Inode<C>> {
        self.inodes.iter_mut()
    }

    /// The inodes of the arena, taken apart.
    pub fn into_inodes(self) -> Vec<Inode<C>> {
        self.inodes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn device_numbers_have_the_kernels_bits() {
        // 0x12345 in the minor keeps its low byte at the bottom, the rest above the major.
        assert_eq!(Rdev::new(0xabc, 0x12345).unwrap().encode(), 0x123a_bc45);
        assert_eq!(Rdev::decode(0x123a_bc45), Rdev::new(0xabc, 0x12345).unwrap());
        assert!(Rdev::new(4096, 0).is_none());
        assert!(Rdev::new(0, 1 << 20).is_none());
    }
}
