//! Image references: `TRANSPORT:PATH[:REFERENCE][@sha256:…]`, or a name in a
//! registry by Docker's rules.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use fsimage::digest::Digest;
use serde::Deserialize;

use crate::distribution::{BadName, Reference};

/// The form in which files hold an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileForm {
    /// An OCI layout directory.
    Oci,
    /// An OCI layout in a tar.
    OciArchive,
    /// What `docker save` writes.
    DockerArchive,
    /// A tar of either kind, told by its members.
    Archive,
    /// What `skopeo copy … dir:` writes.
    Dir,
}

impl FileForm {
    const ALL: [Self; 5] =
        [Self::Oci, Self::OciArchive, Self::DockerArchive, Self::Archive, Self::Dir];

    /// What stands before the colon of a reference to such files.
    fn prefix(self) -> &'static str {
        match self {
            Self::Oci => "oci",
            Self::OciArchive => "oci-archive",
            Self::DockerArchive => "docker-archive",
            Self::Archive => "archive",
            Self::Dir => "dir",
        }
    }
}

/// What stands before the colon of a reference to Docker's own store.
const DAEMON: &str = "docker-daemon";

/// An image, as a manifest names it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum ImageRef {
    /// In a registry.
    Registry {
        /// The reference as written, which a bundle records as its origin.
        written: String,
        /// The full name. If it has a digest, the manifest or an index above it must have it.
        name: Reference,
    },
    /// In Docker's own store, read over its socket.
    Daemon {
        /// A name or an ID.
        name: String,
        /// The image must have this digest.
        pin: Option<Digest>,
    },
    /// In a file or a directory.
    Files(ImageFiles),
}

/// An image in a file or a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageFiles {
    /// The form of what is there.
    pub form: FileForm,
    /// Path and name as written.
    written: String,
    /// The path. Relative to the current directory once [`ImageRef::resolve`] was called.
    pub path: PathBuf,
    /// The name of the image in the files: a tag or a full name.
    pub name: Option<String>,
    /// The manifest (or an index above it) must have this digest.
    pub pin: Option<Digest>,
}

/// The advice of messages about references.
const FORMS: &str = "write [HOST[:PORT]/]NAME[:TAG] for one in a registry, oci:DIR[:NAME], \
    oci-archive:FILE[:NAME], docker-archive:FILE[:NAME], dir:DIR or docker-daemon:NAME, and @sha256:… \
    behind it to pin the digest";

/// A text that names no image.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadReference {
    /// The text, which begins with a transport (such as `oci:`) and has no path or name
    /// behind it.
    #[error("{0:?} names no image; {forms}", forms = FORMS)]
    Form(String),
    /// The text, and why it does not name an image in a registry.
    #[error("{0:?} names no image ({1}); {forms}", forms = FORMS)]
    Name(String, BadName),
    /// The text, in which something other than a sha256 digest follows the `@`.
    #[error("{0:?}: what follows @ is not a digest (sha256: and 64 lower-case hex digits)")]
    Pin(String),
}

impl FromStr for ImageRef {
    type Err = BadReference;

    /// Where the path ends, only [`ImageRef::resolve`] can say for sure: paths and
    /// names may both hold colons. Until then it ends at the first one.
    fn from_str(text: &str) -> Result<Self, BadReference> {
        let bad = || BadReference::Form(text.to_owned());
        let (prefix, rest) = text.split_once(':').unwrap_or(("", text));
        let form = FileForm::ALL.into_iter().find(|form| form.prefix() == prefix);
        if form.is_none() && prefix != DAEMON {
            return Self::in_registry(text).map_err(|why| BadReference::Name(text.to_owned(), why));
        }
        let (rest, pin) = match rest.rsplit_once("@sha256:") {
            Some((rest, hex)) => {
                let pin = format!("sha256:{hex}").parse();
                (rest, Some(pin.map_err(|_| BadReference::Pin(text.to_owned()))?))
            }
            None if ends_in_a_digest(rest) => return Err(BadReference::Pin(text.to_owned())),
            None => (rest, None),
        };
        let Some(form) = form else {
            return match rest {
                "" => Err(bad()),
                name => Ok(Self::Daemon { name: name.to_owned(), pin }),
            };
        };
        let (path, name) = split(form, rest, |_| false);
        if path.is_empty() || name == Some("") {
            return Err(bad());
        }
        let (path, name) = (path.into(), name.map(str::to_owned));
        Ok(Self::Files(ImageFiles { form, written: rest.to_owned(), path, name, pin }))
    }
}

/// Whether the text behind the last `@` is a digest, by Docker's grammar or by the look of
/// it. Such a text is an error: taken for a part of a name, it would pin nothing.
fn ends_in_a_digest(place: &str) -> bool {
    const SHORTEST: usize = 32;
    let Some((algorithm, hex)) = place.rsplit_once('@').and_then(|(_, end)| end.split_once(':'))
    else {
        return false;
    };
    let is_known = ["sha256", "sha384", "sha512", "blake3"].contains(&algorithm);
    let is_digest = hex.len() >= SHORTEST && hex.bytes().all(|byte| byte.is_ascii_hexdigit());
    let is_algorithm = |byte: u8| byte.is_ascii_alphanumeric() || b"-_+.".contains(&byte);
    is_known || (is_digest && !algorithm.is_empty() && algorithm.bytes().all(is_algorithm))
}

/// Splits `place` into path and name: at the first colon behind a path that exists, or at the
/// first colon of all if there is none.
fn split(form: FileForm, place: &str, is_there: impl Fn(&str) -> bool) -> (&str, Option<&str>) {
    if form == FileForm::Dir {
        return (place, None);
    }
    let colons = || place.match_indices(':').map(|(at, _)| at);
    let known = colons().chain([place.len()]).find(|end| *end > 0 && is_there(&place[..*end]));
    match known.or_else(|| colons().next()) {
        Some(end) if end < place.len() => (&place[..end], Some(&place[end + 1..])),
        _ => (place, None),
    }
}

impl ImageRef {
    /// The only image in the files at `path`.
    pub fn in_files(form: FileForm, path: &Path) -> Self {
        let (written, path) = (path.display().to_string(), path.to_owned());
        Self::Files(ImageFiles { form, written, path, name: None, pin: None })
    }

    /// `[docker://][HOST[:PORT]/]NAME[:TAG][@sha256:…]`
    fn in_registry(text: &str) -> Result<Self, BadName> {
        let name = text.strip_prefix("docker://").unwrap_or(text);
        // Docker reserves this form for image IDs: no repository has such a name.
        if name.len() == 64 && name.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(BadName::Id);
        }
        Ok(Self::Registry { written: text.to_owned(), name: name.parse()? })
    }

    /// The digest that the image, or an index which lists it, must have.
    pub fn pin(&self) -> Option<Digest> {
        match self {
            Self::Registry { name, .. } => name.digest(),
            Self::Daemon { pin, .. } | Self::Files(ImageFiles { pin, .. }) => *pin,
        }
    }

    /// What the image is called by whatever holds it: a tag in a registry, a tag or a whole
    /// name in files.
    pub(crate) fn name_inside(&self) -> Option<&str> {
        match self {
            Self::Registry { name, .. } => name.tag(),
            // What docker gives holds the one image that it was asked for.
            Self::Daemon { .. } => None,
            Self::Files(files) => files.name.as_deref(),
        }
    }

    /// The name of an image in a registry.
    pub fn registry_name(&self) -> Option<&Reference> {
        match self {
            Self::Registry { name, .. } => Some(name),
            _ => None,
        }
    }

    /// Pins the digest of an image in a registry. Other references stay as they are.
    pub fn lock(&mut self, digest: Digest) {
        if let Self::Registry { name, .. } = self {
            *name = name.pinned(digest);
        }
    }

    /// Takes a relative path as relative to `dir`, and looks at the files there to tell where
    /// the path ends and the name begins.
    pub fn resolve(&mut self, dir: &Path) {
        let Self::Files(files) = self else {
            return;
        };
        let is_there = |path: &str| dir.join(path).symlink_metadata().is_ok();
        let (path, name) = split(files.form, &files.written, is_there);
        files.path = dir.join(path);
        files.name = name.filter(|name| !name.is_empty()).map(str::to_owned);
    }
}

impl From<Reference> for ImageRef {
    fn from(name: Reference) -> Self {
        Self::Registry { written: name.to_string(), name }
    }
}

impl TryFrom<String> for ImageRef {
    type Error = BadReference;

    fn try_from(text: String) -> Result<Self, BadReference> {
        text.parse()
    }
}

impl fmt::Display for ImageRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Registry { written, .. } => return f.write_str(written),
            Self::Daemon { name, .. } => write!(f, "{DAEMON}:{name}")?,
            Self::Files(files) => write!(f, "{}:{}", files.form.prefix(), files.written)?,
        }
        self.pin().iter().try_for_each(|pin| write!(f, "@{pin}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_ends_where_the_tag_begins() {
        let read = |text: &str| {
            let image: ImageRef = text.parse().unwrap();
            assert_eq!(image.to_string(), text);
            let ImageRef::Files(files) = image else { panic!("{text}") };
            (files.path.to_str().unwrap().to_owned(), files.name, files.pin.is_some())
        };
        let pin = format!("@sha256:{}", "0".repeat(64));
        assert_eq!(read("oci:dir"), ("dir".into(), None, false));
        assert_eq!(read("oci:../dir:latest"), ("../dir".into(), Some("latest".into()), false));
        assert_eq!(read("oci:dir:a/b:1"), ("dir".into(), Some("a/b:1".into()), false));
        assert_eq!(read("dir:a:b"), ("a:b".into(), None, false));
        assert_eq!(read(&format!("oci:dir{pin}")), ("dir".into(), None, true));
        assert_eq!(read(&format!("oci:dir:1.0{pin}")), ("dir".into(), Some("1.0".into()), true));
        // Text that is neither an algorithm with a digest nor looks like one is a name.
        let name = "oci:dir:me@host:5000/a".to_owned();
        assert_eq!(read(&name), ("dir".into(), Some("me@host:5000/a".into()), false));
        let name = "docker-archive:x.tar:example.com:5000/a:b";
        assert_eq!(read(name), ("x.tar".into(), Some("example.com:5000/a:b".into()), false));
        for bad in [
            "",
            "oci:",
            "oci::tag",
            "a//b",
            "a:b:c",
            "oci:x:",
            "oci:x@sha256:12",
            "oci:x@sha512:12",
            "oci:x:1@sha256+b64:0123456789abcdef0123456789abcdef",
            "docker-archive:x:1@SHA256:0123456789abcdef0123456789abcdef",
            "a@sha256:1",
            "[::1]",
            "[::1]a",
            "[::1]:5000",
            "[::1/a",
            "[1.2.3.4]/a",
            "[::1].example/a",
        ] {
            assert!(bad.parse::<ImageRef>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_path_that_is_there_may_hold_colons() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["plain", "with:colon", "with:two:colons"] {
            std::fs::create_dir(dir.path().join(name)).unwrap();
        }
        let read = |text: &str| {
            let mut image: ImageRef = text.parse().unwrap();
            image.resolve(dir.path());
            let ImageRef::Files(files) = image else { panic!("{text}") };
            let path = files.path.strip_prefix(dir.path()).unwrap().to_str().unwrap().to_owned();
            (path, files.name.unwrap_or_default())
        };
        for (text, path, name) in [
            ("oci:plain", "plain", ""),
            ("oci:plain:1", "plain", "1"),
            ("oci:plain:busybox:1.38.0-musl", "plain", "busybox:1.38.0-musl"),
            ("oci:plain:docker.io/library/x:1", "plain", "docker.io/library/x:1"),
            ("oci:with:colon", "with:colon", ""),
            ("oci:with:colon:1", "with:colon", "1"),
            ("oci-archive:with:two:colons:a:1", "with:two:colons", "a:1"),
            ("docker-archive:with:colon:localhost:5000/a:1", "with:colon", "localhost:5000/a:1"),
            ("oci:nowhere:a:1", "nowhere", "a:1"),
            ("dir:with:colon", "with:colon", ""),
        ] {
            assert_eq!(read(text), (path.to_owned(), name.to_owned()), "{text}");
        }
    }

    #[test]
    fn other_names_are_of_a_registry_as_docker_reads_them() {
        for (text, whole) in [
            ("python", "docker.io/library/python:latest"),
            ("python:3.12-slim", "docker.io/library/python:3.12-slim"),
            ("docker://a/b", "docker.io/a/b:latest"),
            ("localhost/a:1", "localhost/a:1"),
            ("localhost:5000/a/b", "localhost:5000/a/b:latest"),
            ("example.com/a", "example.com/a:latest"),
            ("[::1]:5000/a/b:1", "[::1]:5000/a/b:1"),
            ("[0:0::1]/a", "[::1]/a:latest"),
        ] {
            let image: ImageRef = text.parse().unwrap();
            assert_eq!(image.registry_name().unwrap().to_string(), whole);
            assert_eq!(image.to_string(), text);
        }
        let digest = format!("sha256:{}", "a".repeat(64));
        let mut image: ImageRef = "example.com/a:1".parse().unwrap();
        image.lock(digest.parse().unwrap());
        assert_eq!(image.to_string(), "example.com/a:1");
        let locked = image.registry_name().unwrap().to_string();
        assert_eq!(locked, format!("example.com/a:1@{digest}"));
    }
}
