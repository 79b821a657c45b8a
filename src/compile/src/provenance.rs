//! What a bundle was made of, as a statement of in-toto with SLSA's provenance: for
//! whoever has to tell later, or has a policy that asks.
//!
//! It says what can be said again of the same inputs: digests, titles and the version
//! of this program; no clock, no host, no path above the manifest. It is as good as
//! whoever hands it on: nothing signs it here, and cosign can.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use bundle::INDEX;
use bundle::index::Index;
use bundle::open::Place;
use fsimage::digest::{Digest, HashingReader};
use fsimage::io::{dir, regular};
use serde_json::{Value, json};

use crate::manifest::Manifest;

pub const STATEMENT_TYPE: &str = "application/vnd.in-toto+json";
/// What the statement is about it.
pub const PREDICATE_TYPE: &str = "https://slsa.dev/provenance/v1";
const BUILD_TYPE: &str = "urn:rootfs-compile:build:v1";
const BUILDER: &str = "urn:rootfs-compile";

/// Bytes of a statement at most: it names every file that a manifest includes.
const MAX_BYTES: u64 = 64 << 20;

/// Refuses `path` as the place of a statement, if something else is there.
pub fn check_place(path: &Path) -> Result<()> {
    let there = match regular::read(path, MAX_BYTES) {
        Ok(bytes) => serde_json::from_slice::<Value>(&bytes).unwrap_or_default(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error).with_context(|| path.display().to_string()),
    };
    ensure!(
        there["predicateType"] == PREDICATE_TYPE,
        "{} is there and is not a statement of provenance; it stays as it is",
        path.display()
    );
    Ok(())
}

/// Files of the host that a build reads, by their content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inputs(Vec<Input>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Input {
    /// What it is, and its path from the manifest on.
    name: String,
    /// A name of in-toto's for a kind of digest, and the hex of it.
    digest: (&'static str, String),
}

impl Inputs {
    /// Hashes what `manifest` is made of: `own` is its file, if it has one.
    pub fn of(manifest: &Manifest, own: Option<&Path>) -> Result<Self> {
        let base = own.and_then(Path::parent).unwrap_or(Path::new(""));
        let mut inputs = Vec::new();
        let mut add = |kind: &str, path: &Path| -> Result<()> {
            let digest = digest_of(path).with_context(|| path.display().to_string())?;
            let shown = path.strip_prefix(base).unwrap_or(path).display().to_string();
            inputs.push(Input { name: format!("{kind}:{shown}"), digest });
            Ok(())
        };
        if let Some(own) = own {
            add("manifest", own)?;
        }
        manifest.included.iter().try_for_each(|path| add("included", path))?;
        let patches = manifest.patches.iter().filter_map(|patch| patch.op.host_path());
        patches.into_iter().try_for_each(|path| add("patch", path))?;
        Ok(Self(inputs))
    }
}

/// The digest of a file, or in-toto's `dirHash` of a directory: SHA-256 of a line for
/// each regular file below it, in the order of their paths, as sha256sum writes them.
fn digest_of(path: &Path) -> Result<(&'static str, String)> {
    if !fs::metadata(path)?.is_dir() {
        return Ok(("sha256", hash(path)?));
    }
    let mut files: Vec<PathBuf> = Vec::new();
    let mut directories = vec![PathBuf::new()];
    while let Some(directory) = directories.pop() {
        for name in dir::names(&path.join(&directory))? {
            let name = directory.join(name);
            let kind = fs::symlink_metadata(path.join(&name))?.file_type();
            if kind.is_dir() {
                directories.push(name);
            } else if kind.is_file() {
                files.push(name);
            }
        }
    }
    files.sort_by(|a, b| a.as_os_str().as_encoded_bytes().cmp(b.as_os_str().as_encoded_bytes()));
    let mut lines = Vec::new();
    for file in files {
        lines.extend_from_slice(hash(&path.join(&file))?.as_bytes());
        lines.extend_from_slice(b"  ");
        lines.extend_from_slice(file.as_os_str().as_encoded_bytes());
        lines.push(b'\n');
    }
    Ok(("dirHash", Digest::of(&lines).hex()))
}

fn hash(path: &Path) -> io::Result<String> {
    let mut reader = HashingReader::new(File::open(path)?);
    io::copy(&mut reader, &mut io::sink())?;
    Ok(reader.digest().hex())
}

/// The statement about the bundle `bundle`, which was built of `manifest` and `inputs`;
/// `variables` were set beside it.
pub fn statement(
    bundle: &Path,
    manifest: &Manifest,
    inputs: &Inputs,
    variables: &[(String, String)],
) -> Result<Vec<u8>> {
    let (bytes, index) = Place::find(bundle)?.index().context(INDEX)?;
    let statement = json!({
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{ "name": INDEX, "digest": { "sha256": Digest::of(&bytes).hex() } }],
        "predicateType": PREDICATE_TYPE,
        "predicate": {
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": {
                    "image": index.image.reference,
                    "platform": index.image.platform.to_string(),
                    "variables": variables.iter().cloned().collect::<BTreeMap<_, _>>(),
                    "patches": manifest.patches.iter().map(|p| p.op.to_string()).collect::<Vec<_>>(),
                },
                "resolvedDependencies": dependencies(&index, inputs),
            },
            "runDetails": {
                "builder": {
                    "id": BUILDER,
                    "version": { env!("CARGO_PKG_NAME"): env!("CARGO_PKG_VERSION") },
                },
            },
        },
    });
    let mut json = serde_json::to_vec_pretty(&statement)?;
    json.push(b'\n');
    Ok(json)
}

fn dependencies(index: &Index, inputs: &Inputs) -> Vec<Value> {
    let image = &index.image;
    let mut found = Vec::new();
    if let Some(digest) = image.manifest_digest {
        let digest = json!({ "sha256": digest.hex() });
        found.push(json!({ "name": "image", "uri": image.reference, "digest": digest }));
    }
    let digest = json!({ "sha256": image.config_digest.hex() });
    found.push(json!({ "name": "image config", "digest": digest }));
    for Input { name, digest: (kind, hex) } in &inputs.0 {
        found.push(json!({ "name": name, "digest": { *kind: hex } }));
    }
    found
}

/// Refuses `statement` if it is not one about the index `json`.
pub fn check(statement: &[u8], json: &[u8]) -> Result<()> {
    let value: Value = serde_json::from_slice(statement).context("it is not JSON")?;
    let hex = Digest::of(json).hex();
    let subjects = value["subject"].as_array().into_iter().flatten();
    let mut digests = subjects.filter_map(|subject| subject["digest"]["sha256"].as_str());
    ensure!(digests.any(|digest| digest == hex), "it is not about this bundle ({INDEX} {hex})");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_have_the_hash_that_coreutils_give() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("a/b")).unwrap();
        fs::write(dir.path().join("a/b/c"), "one\n").unwrap();
        fs::write(dir.path().join("a.txt"), "two\n").unwrap();
        std::os::unix::fs::symlink("a", dir.path().join("link")).unwrap();
        // (cd DIR; find . -type f | cut -c3- | LC_ALL=C sort | xargs sha256sum | sha256sum)
        let lines = format!(
            "{}  a.txt\n{}  a/b/c\n",
            Digest::of(b"two\n").hex(),
            Digest::of(b"one\n").hex()
        );
        let expected = ("dirHash", Digest::of(lines.as_bytes()).hex());
        assert_eq!(digest_of(dir.path()).unwrap(), expected);
    }
}
