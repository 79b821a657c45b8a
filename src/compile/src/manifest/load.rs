//! From a file to a manifest: variables, includes, checks.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use bundle::boot::{Boot, lenient};
use fsimage::io::regular;
use oci::ImageRef;
use serde::Deserialize;

use crate::manifest::document::{self, Document};
use crate::manifest::error::ManifestError;
use crate::manifest::step::Step;
use crate::manifest::types::Manifest;
use crate::manifest::vars::{self, Vars};
use crate::manifest::written::{Upper, VerifyImage, Written};
use crate::patch::located::{Location, Patch};
use crate::patch::op::{Include, Op};

pub(super) fn open(path: &Path) -> Result<File, ManifestError> {
    File::open(path).map_err(|source| ManifestError::Io { path: path.to_owned(), source })
}

/// A manifest while it is read.
#[derive(Default)]
pub(super) struct Reading {
    pub(super) vars: Vars,
    /// Variables that a value uses.
    pub(super) used: BTreeSet<String>,
    /// Files that are being read, each because the one before it includes it.
    pub(super) open: Vec<PathBuf>,
    pub(super) included: Vec<PathBuf>,
    pub(super) done: Vec<Patch>,
}

/// Files that a manifest may include, counted each time: two that include two make four.
pub(super) const MAX_INCLUDES: usize = 10_000;

impl Reading {
    /// Defines the document's `vars`, and returns their names.
    pub(super) fn declare(
        &mut self,
        document: &Document,
    ) -> Result<BTreeSet<String>, ManifestError> {
        #[derive(Deserialize)]
        struct Declared {
            #[serde(default, deserialize_with = "lenient::texts")]
            vars: Vec<(String, String)>,
        }

        let Declared { mut vars } = document.parse()?;
        let names = vars.iter().map(|(name, _)| name.clone()).collect();
        // They may use each other in any order: as long as one more can be
        // defined, the rest may follow.
        while !vars.is_empty() {
            let before = vars.len();
            let mut problem = None;
            vars.retain(|(name, value)| match self.vars.define(name, value) {
                Ok(()) => false,
                Err(error) => {
                    problem.get_or_insert((name.clone(), error.to_string()));
                    true
                }
            });
            if let Some((name, what)) = problem
                && vars.len() == before
            {
                let steps = [Step::Key("vars".into()), Step::Key(name)];
                return Err(document.error(&steps, what));
            }
        }
        Ok(names)
    }

    /// Takes over `ops`, which stand at `steps` of `document`.
    pub(super) fn patches(
        &mut self,
        document: &Document,
        steps: &[Step],
        ops: Vec<Op>,
    ) -> Result<(), ManifestError> {
        let dir = document.path.parent().unwrap_or(Path::new(""));
        for (i, mut op) in ops.into_iter().enumerate() {
            let steps: Vec<Step> = steps.iter().cloned().chain([Step::Index(i)]).collect();
            let at = Location { file: document.path.clone(), line: document.line(&steps) };
            if let Some(path) = op.host_path_mut() {
                *path = dir.join(&path);
            }
            let patch = Patch { at, op };
            patch.op.check().map_err(|error| {
                ManifestError::Patch(Box::new(patch.clone()), error.to_string())
            })?;
            match &patch.op {
                Op::Include(Include(path)) => self.include(&patch, path)?,
                _ => self.done.push(patch),
            }
        }
        Ok(())
    }

    fn include(&mut self, patch: &Patch, path: &Path) -> Result<(), ManifestError> {
        let bad = |what| ManifestError::Patch(Box::new(patch.clone()), what);
        let real = |path: &Path| path.canonicalize().map_err(|error| bad(error.to_string()));
        let wanted = real(path)?;
        // A file that is not regular, such as standard input, cannot be included.
        for open in self.open.iter().filter(|open| open.is_file()) {
            if real(open)? == wanted {
                let chain: Vec<_> =
                    self.open.iter().map(|path| path.display().to_string()).collect();
                return Err(bad(format!("files include each other: {}", chain.join(" -> "))));
            }
        }
        if !path.is_file() {
            return Err(bad("it is not a regular file".into()));
        }
        self.included.push(path.to_owned());
        if self.included.len() > MAX_INCLUDES {
            return Err(bad(format!("more than {MAX_INCLUDES} files are included")));
        }
        let file = regular::open_followed(path);
        let io = |source| ManifestError::Io { path: path.to_owned(), source };
        let mut document = Document::read(file.map_err(io)?, path)?;
        document::used(&document.value, &mut self.used);
        document.expand(&self.vars, &[])?;
        let ops = match &document.value {
            serde_json::Value::Null => Vec::new(),
            _ => document.parse()?,
        };
        self.open.push(path.to_owned());
        self.patches(&document, &[], ops)?;
        self.open.pop();
        Ok(())
    }
}

impl Manifest {
    /// The manifest of `image` as it is.
    pub fn of_image(image: ImageRef) -> Self {
        let upper_at = Location { file: image.to_string().into(), line: 1 };
        Self {
            image,
            verify_image: None,
            platform: None,
            upper: Upper::default(),
            upper_at,
            boot: Boot::default(),
            patches: Vec::new(),
            included: Vec::new(),
        }
    }

    /// Reads the manifest at `path`, and what it includes. Relative paths begin
    /// at the directory of the file that names them. `set` has variables that
    /// win over the manifest's own.
    ///
    /// # Errors
    /// It fails when a file cannot be read, is not YAML or has a wrong value, and when nothing
    /// uses a variable of `set` or its name is not one.
    pub fn load(path: &Path, set: &BTreeMap<String, String>) -> Result<Self, ManifestError> {
        Self::read(open(path)?, path, set)
    }

    /// Reads a manifest from `from`, as [`Manifest::load`] would from a file `path`.
    ///
    /// # Errors
    /// It fails when the manifest or a file that it includes cannot be read, is not YAML or has
    /// a wrong value, and when nothing uses a variable of `set` or its name is not one.
    pub fn read(
        from: impl Read,
        path: &Path,
        set: &BTreeMap<String, String>,
    ) -> Result<Self, ManifestError> {
        if let Some(name) = set.keys().find(|name| !vars::is_name(name)) {
            return Err(ManifestError::Set(vars::bad_name(name)));
        }
        let mut document = Document::read(from, path)?;
        if !document.value.is_object() {
            let what = "it is not a mapping; a manifest has at least the key `image`".to_owned();
            return Err(document.error(&[], what));
        }
        let mut reading = Reading { vars: Vars::new(set), ..Reading::default() };
        let declared = reading.declare(&document)?;
        document::used(&document.value, &mut reading.used);
        document.expand(&reading.vars, &["vars"])?;
        let written: Written = document.parse()?;
        reading.open.push(path.to_owned());
        reading.patches(&document, &[Step::Key("patches".into())], written.patches)?;
        let unused = |name: &&String| !declared.contains(*name) && !reading.used.contains(*name);
        if let Some(name) = set.keys().find(unused) {
            let what = format!("{name}: nothing in {} uses ${{{name}}}", path.display());
            return Err(ManifestError::Set(what));
        }
        let steps = [Step::Key("upper".into()), Step::Key("size".into())];
        let upper_at = Location { file: path.to_owned(), line: document.line(&steps) };
        let mut image = written.image;
        let dir = path.parent().unwrap_or(Path::new(""));
        image.resolve(dir);
        let verify_image = written
            .verify_image
            .map(|VerifyImage { cosign_key }| VerifyImage { cosign_key: dir.join(cosign_key) });
        Ok(Self {
            image,
            verify_image,
            platform: written.platform,
            upper: written.upper,
            upper_at,
            boot: written.boot,
            patches: reading.done,
            included: reading.included,
        })
    }
}
