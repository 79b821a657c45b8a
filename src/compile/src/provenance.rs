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
use bundle::index::Index;
use bundle::opened::Place;
use bundle::{INDEX, place};
use fsimage::digest::{Digest, HashingReader};
use fsimage::io::{dir, regular};
use rustix::fs::Access;
use serde_json::{Value, json};

use crate::manifest::types::Manifest;

/// Media type of a statement of in-toto.
pub const STATEMENT_TYPE: &str = oci::media_type::IN_TOTO;
/// What the statement is about it.
pub const PREDICATE_TYPE: &str = "https://slsa.dev/provenance/v1";
const BUILD_TYPE: &str = "urn:rootfs-compile:build:v1";
const BUILDER: &str = "urn:rootfs-compile";

/// Bytes of a statement at most: it names every file that a manifest includes.
const MAX_BYTES: u64 = 64 << 20;

/// Refuses `path` as the place of a statement about the bundle `output`, if something else
/// is there, or nothing can be: not in the bundle itself, nor in the cache `cache`.
///
/// # Errors
/// It fails when `path` is at, in or above the bundle, in the cache, in a directory that this
/// user cannot write to, or holds anything but a statement of this program.
pub fn check_place(path: &Path, output: &Path, cache: &Path) -> Result<()> {
    let shown = path.display();
    let (place, bundle) = (place::resolve(path)?, place::resolve(output)?);
    ensure!(
        !place.starts_with(&bundle) && !bundle.starts_with(&place),
        "{shown} cannot hold a statement about {}, which holds the bundle and nothing else: choose \
         a place beside it",
        output.display()
    );
    ensure!(
        !place.starts_with(place::resolve(cache)?),
        "{shown} lies in the cache {}, which may be deleted at any time: choose another place for \
         the statement",
        cache.display()
    );
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    rustix::fs::access(dir, Access::WRITE_OK | Access::EXEC_OK)
        .map_err(io::Error::from)
        .with_context(|| format!("{shown} cannot be written to {}", dir.display()))?;
    let there = match regular::read(path, MAX_BYTES) {
        Ok(bytes) => serde_json::from_slice::<Value>(&bytes).unwrap_or_default(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error).with_context(|| path.display().to_string()),
    };
    // Other programs make statements of that type, too.
    let predicate = &there["predicate"];
    let is_own = there["predicateType"] == PREDICATE_TYPE
        && predicate["buildDefinition"]["buildType"] == BUILD_TYPE
        && predicate["runDetails"]["builder"]["id"] == BUILDER;
    ensure!(
        is_own,
        "{shown} is there and is not a statement of provenance that this program made; it stays as \
         it is"
    );
    Ok(())
}

/// Files of the host that a build reads, by their content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inputs(Vec<Dependency>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Dependency {
    /// What it is, and its path from the manifest on.
    name: String,
    /// A name of in-toto's for a kind of digest, and the hex of it.
    digest: (&'static str, String),
}

impl Inputs {
    /// Hashes what `manifest` is made of: `own` is its file, if it has one.
    ///
    /// # Errors
    /// It fails when one of the files cannot be read.
    pub fn of(manifest: &Manifest, own: Option<&Path>) -> Result<Self> {
        let base = own.and_then(Path::parent).unwrap_or(Path::new(""));
        let mut inputs = Vec::new();
        let mut add = |kind: &str, path: &Path| -> Result<()> {
            let digest = digest_of(path).with_context(|| path.display().to_string())?;
            let shown = path.strip_prefix(base).unwrap_or(path).display().to_string();
            inputs.push(Dependency { name: format!("{kind}:{shown}"), digest });
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
///
/// # Errors
/// It fails when the index of the bundle cannot be found or read.
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
    for Dependency { name, digest: (kind, hex) } in &inputs.0 {
        found.push(json!({ "name": name, "digest": { *kind: hex } }));
    }
    found
}

/// Refuses `statement` if it is not one about the index `json`.
///
/// # Errors
/// It fails when `statement` is not JSON, or none of its subjects has the SHA-256 of `json`.
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
    fn nothing_foreign_gives_way_to_a_statement() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::create_dir_all(at("out/layers")).unwrap();
        fs::create_dir(at("cache")).unwrap();
        let check = |name: &str| {
            check_place(&at(name), &at("out"), &at("cache")).map_err(|error| format!("{error:#}"))
        };
        let own = |kind: &str, builder: &str| {
            let predicate = json!({
                "buildDefinition": { "buildType": kind },
                "runDetails": { "builder": { "id": builder } },
            });
            json!({ "predicateType": PREDICATE_TYPE, "predicate": predicate }).to_string()
        };
        assert_eq!(check("new.json"), Ok(()));
        for (text, good) in [
            (own(BUILD_TYPE, BUILDER), true),
            (own("https://mobyproject.org/buildkit@v1", BUILDER), false),
            (own(BUILD_TYPE, "https://github.com/actions/runner"), false),
            (json!({ "predicateType": PREDICATE_TYPE }).to_string(), false),
            ("[]".to_owned(), false),
            (String::new(), false),
        ] {
            fs::write(at("there.json"), &text).unwrap();
            assert_eq!(check("there.json").is_ok(), good, "{text}");
        }
        for (name, says) in [
            ("out", "a place beside it"),
            ("out/bundle.json", "a place beside it"),
            ("out/layers/../p.json", "a place beside it"),
            ("cache/p.json", "may be deleted"),
            ("absent/p.json", "No such file"),
        ] {
            let error = check(name).unwrap_err();
            assert!(error.contains(says), "{name}: {error}");
        }
        let above = check_place(&at("x"), &at("x/out"), &at("cache")).unwrap_err();
        assert!(above.to_string().contains("a place beside it"), "{above}");
    }

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
