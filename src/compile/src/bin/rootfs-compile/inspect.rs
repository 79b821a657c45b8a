//! `inspect`: a bundle as text or JSON.

use std::io::Write as _;

use anyhow::{Context as _, Result};
use bundle::inspect::{Report, inspect as read};
use fsimage::io::printable;
use indicatif::HumanBytes;
use rootfs_compile::cache::Cache;

use crate::STDOUT;
use crate::args::Inspect;

pub(crate) fn inspect(args: &Inspect) -> Result<u8> {
    let cache = args.cache.cache_dir.clone().or_else(Cache::default_dir);
    let report = read(&args.read.bundle(&args.dir)?, |diff_id| {
        cache.as_deref().is_some_and(|cache| Cache::has(cache, diff_id))
    })?;
    let mut out = std::io::stdout().lock();
    if args.json {
        writeln!(out, "{}", printable::json(&report)?).context(STDOUT)?;
    } else {
        for line in lines(&report) {
            writeln!(out, "{}", printable::line(&line)).context(STDOUT)?;
        }
    }
    Ok(0)
}

fn lines(report: &Report) -> Vec<String> {
    let image = &report.image;
    let mut lines = vec![format!("image     {}", image.reference)];
    if let Some(digest) = image.manifest_digest {
        lines.push(format!("manifest  {digest}"));
    }
    lines.push(format!("config    {}", image.config_digest));
    lines.push(format!("platform  {}", image.platform));
    for (i, entry) in report.layers.iter().enumerate() {
        let layer = &entry.layer;
        let cached = if entry.cached { ", cached" } else { "" };
        lines.push(format!(
            "layer {:<3} {}  {} -> {}{cached}",
            i + 1,
            layer.diff_id,
            HumanBytes(layer.compressed),
            HumanBytes(entry.size),
        ));
        let through = layer.through_links.iter();
        lines.extend(
            through.map(|link| format!("          through a link: {} -> {}", link.path, link.to)),
        );
        let over = layer.over_files.iter();
        lines.extend(over.map(|path| format!("          a file used as a directory: {path}")));
        let dropped = layer.dropped_xattrs.iter();
        lines.extend(
            dropped
                .map(|x| format!("          dropped xattrs: {}: {}", x.path, x.names.join(", "))),
        );
        if layer.unlisted > 0 {
            lines.push(format!("          and {} more of these", layer.unlisted));
        }
    }
    lines.extend(report.patches.iter().map(|patch| format!("patch     {patch}")));
    let totals = &report.totals;
    lines.push(format!(
        "total     {} inodes: {} directories, {} files, {} symlinks, {} others",
        totals.inodes, totals.directories, totals.files, totals.symlinks, totals.devices_and_others
    ));
    lines.push(format!(
        "bytes     {} compressed, {} uncompressed, {} on disk, {} in files",
        HumanBytes(totals.compressed),
        HumanBytes(totals.uncompressed),
        HumanBytes(totals.disk),
        HumanBytes(totals.file_bytes),
    ));
    let conflicts = report.case_conflicts.iter();
    lines.extend(conflicts.map(|names| format!("case      {}", names.join("  "))));
    if report.more_case_conflicts > 0 {
        lines.push(format!("case      and {} more", report.more_case_conflicts));
    }
    lines
}
