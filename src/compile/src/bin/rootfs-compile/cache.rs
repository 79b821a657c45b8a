//! `cache`: looks after what builds keep.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use fsimage::io::checked::Checked;
use oci::registry::Documents;
use rootfs_compile::{bundle_cache, cache};
use serde_json::json;

use crate::args::{Cache, CacheVerify};
use crate::{FAILED, cache_dir, warn};

pub fn cache(args: &Cache) -> Result<u8> {
    match args {
        Cache::Verify(args) => verify(args),
    }
}

/// Checks layers, bundles and documents of the cache.
fn verify(args: &CacheVerify) -> Result<u8> {
    let root = cache_dir(&args.cache)?;
    ensure!(root.is_dir(), "{} is not a directory", root.display());
    let mut checked = Checked::default();
    let memory = args.read.metadata_bytes();
    cache::check(&root, args.remove, memory, &warn, &mut checked)?;
    bundle_cache::check(&root, args.remove, memory, &warn, &mut checked)?;
    Documents::new(&root.join("registry")).check(args.remove, &mut checked)?;
    print(&root, &checked, args.json)?;
    Ok(if checked.problems.is_empty() { 0 } else { FAILED })
}

/// A line for each problem, and what else there was.
fn print(root: &Path, checked: &Checked, as_json: bool) -> Result<()> {
    let shown = |path: &PathBuf| path.to_string_lossy().escape_debug().to_string();
    let mut out = std::io::stdout().lock();
    let Checked { good, problems, leftovers, strangers } = checked;
    if as_json {
        let problems = problems.iter().map(
            |p| json!({ "file": p.path.to_string_lossy(), "problem": p.what, "removed": p.removed }),
        );
        let value = json!({
            "ok": checked.problems.is_empty(),
            "good": good,
            "problems": problems.collect::<Vec<_>>(),
            "leftovers": leftovers,
            "strangers": strangers.iter().map(|path| path.to_string_lossy()).collect::<Vec<_>>(),
        });
        writeln!(out, "{value:#}")?;
        return Ok(());
    }
    for problem in problems {
        let removed = if problem.removed { " (removed)" } else { "" };
        writeln!(out, "{}: {}{removed}", shown(&problem.path), problem.what)?;
    }
    for path in strangers {
        writeln!(out, "{}: it is nothing of this program's, and stays", shown(path))?;
    }
    if *leftovers > 0 {
        writeln!(out, "{leftovers} files of runs that were killed are removed")?;
    }
    let (root, wrong) = (root.display(), problems.len());
    match wrong {
        0 => writeln!(out, "{root}: all {good} layers, bundles and documents are right")?,
        _ => writeln!(out, "{root}: {wrong} are wrong, {good} are right")?,
    }
    Ok(())
}
