//! What a tree says, in a form that does not depend on the order of its inodes.

use std::collections::{BTreeMap, HashMap};

use fsimage::tree::extents::{Extent, Extents};
use fsimage::tree::{Dir, GuestPath, Inode, InodeId, Kind, Tree};

/// What lies at a path.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    /// An inode, a directory's entries apart.
    Inode(Inode<Extents>),
    /// A hard link to the inode that was seen at another path.
    Link(GuestPath),
}

/// Every path of `tree` and what lies there. Two trees are one if these are equal.
pub(crate) fn shape(tree: &Tree<Extents>) -> BTreeMap<GuestPath, Seen> {
    let mut shape = BTreeMap::new();
    let mut first: HashMap<InodeId, GuestPath> = HashMap::new();
    let mut left = vec![(GuestPath::default(), InodeId::ROOT)];
    while let Some((path, id)) = left.pop() {
        if let Some(known) = first.get(&id) {
            assert!(tree.dir(id).is_none(), "a directory has two names");
            shape.insert(path, Seen::Link(known.clone()));
            continue;
        }
        let inode = tree.inode(id);
        if let Kind::Dir(dir) = &inode.kind {
            // In the order of their names, so that it is the same name that is seen first.
            left.extend(dir.entries.iter().rev().map(|(name, id)| (path.join(name), *id)));
        }
        first.insert(id, path.clone());
        shape.insert(path, Seen::Inode(alone(inode)));
    }
    shape
}

/// `inode` without entries, and with as few extents as its content can have.
fn alone(inode: &Inode<Extents>) -> Inode<Extents> {
    let kind = match &inode.kind {
        Kind::Dir(dir) => Kind::Dir(Dir { entries: BTreeMap::new(), ..*dir }),
        Kind::File(extents) => Kind::File(joined(extents)),
        other => other.clone(),
    };
    Inode { kind, stat: inode.stat, xattrs: inode.xattrs.clone() }
}

fn joined(extents: &Extents) -> Extents {
    let mut runs: Vec<Extent> = Vec::new();
    for run in &extents.runs {
        match runs.last_mut() {
            Some(last)
                if last.device == run.device
                    && last.file_block + u64::from(last.len) == run.file_block
                    && last.start.0.checked_add(last.len) == Some(run.start.0) =>
            {
                last.len += run.len;
            }
            _ => runs.push(*run),
        }
    }
    Extents { size: extents.size, runs: runs.as_slice().into() }
}

/// Asserts that the extents of all files ascend, do not reach past their files, and lie on
/// devices of so many blocks as `blocks` says, the primary device first.
pub(crate) fn assert_addresses(tree: &Tree<Extents>, blocks: &[u64]) {
    for id in tree.ids() {
        let Kind::File(extents) = &tree.inode(id).kind else { continue };
        let mut end = 0;
        for run in &extents.runs {
            assert!(run.len > 0 && run.file_block >= end, "extents out of order: {extents:?}");
            end = run.file_block + u64::from(run.len);
            let device = blocks.get(usize::from(run.device.0));
            let last = u64::from(run.start.0) + u64::from(run.len);
            assert!(device.is_some_and(|blocks| last <= *blocks), "{extents:?} past {device:?}");
        }
        assert!(end <= fsimage::units::blocks_of(extents.size), "extents past the file's end");
    }
}
