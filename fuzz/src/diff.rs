//! Unified diffs.

use std::os::unix::fs::FileExt as _;

use anyhow::Result;
use bundle::boot::lenient::Int;
use fsimage::tree::extents::Extents;
use fsimage::tree::{DirId, GuestPath, Inode, Kind, Stat, Timestamp, Tree, Xattrs};
use fsimage::units::{BLOCK_SIZE, BlockAddr, DeviceId, blocks_of};
use rootfs_compile::layer::Budgets;
use rootfs_compile::patch::content::Disks;
use rootfs_compile::patch::op::{Diff, Op};
use rootfs_compile::patch::{Environment, Location, Patch, apply};

use super::layer::limits;
use super::memory;

/// What separates two texts in an input.
const SEPARATOR: u8 = 0;

/// A text, and behind a NUL anything as a diff of it, or as another text. A diff changes the
/// file or is refused, the same way twice; and the diff that replaces all of the first text by
/// the second one does that.
pub fn diff(input: &[u8]) {
    let at = input.iter().position(|byte| *byte == SEPARATOR).unwrap_or(input.len());
    let (old, new) = (&input[..at], input.get(at + 1..).unwrap_or_default());
    if let Ok(diff) = std::str::from_utf8(new) {
        assert_eq!(patched(old, diff).ok(), patched(old, diff).ok());
    }
    let (Ok(old), Ok(new)) = (std::str::from_utf8(old), std::str::from_utf8(new)) else {
        return;
    };
    if old == new {
        return;
    }
    let found = patched(old.as_bytes(), &whole(old, new));
    // A file that the diff leaves without lines is still there.
    let found = found.unwrap_or_else(|error| panic!("{error:#}"));
    assert_eq!(found.as_deref(), Some(new.as_bytes()));
}

/// A diff that takes every line of `old` away and puts all of `new` there.
fn whole(old: &str, new: &str) -> String {
    let lines = |sign: char, text: &str| -> (usize, String) {
        let lines = text.split_inclusive('\n');
        let bare = if text.is_empty() || text.ends_with('\n') {
            ""
        } else {
            "\n\\ No newline at end of file\n"
        };
        let signed: String = lines.clone().map(|line| format!("{sign}{line}")).collect();
        (lines.count(), signed + bare)
    };
    let ((olds, minus), (news, plus)) = (lines('-', old), lines('+', new));
    let first = |count: usize| usize::from(count > 0);
    let header = format!("@@ -{},{olds} +{},{news} @@", first(olds), first(news));
    format!("--- a/file\n+++ b/file\n{header}\n{minus}{plus}")
}

/// `/file`, which holds `old`, after `diff`: nothing if the diff changes nothing of it.
///
/// # Errors
/// When the diff is refused.
fn patched(old: &[u8], diff: &str) -> Result<Option<Vec<u8>>> {
    let (limits, disk) = (limits(), memory::file());
    disk.write_all_at(old, BLOCK_SIZE).expect("there is memory");
    disk.set_len(BLOCK_SIZE + blocks_of(old.len() as u64) * BLOCK_SIZE).expect("the same");
    let mut tree = Tree::new(Stat::IMPLIED_DIR);
    let path = GuestPath::parse(b"file").expect("that is a name");
    let len = blocks_of(old.len() as u64) as u32;
    let content = Extents::contiguous(old.len() as u64, DeviceId(1), BlockAddr(1), len);
    let inode = Inode {
        stat: Stat { mode: 0o644, ..Stat::IMPLIED_DIR },
        xattrs: Xattrs::default(),
        kind: Kind::File(content),
    };
    tree.add(DirId::ROOT, path.0[0].clone(), inode)?;
    let op = Diff { content: Some(diff.to_owned()), from: None, strip: Int(1), path: "/".into() };
    let at = Location { file: "fuzz".into(), line: 1 };
    let environment = Environment {
        time: Timestamp::EPOCH,
        limits: &limits,
        budgets: &Budgets::new(&limits),
        own: &[],
        check_xattrs: &|_| Ok(()),
        scratch: &|| Ok(memory::file()),
        records_changes: true,
    };
    let patched =
        apply(tree, Disks(vec![disk.into()]), &[Patch { at, op: Op::Diff(op) }], &environment)?;
    let Some(id) = patched.upper.lookup(&path) else {
        return Ok(None);
    };
    match &patched.upper.inode(id).kind {
        Kind::File(content) => Ok(Some(content.read(&patched.disks)?)),
        Kind::Whiteout => Ok(Some(Vec::new())),
        other => panic!("the diff made {other:?} of a file"),
    }
}
