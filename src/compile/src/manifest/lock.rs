//! Locks: which image a tag led to, so that later builds make the same bundle.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::{fs, io};

use anyhow::{Context as _, Result, bail, ensure};
use fsimage::digest::Digest;
use fsimage::io::{atomic_file, flock, regular};
use oci::{ImageRef, Platform};
use serde::{Deserialize, Serialize};

/// Readers refuse a version that they do not know.
const VERSION: u32 = 1;

/// Bytes of a lock file.
const MAX_BYTES: u64 = 16 << 20;

/// What a lock file holds.
#[cfg_attr(doc, doc = "\n\n", doc = include_str!("../../../../docs/lock.md"))]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lock {
    version: u32,
    /// By reference as the manifest has it, then by platform: digests of
    /// manifests.
    images: BTreeMap<String, BTreeMap<String, Digest>>,
}

impl Default for Lock {
    fn default() -> Self {
        Self { version: VERSION, images: BTreeMap::new() }
    }
}

/// How a build uses its lock file.
#[derive(Clone, Debug, Default)]
pub struct LockUse {
    /// The lock file; empty if the build has none.
    pub path: PathBuf,
    /// Record what the reference led to.
    pub write: bool,
    /// Ignore what it says, and ask the registry again.
    pub update: bool,
    /// Fail unless it says which image the reference leads to.
    pub required: bool,
}

impl LockUse {
    /// The lock file; an empty one if there is none.
    ///
    /// # Errors
    /// It fails when the file is there and cannot be read, or is not a lock of a known version;
    /// for an update, the version may be any.
    pub fn load(&self) -> Result<Lock> {
        let shown = || self.path.display().to_string();
        let read = || regular::bytes(&regular::open_followed(&self.path)?, MAX_BYTES);
        let text = match read() {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Lock::default()),
            Err(error) => return Err(error).with_context(shown),
        };
        if self.update {
            // What it says does not count, whatever version it is of.
            let written = serde_json::from_slice::<serde_json::Value>(&text).ok();
            let is_lock =
                |lock: &serde_json::Value| lock["version"].is_u64() && lock["images"].is_object();
            ensure!(
                written.as_ref().is_some_and(is_lock),
                "{} is not a lock that this program wrote, and stays as it is: remove it, or give \
                 the manifest another name",
                shown()
            );
            let known = serde_json::from_slice(&text).ok();
            return Ok(known.filter(|lock: &Lock| lock.version == VERSION).unwrap_or_default());
        }
        let lock: Lock = serde_json::from_slice(&text)
            .with_context(|| format!("{} is not a lock of this program", shown()))?;
        let version = lock.version;
        ensure!(
            version == VERSION,
            "{}: version {version} is not known, only {VERSION}: build with the program that wrote \
             it, or let build --update write it again",
            shown()
        );
        Ok(lock)
    }

    /// Refuses what was asked for, if no lock can have `image`: a lock has what tags of
    /// registries led to. A reference with a digest of its own needs none.
    ///
    /// # Errors
    /// It fails when a lock is asked for, and `image` is neither in a registry nor has a digest
    /// of its own.
    pub fn check(&self, image: &ImageRef) -> Result<()> {
        let option = match self {
            _ if image.pin().is_some() => return Ok(()),
            Self { required: true, .. } => "--locked",
            Self { update: true, .. } => "--update",
            Self { write: true, .. } => "--lock",
            _ => return Ok(()),
        };
        bail!(
            "{option}: {image} is not in a registry, and locks are for the tags of registries; \
             @sha256:… behind it pins the image"
        )
    }

    /// The digest that `lock` has for the image, if it is to be used.
    ///
    /// # Errors
    /// It fails when the lock is required and has no digest for the image on `platform`.
    pub fn locked(
        &self,
        lock: &Lock,
        image: &ImageRef,
        platform: &Platform,
    ) -> Result<Option<Digest>> {
        if self.update {
            return Ok(None);
        }
        let known = lock.images.get(&image.to_string());
        // It may have been written down in another spelling.
        let is_it = |text: &str| text.parse().is_ok_and(|locked: Platform| locked == *platform);
        let digest = known.and_then(|platforms| platforms.iter().find(|(text, _)| is_it(text)));
        let digest = digest.map(|(_, digest)| digest);
        if self.required && digest.is_none() {
            bail!(
                "{} does not say which image {image} is for {platform}; build with --lock to write it \
                 down, or --update to ask again",
                self.path.display()
            );
        }
        Ok(digest.copied())
    }

    /// Writes `digest` down if that was asked for; `say` is told whom this waits for.
    ///
    /// # Errors
    /// It fails when the lock file cannot be read again or written, or its directory cannot be
    /// locked.
    pub fn save(
        &self,
        lock: &mut Lock,
        image: &ImageRef,
        platform: &Platform,
        digest: Digest,
        say: &(dyn Fn(&str) + Sync),
    ) -> Result<()> {
        let enter = |lock: &mut Lock| {
            let platforms = lock.images.entry(image.to_string()).or_default();
            let is_other = |text: &str| text.parse() != Ok(platform.clone());
            platforms.retain(|text, _| *text == platform.to_string() || is_other(text));
            platforms.insert(platform.to_string(), digest) == Some(digest)
        };
        if enter(lock) || !self.write {
            return Ok(());
        }
        let mut write = || -> Result<()> {
            let dir = self.path.parent().filter(|dir| !dir.as_os_str().is_empty());
            let dir = dir.unwrap_or(std::path::Path::new("."));
            // Another build may have written down something else meanwhile.
            let guard = fs::File::open(dir)?;
            let what = format!("the directory {}", dir.display());
            flock::wait(&guard, flock::LockKind::Exclusive, &what, say)?;
            *lock = self.load()?;
            enter(lock);
            let mut json = serde_json::to_vec_pretty(lock)?;
            json.push(b'\n');
            Ok(atomic_file::write(&self.path, &mut &json[..])?)
        };
        write().with_context(|| self.path.display().to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_lock_is_asked_for_what_none_can_have() {
        let all = LockUse { required: true, ..LockUse::default() };
        let pin = format!("@sha256:{}", "0".repeat(64));
        for (lock, option) in [
            (all, "--locked: "),
            (LockUse { write: true, ..LockUse::default() }, "--lock: "),
            (LockUse { write: true, update: true, ..LockUse::default() }, "--update: "),
        ] {
            for image in ["oci:dir:1", "docker-daemon:app", "archive:a.tar", "dir:x"] {
                let error = lock.check(&image.parse().unwrap()).unwrap_err().to_string();
                assert!(error.starts_with(option) && error.contains(image), "{error}");
                let pinned = format!("{image}{pin}").parse().unwrap();
                assert!(lock.check(&pinned).is_ok() && LockUse::default().check(&pinned).is_ok());
            }
            assert!(lock.check(&format!("example.com/a{pin}").parse().unwrap()).is_ok());
        }
        assert!(LockUse::default().check(&"oci:dir:1".parse().unwrap()).is_ok());
    }

    #[test]
    fn an_update_takes_the_place_of_locks_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("m.lock");
        let update = LockUse { path: path.clone(), update: true, ..LockUse::default() };
        assert_eq!(update.load().unwrap(), Lock::default());
        for (text, is_lock) in [
            ("# This file is @generated by another program.\n", false),
            ("", false),
            ("{}", false),
            ("{\"version\": 3, \"packages\": {}}", false),
            ("{\"version\": 9, \"images\": {}, \"more\": 1}", true),
            ("{\"version\": 9, \"images\": {}}", true),
            ("{\"version\": 1, \"images\": {}}", true),
        ] {
            fs::write(&path, text).unwrap();
            let lock = update.load();
            assert_eq!(lock.is_ok(), is_lock, "{text}");
            // What is written in its place is one that this program reads.
            assert!(lock.is_err() || lock.unwrap() == Lock::default(), "{text}");
        }
    }
}
