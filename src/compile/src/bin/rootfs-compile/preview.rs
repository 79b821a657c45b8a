//! What a dry run prints.

use std::borrow::Cow;
use std::io::Write as _;

use anyhow::{Context as _, Result};
use fsimage::io::printable;
use rootfs_compile::build::Preview;
use rootfs_compile::manifest::Manifest;
use rootfs_compile::patch::{Change, ChangeKind};
use serde::{Serialize, Serializer};

use crate::STDOUT;

fn sign(kind: ChangeKind) -> &'static str {
    match kind {
        ChangeKind::Made => "+",
        ChangeKind::Changed => "~",
        ChangeKind::Removed => "-",
    }
}

/// Lists what the patches of `manifest` would do.
pub(crate) fn print(manifest: &Manifest, preview: &Preview, as_json: bool) -> Result<()> {
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    let mut print = || -> Result<()> {
        if as_json {
            let upper = Upper { size: preview.upper };
            let document = Document { patches: Patches(manifest, preview), upper };
            printable::write_json(&mut out, &document)?;
            writeln!(out)?;
        } else {
            for (patch, changes) in manifest.patches.iter().zip(&preview.changes) {
                writeln!(out, "{}", printable::line(&patch.to_string()))?;
                for change in changes {
                    let line = format!("  {} {}", sign(change.kind), change.shown());
                    writeln!(out, "{}", printable::line(&line))?;
                }
            }
        }
        Ok(out.flush()?)
    };
    print().context(STDOUT)
}

/// A preview as JSON, made while it is written: a path may be long, and a patch may
/// change many.
#[derive(Serialize)]
struct Document<'p> {
    patches: Patches<'p>,
    upper: Upper,
}

#[derive(Serialize)]
struct Upper {
    size: u64,
}

struct Patches<'p>(&'p Manifest, &'p Preview);

#[derive(Serialize)]
struct OfPatch<'p> {
    changes: Changes<'p>,
    file: Cow<'p, str>,
    line: usize,
    op: &'static str,
    path: String,
}

struct Changes<'p>(&'p [Change]);

#[derive(Serialize)]
struct OfChange {
    change: &'static str,
    path: String,
}

impl Serialize for Patches<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self(manifest, preview) = self;
        let patches = manifest.patches.iter().zip(&preview.changes);
        serializer.collect_seq(patches.map(|(patch, changes)| {
            let (op, path) = patch.op.title();
            let file = patch.at.file.to_string_lossy();
            OfPatch { changes: Changes(changes), file, line: patch.at.line, op, path }
        }))
    }
}

impl Serialize for Changes<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(|Change { kind, path }| {
            let path = [b"/", &path.to_bytes()[..]].concat();
            let path = String::from_utf8_lossy(&path).into_owned();
            OfChange { change: sign(*kind), path }
        }))
    }
}
