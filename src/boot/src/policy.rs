//! What this system asks of every bundle that is to run on it.
//!
//! The file is the administrator's, at one place: no option and no variable of the
//! environment names another or takes anything back that it says. Options can only ask
//! for more.

use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, anyhow, ensure};
use bundle::signature::Key;
use fsimage::io::regular;
use serde::Deserialize;

/// Where the policy is.
const POLICY: &str = "/etc/rootfs-compile/policy.toml";
const MAX_POLICY: u64 = 1 << 20;

/// What the file says.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Written {
    /// Run no bundle that is not signed by one of `keys`.
    require_signature: bool,
    /// Files of public keys, relative to the policy, or keys themselves.
    #[serde(default)]
    keys: Vec<String>,
}

/// The keys of which one must have signed a bundle; none if the system asks for no
/// signature.
///
/// # Errors
/// When there is a policy that cannot be read: then nobody knows what it asks for.
pub(crate) fn keys() -> Result<Option<Vec<Key>>> {
    read(Path::new(POLICY)).with_context(|| format!("the system's policy {POLICY}"))
}

fn read(path: &Path) -> Result<Option<Vec<Key>>> {
    let read = || regular::bytes(&regular::open_followed(path)?, MAX_POLICY);
    let text = match read() {
        Ok(bytes) => String::from_utf8(bytes).context("it is not text")?,
        Err(error) if error.kind() == io::ErrorKind::NotFound && is_absent(path) => {
            return Ok(None);
        }
        Err(error) => return Err(error.into()),
    };
    let written: Written = toml::from_str(&text).map_err(|error| {
        // The parser draws its errors, below a line that says where.
        let drawn = error.to_string();
        anyhow!("{}: {}", drawn.lines().next().unwrap_or_default(), error.message())
    })?;
    if !written.require_signature {
        return Ok(None);
    }
    ensure!(!written.keys.is_empty(), "it requires signatures, and names no keys");
    let dir = path.parent().unwrap_or(Path::new("/"));
    let key = |entry: &String| match Key::parse(entry, entry) {
        Ok(key) => Ok(key),
        Err(_) => Key::load(&dir.join(PathBuf::from(entry))),
    };
    written.keys.iter().map(key).collect::<Result<Vec<_>>>().map(Some)
}

/// Whether nothing has the name `path`. A link that leads nowhere is something: what it
/// led to may lie on a disk that is not mounted now.
fn is_absent(path: &Path) -> bool {
    let lacks = |name: &Path| {
        name.symlink_metadata().is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
    };
    let dir = path.parent().unwrap_or(Path::new("/"));
    lacks(path) && (lacks(dir) || dir.is_dir())
}

#[cfg(test)]
mod tests {
    const KEY: &str = "RWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3";

    #[test]
    fn a_policy_that_is_not_understood_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("policy.toml");
        let read = |text: &str| {
            std::fs::write(&path, text).unwrap();
            super::read(&path)
        };
        std::fs::write(dir.path().join("a.pub"), format!("untrusted comment: x\n{KEY}\n")).unwrap();
        assert!(super::read(&dir.path().join("absent")).unwrap().is_none());
        for (link, name) in [("policy-link", "policy-link"), ("dir-link", "dir-link/policy.toml")] {
            std::os::unix::fs::symlink("gone", dir.path().join(link)).unwrap();
            assert!(super::read(&dir.path().join(name)).is_err(), "{name}");
        }
        assert!(super::read(&dir.path().join("absent-dir/policy.toml")).unwrap().is_none());
        assert!(read("require-signature = false\n").unwrap().is_none());
        for keys in [format!("'{KEY}'"), "'a.pub'".into(), format!("'a.pub', '{KEY}'")] {
            let text = format!("require-signature = true\nkeys = [{keys}]\n");
            assert!(!read(&text).unwrap().unwrap().is_empty(), "{text}");
        }
        for bad in [
            "",
            "require-signature = true",
            "require-signature = true\nkeys = []",
            "require-signature = 1\nkeys = ['a.pub']",
            "require-signature = true\nkeys = ['absent.pub']",
            "require-signature = false\nrequire-signatures = true",
            "require_signature = true\nkeys = ['a.pub']",
            "[",
        ] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }
}
