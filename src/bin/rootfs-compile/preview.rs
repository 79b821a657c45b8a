//! What a dry run prints.

use std::io::Write as _;

use anyhow::Result;
use rootfs_compile::compile::Preview;
use rootfs_compile::manifest::Manifest;
use rootfs_compile::patch::What;
use serde_json::json;

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
    let patches = manifest.patches.iter().zip(&preview.changes);
    if as_json {
        let patches = patches.map(|(patch, changes)| {
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
        writeln!(out, "{:#}", json!({ "patches": patches, "upper": { "size": preview.upper } }))?;
    } else {
        for (patch, changes) in patches {
            writeln!(out, "{patch}")?;
            for change in changes {
                writeln!(out, "  {} {}", sign(change.what), change.shown())?;
            }
        }
    }
    out.flush()?;
    Ok(())
}
