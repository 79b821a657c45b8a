//! What the upper has to hold: the patched tree against what it was.
//!
//! overlayfs shows a name of the lower directory unless the upper one has it:
//! so the upper has copies of what changed, with all its names, whiteouts for
//! names that went, and an opaque directory where a directory is not the one it
//! was.

use std::collections::{BTreeMap, HashMap, HashSet};

use anyhow::Result;
use fsimage::digest::Blake3;
use fsimage::io::threads;
use fsimage::tree::extents::Extents;
use fsimage::tree::weight::{self, Weigh as _};
use fsimage::tree::{DirId, Inode, InodeId, Kind, Name, Stat, Tree, Xattrs};
use rayon::iter::{IntoParallelRefIterator as _, ParallelIterator as _};

use super::content::{Content, HostFile, Part};
use super::work::Work;

/// Names that one whiteout can have: ext4 counts links up to there.
const WHITEOUT_NAMES: u32 = 65_000;

/// A directory of the patched tree.
struct Visit {
    id: DirId,
    /// Whether overlayfs merges it with the directory that it was.
    merged: bool,
    /// Whether a directory of the lower layer would show through if it were not opaque.
    opaque: bool,
    parent: usize,
    name: Option<Name>,
    /// Whether the upper must have it.
    needed: bool,
}

/// The tree of `/upper`.
///
/// Two passes over the directories: from the leaves up, to find those that the upper must
/// have, and from the root down, to make them. Invariant: in `visits`, each directory
/// stands behind its parent.
pub(super) fn upper(work: &Work<'_>) -> Result<Tree<Content>> {
    let root = work.tree.inode(InodeId::ROOT);
    let mut upper = Tree::new(root.stat);
    upper.inode_mut(InodeId::ROOT).xattrs = root.xattrs.clone();
    if work.is_untouched() {
        return Ok(upper);
    }
    let mut visits = visits(work);
    let whole = changed_files(work, &visits);
    for at in (0..visits.len()).rev() {
        let visit = &visits[at];
        let needed = visit.needed
            || !visit.merged
            || work.differs(visit.id.inode())
            || work.entries(visit.id).iter().any(|(name, id)| {
                work.tree.dir(*id).is_none()
                    && (is_new(work, visit, name, *id) || whole.contains(id))
            })
            || !gone(work, visit).is_empty();
        visits[at].needed = needed;
        let parent = visits[at].parent;
        visits[parent].needed |= needed;
    }

    // The upper's number of each directory that it has, and of each file.
    let mut dirs: Vec<DirId> = vec![DirId::ROOT; visits.len()];
    let mut files: HashMap<InodeId, InodeId> = HashMap::new();
    let mut whiteouts = Whiteouts::default();
    for (at, visit) in visits.iter().enumerate().filter(|(_, visit)| visit.needed) {
        if let Some(name) = &visit.name {
            let Inode { stat, xattrs, .. } = work.tree.inode(visit.id.inode());
            work.take(weight::EMPTY_DIR + xattrs.weight() + name.weight())?;
            let dir = upper.add_dir(dirs[visit.parent], name.clone(), *stat)?;
            upper.inode_mut(dir.inode()).xattrs = xattrs.clone();
            upper[dir].opaque = visit.opaque;
            dirs[at] = dir;
        }
        for (name, id) in work.entries(visit.id) {
            if work.tree.dir(*id).is_some()
                || !(is_new(work, visit, name, *id) || whole.contains(id))
            {
                continue;
            }
            let copy = match files.get(id) {
                Some(copy) => *copy,
                None => {
                    work.take(work.tree.inode(*id).weight())?;
                    upper.push(work.tree.inode(*id).clone())?
                }
            };
            work.take(name.weight())?;
            files.insert(*id, copy);
            upper[dirs[at]].entries.insert(name.clone(), copy);
        }
        for name in gone(work, visit) {
            work.take(name.weight())?;
            let whiteout = whiteouts.next(&mut upper)?;
            upper[dirs[at]].entries.insert(name.clone(), whiteout);
        }
    }
    Ok(upper)
}

/// One inode for many names, as overlayfs makes them itself.
#[derive(Default)]
struct Whiteouts {
    current: Option<(InodeId, u32)>,
}

impl Whiteouts {
    fn next(&mut self, upper: &mut Tree<Content>) -> Result<InodeId> {
        let (id, names) = match self.current {
            Some((id, names)) if names < WHITEOUT_NAMES => (id, names),
            _ => {
                let stat = Stat { mode: 0, ..Stat::IMPLIED_DIR };
                (upper.push(Inode { stat, xattrs: Xattrs::default(), kind: Kind::Whiteout })?, 0)
            }
        };
        self.current = Some((id, names + 1));
        Ok(id)
    }
}

/// All directories of the patched tree, each behind its parent.
fn visits(work: &Work<'_>) -> Vec<Visit> {
    let root = DirId::ROOT;
    let mut visits =
        vec![Visit { id: root, merged: true, opaque: false, parent: 0, name: None, needed: true }];
    let mut at = 0;
    while at < visits.len() {
        let mut children = Vec::new();
        for (name, id) in work.entries(visits[at].id) {
            let Some(dir) = work.tree.dir_id(*id) else {
                continue;
            };
            let was = original(work, &visits[at], name);
            let covers = was.is_some_and(|was| {
                work.original(was).is_some_and(|inode| matches!(inode.kind, Kind::Dir(_)))
            });
            let merged = was == Some(*id);
            children.push(Visit {
                id: dir,
                merged,
                opaque: covers && !merged,
                parent: at,
                name: Some(name.clone()),
                needed: false,
            });
        }
        visits.extend(children);
        at += 1;
    }
    visits
}

/// What overlayfs would find below at `name` of the directory.
fn original(work: &Work<'_>, visit: &Visit, name: &Name) -> Option<InodeId> {
    match &work.original(visit.id.inode()).filter(|_| visit.merged)?.kind {
        Kind::Dir(dir) => dir.entries.get(name).copied(),
        _ => None,
    }
}

/// Whether `id` did not have this name before.
fn is_new(work: &Work<'_>, visit: &Visit, name: &Name, id: InodeId) -> bool {
    original(work, visit, name) != Some(id)
}

/// Names that the directory had and has no more.
fn gone<'w>(work: &'w Work<'_>, visit: &Visit) -> Vec<&'w Name> {
    match work.original(visit.id.inode()).filter(|_| visit.merged).map(|inode| &inode.kind) {
        Some(Kind::Dir(was)) => {
            let is = work.entries(visit.id);
            was.entries.keys().filter(|name| !is.contains_key(*name)).collect()
        }
        _ => Vec::new(),
    }
}

/// The image's files that the upper must have with every name they have left:
/// those that changed, and those that got a name.
fn changed_files(work: &Work<'_>, visits: &[Visit]) -> HashSet<InodeId> {
    let mut whole = HashSet::new();
    for visit in visits {
        for (name, id) in work.entries(visit.id) {
            if work.tree.dir(*id).is_none() && (work.differs(*id) || is_new(work, visit, name, *id))
            {
                whole.insert(*id);
            }
        }
    }
    whole
}

/// A hash of all that `upper` says. Contents on layers count by where they lie,
/// for the layers are known by their own hashes; `scratch` has the hashes of
/// disks that are no layers.
pub(super) fn fingerprint(
    upper: &Tree<Content>,
    scratch: &BTreeMap<u16, Blake3>,
) -> Result<blake3::Hash> {
    let mut hosts: Vec<&HostFile> = Vec::new();
    let mut hasher = blake3::Hasher::new();
    for (number, hash) in scratch {
        hasher.update(&number.to_le_bytes()).update(hash.as_bytes());
    }
    let mut numbers: HashMap<InodeId, u64> = HashMap::new();
    for dir in upper.walk() {
        describe(&mut hasher, upper.inode(dir.inode()));
        let entries = &upper[dir].entries;
        hasher.update(&(entries.len() as u64).to_le_bytes());
        for (name, id) in entries {
            bytes(&mut hasher, name.as_bytes());
            let next = numbers.len() as u64;
            let number = *numbers.entry(*id).or_insert(next);
            hasher.update(&number.to_le_bytes());
            let inode = upper.inode(*id);
            if number == next && !matches!(inode.kind, Kind::Dir(_)) {
                describe(&mut hasher, inode);
                if let Kind::File(content) = &inode.kind {
                    content_of(&mut hasher, content, &mut hosts);
                }
            }
        }
    }
    if hosts.is_empty() {
        return Ok(hasher.finalize());
    }
    threads::pool()?;
    let hashes: std::io::Result<Vec<blake3::Hash>> =
        hosts.par_iter().map(|file| file.hash()).collect();
    for hash in hashes? {
        hasher.update(hash.as_bytes());
    }
    Ok(hasher.finalize())
}

fn bytes(hasher: &mut blake3::Hasher, bytes: &[u8]) {
    hasher.update(&(bytes.len() as u64).to_le_bytes()).update(bytes);
}

fn describe(hasher: &mut blake3::Hasher, inode: &Inode<Content>) {
    let Stat { mode, uid, gid, mtime } = inode.stat;
    hasher.update(&mode.to_le_bytes()).update(&uid.to_le_bytes()).update(&gid.to_le_bytes());
    hasher.update(&mtime.sec.to_le_bytes()).update(&mtime.nsec.to_le_bytes());
    hasher.update(&(inode.xattrs.iter().len() as u64).to_le_bytes());
    for xattr in inode.xattrs.iter() {
        bytes(hasher, &xattr.name);
        bytes(hasher, &xattr.value);
    }
    let (kind, detail) = match &inode.kind {
        Kind::Dir(dir) => (0u8, u32::from(dir.opaque)),
        Kind::File(_) => (1, 0),
        Kind::Symlink(_) => (2, 0),
        Kind::Char(rdev) => (3, rdev.encode()),
        Kind::Block(rdev) => (4, rdev.encode()),
        Kind::Fifo => (5, 0),
        Kind::Socket => (6, 0),
        Kind::Whiteout => (7, 0),
        Kind::LowerLink(_) => (8, 0),
    };
    hasher.update(&[kind]).update(&detail.to_le_bytes());
    if let Kind::Symlink(target) = &inode.kind {
        bytes(hasher, target);
    }
}

fn content_of<'c>(
    hasher: &mut blake3::Hasher,
    content: &'c Content,
    hosts: &mut Vec<&'c HostFile>,
) {
    match content {
        Content::Stored(extents) => stored(hasher, extents),
        Content::Made(parts) => {
            hasher.update(&(parts.len() as u64).to_le_bytes());
            for part in parts.iter() {
                match part {
                    Part::Stored(extents) => stored(hasher, extents),
                    Part::Bytes(text) => bytes(hasher, text),
                    Part::Host(file) => {
                        hasher.update(&file.size.to_le_bytes());
                        hosts.push(file);
                    }
                }
            }
        }
    }
}

fn stored(hasher: &mut blake3::Hasher, extents: &Extents) {
    hasher.update(&extents.size.to_le_bytes());
    hasher.update(&(extents.runs.len() as u64).to_le_bytes());
    for run in &extents.runs {
        hasher.update(&run.file_block.to_le_bytes()).update(&run.device.0.to_le_bytes());
        hasher.update(&run.start.0.to_le_bytes()).update(&run.len.to_le_bytes());
    }
}
