//! What a dry run prints.

use std::io::Write as _;

use anyhow::{Context as _, Result};
use fsimage::io::printable;
use rootfs_compile::build::Preview;
use rootfs_compile::manifest::Manifest;
use rootfs_compile::patch::What;
use serde_json::{Value, json};

use crate::STDOUT;

fn sign(what: What) -> &'static str {
    match what {
        What::Made => "+",
        What::Changed => "~",
        What::Removed => "-",
    }
}

/// Lists what the patches of `manifest` would do.
pub fn print(manifest: &Manifest, preview: &Preview, as_json: bool) -> Result<()> {
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    let mut print = || -> Result<()> {
        if as_json {
            writeln!(out, "{}", printable::json(&json(manifest, preview))?)?;
        } else {
            for (patch, changes) in manifest.patches.iter().zip(&preview.changes) {
                writeln!(out, "{}", printable::line(&patch.to_string()))?;
                for change in changes {
                    let line = format!("  {} {}", sign(change.what), change.shown());
                    writeln!(out, "{}", printable::line(&line))?;
                }
            }
        }
        Ok(out.flush()?)
    };
    print().context(STDOUT)
}

fn json(manifest: &Manifest, preview: &Preview) -> Value {
    let patches = manifest.patches.iter().zip(&preview.changes).map(|(patch, changes)| {
        let (op, about) = patch.op.title();
        let changes = changes.iter().map(|change| {
            let path = [b"/", &change.path.to_bytes()[..]].concat();
            json!({ "change": sign(change.what), "path": String::from_utf8_lossy(&path) })
        });
        json!({
            "file": patch.at.file.to_string_lossy(),
            "line": patch.at.line,
            "op": op,
            "path": about,
            "changes": changes.collect::<Vec<_>>(),
        })
    });
    let patches: Vec<_> = patches.collect();
    json!({ "patches": patches, "upper": { "size": preview.upper } })
}
