//! What `build` and `run` are asked for, as a manifest.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use oci::ImageRef;
use rootfs_compile::manifest::{LockUse, Manifest};
use rootfs_compile::word::{Word, meaning};

use crate::args::{CompileArgs, LockArgs};
use crate::say;

/// What standard input is called in messages.
const STDIN: &str = "<stdin>";

/// A word that was asked for, and the variables of its manifest.
pub(crate) struct Asked {
    pub word: Word,
    pub set: BTreeMap<String, String>,
    /// The manifest on standard input.
    pub stdin: Option<Vec<u8>>,
}

/// More than a manifest may have, so that its reader says so.
const MAX_STDIN: u64 = 32 << 20;

impl Asked {
    /// Finds out what `text` means, and says so where that could be doubted.
    pub(crate) fn new(text: &OsStr, args: &CompileArgs) -> Result<Self, String> {
        let found = meaning(text).map_err(|error| error.to_string())?;
        let set: BTreeMap<_, _> = args.set.iter().cloned().collect();
        if let (Word::Image(image), Some(name)) = (&found.word, set.keys().next()) {
            return Err(format!(
                "--set {name}: {image} is an image, and only manifests have variables"
            ));
        }
        if let Some(note) = found.note.filter(|_| !args.quiet) {
            say(&format!("note: {note}"));
        }
        let mut stdin = None;
        if found.word == Word::Stdin {
            let mut bytes = Vec::new();
            let read = io::stdin().lock().take(MAX_STDIN).read_to_end(&mut bytes);
            read.map_err(|error| format!("{STDIN}: {error}"))?;
            stdin = Some(bytes);
        }
        Ok(Self { word: found.word, set, stdin })
    }

    /// The manifest: the one that was asked for, or that of an image as it is.
    pub(crate) fn manifest(&self) -> Result<Manifest, String> {
        match &self.word {
            Word::Image(image) => Ok(Manifest::of_image(ImageRef::clone(image))),
            Word::Manifest(path) => {
                Manifest::load(path, &self.set).map_err(|error| error.to_string())
            }
            Word::Stdin => {
                let bytes = self.stdin.as_deref().unwrap_or_default();
                let manifest = Manifest::read(bytes, Path::new(STDIN), &self.set);
                manifest.map_err(|error| error.to_string())
            }
        }
    }

    /// The manifest's file, if it has one.
    pub(crate) fn file(&self) -> Option<&Path> {
        match &self.word {
            Word::Manifest(path) => Some(path),
            _ => None,
        }
    }

    /// The lock that belongs to the manifest; empty if there is no file for it to
    /// lie beside.
    pub(crate) fn lock_path(&self) -> PathBuf {
        let Word::Manifest(path) = &self.word else {
            return PathBuf::new();
        };
        let extension = path.extension();
        match extension.is_some_and(|extension| extension == "yaml" || extension == "yml") {
            true => path.with_extension("lock"),
            // `NAME.lock` beside `NAME`.
            false => PathBuf::from(format!("{}.lock", path.display())),
        }
    }

    /// How the lock is used.
    pub(crate) fn lock(&self, args: &LockArgs) -> Result<LockUse, String> {
        let path = self.lock_path();
        let given = [("--lock", args.lock), ("--update", args.update), ("--locked", args.locked)];
        if let Some((option, _)) = given.iter().find(|(_, given)| *given)
            && path.as_os_str().is_empty()
        {
            return Err(format!(
                "{option}: a lock lies beside the file of a manifest, and there is none here; \
                 @sha256:… behind a reference pins an image"
            ));
        }
        let write = args.lock || args.update;
        Ok(LockUse { path, write, update: args.update, required: args.locked })
    }
}
