//! What overlayfs will make of the tree.

use super::super::tree::Walked;
use crate::ext4::disk::{FIRST_INO, ROOT_INO};
use crate::ext4::read::content::FileData;
use crate::ext4::read::error::{Result, bad};
use crate::tree::arena::DirId;
use crate::tree::inode::{Dir, Inode, InodeId, Kind, Stat};
use crate::tree::name::Name;
use crate::tree::xattrs::OVERLAY_OPAQUE;

/// Everything of overlayfs is called so.
const OVERLAY: &[u8] = b"trusted.overlay.";

/// The root holds `lost+found`, `upper` and `work`, and below `upper` is what
/// overlayfs itself would have left there.
pub(super) fn check(walked: &Walked) -> Result<()> {
    let tree = &walked.tree;
    let root = &tree[DirId::ROOT];
    let wanted: [&[u8]; 3] = [b"lost+found", b"upper", b"work"];
    if !root.entries.keys().map(Name::as_bytes).eq(wanted) {
        return Err(bad(ROOT_INO, "the root holds more or less than lost+found, upper and work"));
    }
    let private = Stat { mode: 0o700, ..Stat::IMPLIED_DIR };
    plain(walked, InodeId::ROOT, Stat::IMPLIED_DIR)?;
    for (name, id) in &root.entries {
        if name.as_bytes() == b"upper" {
            upper(walked, *id)?;
            continue;
        }
        plain(walked, *id, private)?;
        if tree.dir(*id).is_none_or(|dir| !dir.entries.is_empty()) {
            return Err(bad(ino(walked, *id), "it is not an empty directory"));
        }
    }
    if root.entries.get(wanted[0]).is_none_or(|id| ino(walked, *id) != FIRST_INO) {
        return Err(bad(FIRST_INO, "it is not lost+found"));
    }
    Ok(())
}

fn ino(walked: &Walked, id: InodeId) -> u32 {
    walked.inos[id.0 as usize]
}

/// An inode that the build makes, as it always is.
fn plain(walked: &Walked, id: InodeId, stat: Stat) -> Result<()> {
    let inode = walked.tree.inode(id);
    if inode.stat != stat || !inode.xattrs.is_empty() {
        return Err(bad(
            ino(walked, id),
            "its owner, mode, time or xattrs are not as a build sets them",
        ));
    }
    Ok(())
}

/// Walks `/upper`. `below`: nothing of the image shows through, so nothing hides it.
fn upper(walked: &Walked, id: InodeId) -> Result<()> {
    let mut dirs = vec![(id, false)];
    if walked.tree.dir(id).is_none() {
        return Err(bad(ino(walked, id), "it is not a directory"));
    }
    while let Some((id, below)) = dirs.pop() {
        let opaque = overlay_xattrs(walked, id)?;
        if opaque && below {
            return Err(bad(ino(walked, id), "it is opaque in a directory that is opaque already"));
        }
        let Some(dir) = walked.tree.dir(id) else { continue };
        for child in dir.entries.values() {
            let inode = walked.tree.inode(*child);
            if is_whiteout(inode) {
                whiteout(walked, *child, inode, below || opaque)?;
            } else {
                dirs.push((*child, below || opaque));
            }
        }
    }
    Ok(())
}

fn is_whiteout(inode: &Inode<FileData>) -> bool {
    matches!(inode.kind, Kind::Char(rdev) if rdev.encode() == 0)
}

fn whiteout(walked: &Walked, id: InodeId, inode: &Inode<FileData>, below: bool) -> Result<()> {
    if below {
        return Err(bad(ino(walked, id), "a whiteout in a directory that is opaque already"));
    }
    if inode.stat != (Stat { mode: 0, ..Stat::IMPLIED_DIR }) || !inode.xattrs.is_empty() {
        return Err(bad(ino(walked, id), "a whiteout with an owner, a mode, a time or xattrs"));
    }
    Ok(())
}

/// Whether the inode is opaque. No build leaves any other mark of overlayfs's.
fn overlay_xattrs(walked: &Walked, id: InodeId) -> Result<bool> {
    let inode = walked.tree.inode(id);
    let mut opaque = false;
    for xattr in inode.xattrs.iter().filter(|xattr| xattr.name.starts_with(OVERLAY)) {
        let is_dir = matches!(inode.kind, Kind::Dir(Dir { .. }));
        if *xattr.name != *OVERLAY_OPAQUE || *xattr.value != *b"y" || !is_dir {
            let (name, value) = (xattr.name.escape_ascii(), xattr.value.escape_ascii());
            return Err(bad(
                ino(walked, id),
                format!("the xattr {name} with the value \"{value}\""),
            ));
        }
        opaque = true;
    }
    Ok(opaque)
}
