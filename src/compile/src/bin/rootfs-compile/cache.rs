//! `cache`: looks after what builds keep.

use std::io::Write as _;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use fsimage::io::checked::Checked;
use fsimage::io::printable;
use oci::registry::Documents;
use rootfs_compile::{bundle_cache, cache};
use serde_json::json;

use crate::args::{Cache, CacheVerify};
use crate::{FAILED, STDOUT, cache_dir, warn};

pub(crate) fn cache(args: &Cache) -> Result<u8> {
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
    Documents::new(&cache::Cache::documents_dir(&root)).check(args.remove, &mut checked)?;
    print(&root, &checked, args.json)?;
    Ok(if checked.problems.is_empty() { 0 } else { FAILED })
}

/// A line for each problem, and what else there was.
fn print(root: &Path, checked: &Checked, as_json: bool) -> Result<()> {
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
        return writeln!(out, "{}", printable::json(&value)?).context(STDOUT);
    }
    let mut say = |text: &str| writeln!(out, "{}", printable::line(text)).context(STDOUT);
    for problem in problems {
        let removed = if problem.removed { " (removed)" } else { "" };
        say(&format!("{}: {}{removed}", problem.path.display(), problem.what))?;
    }
    for path in strangers {
        say(&format!("{}: it is nothing of this program's, and stays", path.display()))?;
    }
    if *leftovers > 0 {
        say(&format!("{leftovers} files of runs that were killed are removed"))?;
    }
    let (root, wrong) = (root.display(), problems.len());
    match wrong {
        0 => say(&format!("{root}: all {good} layers, bundles and documents are right")),
        _ => say(&format!("{root}: {wrong} are wrong, {good} are right")),
    }
}
