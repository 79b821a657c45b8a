//! The manifest: what a user asks for.

mod capability;
mod check;
mod document;
mod lock;
mod marks;
mod mode;
mod owner;
pub mod patch;
mod schema;
mod vars;
mod xattr;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use bundle::boot::{Boot, UpperSize, lenient};
use fsimage::io::regular;
use oci::{ImageRef, Platform};
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer};

pub use self::check::regex;
use self::document::{Document, Step};
pub use self::lock::{Lock, LockUse};
pub use self::mode::{BadMode, Mode};
pub use self::owner::{BadOwner, Group, Id, Owner};
use self::patch::Op;
pub use self::schema::{manifest_schema, patches_schema};
use self::vars::Vars;
pub use self::xattr::{BadXattr, xattr_value};

/// A manifest, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    pub image: ImageRef,
    /// Who must have signed the image.
    pub verify_image: Option<VerifyImage>,
    /// That of the host's architecture when it is not given.
    pub platform: Option<Platform>,
    pub upper: Upper,
    /// Where the manifest speaks of the upper, or its first line.
    pub upper_at: Place,
    pub boot: Boot,
    /// In the order in which they are applied, those of included files in place.
    pub patches: Vec<Patch>,
    /// Files that the manifest includes.
    pub included: Vec<PathBuf>,
}

/// One patch, and where it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Patch {
    pub at: Place,
    pub op: Op,
}

/// A line of a manifest, or of a file that it includes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    pub file: PathBuf,
    /// From 1.
    pub line: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file.display(), self.line)
    }
}

impl fmt::Display for Patch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.at, self.op)
    }
}

/// Reads a value that must say something where its key stands: an empty one would ask
/// for nothing, and whoever wrote the key means something.
fn not_null<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    from: D,
) -> Result<Option<T>, D::Error> {
    T::deserialize(from).map(Some)
}

/// What an image becomes: which one, what is changed in it, how it boots.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Written {
    /// [HOST[:PORT]/]NAME[:TAG] of a registry, oci:DIR[:TAG],
    /// oci-archive:FILE[:TAG], docker-archive:FILE[:NAME], dir:DIR or
    /// docker-daemon:NAME; @sha256:… behind it pins the digest.
    #[schemars(with = "String")]
    image: ImageRef,
    /// Refuse the image, which is in a registry, unless it is signed.
    #[serde(default, rename = "verify-image", deserialize_with = "not_null")]
    #[schemars(with = "VerifyImage")]
    verify_image: Option<VerifyImage>,
    /// OS/ARCHITECTURE[/VARIANT]. Default: linux and the host's architecture.
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    platform: Option<Platform>,
    /// Values for ${NAME} anywhere else in the manifest and in what it includes.
    /// They may use each other; --set NAME=VALUE wins over them.
    #[serde(default, deserialize_with = "lenient::texts")]
    #[schemars(with = "BTreeMap<String, lenient::Text>")]
    #[expect(dead_code, reason = "they are read before the rest can be")]
    vars: Vec<(String, String)>,
    #[serde(default)]
    upper: Upper,
    #[serde(default)]
    boot: Boot,
    /// Changes, applied in order; a later one sees what earlier ones did.
    #[serde(default)]
    patches: Vec<Op>,
}

/// Who must have signed an image.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct VerifyImage {
    /// A file with a public key (PEM: ECDSA on P-256, or Ed25519) of which cosign signed
    /// the image with the other half.
    pub cosign_key: PathBuf,
}

/// The writable upper.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Upper {
    /// Bytes of the file system (4GiB, 512MiB): whole blocks of 4096, 16 MiB to
    /// 16 TiB. Default: 4 GiB, or 3 GiB beyond what patches need, if that is more.
    #[serde(default)]
    #[schemars(with = "Option<lenient::Text>")]
    pub size: Option<UpperSize>,
}

/// Why there is no manifest.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    #[error("{}: {source}", path.display())]
    Io { path: PathBuf, source: std::io::Error },
    #[error("{}{}: {source}", path.display(), yaml_place(source))]
    Yaml { path: PathBuf, source: serde_yaml::Error },
    /// `place` is empty or `:LINE:COLUMN`.
    #[error("{}{place}: {what}", path.display())]
    Value { path: PathBuf, place: String, what: String },
    #[error("{0}: {1}")]
    Patch(Box<Patch>, String),
    #[error("--set {0}")]
    Set(String),
}

fn yaml_place(error: &serde_yaml::Error) -> String {
    error.location().map_or_else(String::new, |at| format!(":{}:{}", at.line(), at.column()))
}

impl Manifest {
    /// The manifest of `image` as it is.
    pub fn of_image(image: ImageRef) -> Self {
        let upper_at = Place { file: image.to_string().into(), line: 1 };
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
    pub fn load(path: &Path, set: &BTreeMap<String, String>) -> Result<Self, ManifestError> {
        Self::read(open(path)?, path, set)
    }

    /// Reads a manifest from `from`, as [`Manifest::load`] would from a file `path`.
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
            let what = "it is no mapping; a manifest has at least the key `image`".to_owned();
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
        let upper_at = Place { file: path.to_owned(), line: document.line(&steps) };
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

fn open(path: &Path) -> Result<File, ManifestError> {
    File::open(path).map_err(|source| ManifestError::Io { path: path.to_owned(), source })
}

/// A manifest while it is read.
#[derive(Default)]
struct Reading {
    vars: Vars,
    /// Variables that a value uses.
    used: BTreeSet<String>,
    /// Files that are being read, each because the one before it includes it.
    open: Vec<PathBuf>,
    included: Vec<PathBuf>,
    done: Vec<Patch>,
}

/// Files that include others twice make many of few.
const MAX_INCLUDES: usize = 10_000;

impl Reading {
    /// Defines the document's `vars`, and returns their names.
    fn declare(&mut self, document: &Document) -> Result<BTreeSet<String>, ManifestError> {
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
                Err(what) => {
                    problem.get_or_insert((name.clone(), what));
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
    fn patches(
        &mut self,
        document: &Document,
        steps: &[Step],
        ops: Vec<Op>,
    ) -> Result<(), ManifestError> {
        let dir = document.path.parent().unwrap_or(Path::new(""));
        for (i, mut op) in ops.into_iter().enumerate() {
            let steps: Vec<Step> = steps.iter().cloned().chain([Step::Index(i)]).collect();
            let at = Place { file: document.path.clone(), line: document.line(&steps) };
            if let Some(path) = op.host_path_mut() {
                *path = dir.join(&path);
            }
            let patch = Patch { at, op };
            check::check(&patch.op)
                .map_err(|what| ManifestError::Patch(Box::new(patch.clone()), what))?;
            match &patch.op {
                Op::Include(path) => self.include(&patch, path)?,
                _ => self.done.push(patch),
            }
        }
        Ok(())
    }

    fn include(&mut self, patch: &Patch, path: &Path) -> Result<(), ManifestError> {
        let bad = |what| ManifestError::Patch(Box::new(patch.clone()), what);
        let real = |path: &Path| path.canonicalize().map_err(|error| bad(error.to_string()));
        let wanted = real(path)?;
        // What is no regular file (standard input) cannot be included.
        for open in self.open.iter().filter(|open| open.is_file()) {
            if real(open)? == wanted {
                let chain: Vec<_> =
                    self.open.iter().map(|path| path.display().to_string()).collect();
                return Err(bad(format!("files include each other: {}", chain.join(" -> "))));
            }
        }
        if !path.is_file() {
            return Err(bad("it is no regular file".into()));
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

#[cfg(test)]
mod tests;
