//! What a word on the command line means: a manifest, an image in files, or a
//! reference.
//!
//! A file that exists is what its content says, whatever its name. Anything else
//! is a reference, unless it looks like the name of a file: a mistyped path must
//! not be asked from a registry.

mod content;

use std::ffi::OsStr;
use std::fs::{self, Metadata};
use std::io;
use std::path::{Path, PathBuf};

use oci::{FileForm, ImageRef};

use self::content::{Directory, FileKind};

/// What a word means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Word {
    /// `-`: a manifest on standard input.
    Stdin,
    /// A manifest in the file at this path.
    Manifest(PathBuf),
    /// Files of an image, or an image elsewhere.
    Image(Box<ImageRef>),
}

/// What a word means, and what to say where it could mean something else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Meaning {
    /// What the word is taken for.
    pub word: Word,
    /// A note for the user: what else the word could mean. `None` if it is not in doubt.
    pub note: Option<String>,
}

/// A word that means nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadWord(String);

/// Names of files end so.
const ENDINGS: [&str; 13] = [
    ".yaml", ".yml", ".json", ".tar", ".tgz", ".tzst", ".txz", ".tbz", ".tbz2", ".gz", ".zst",
    ".xz", ".bz2",
];

/// What images elsewhere, and in files of a given kind, begin with.
const PREFIXES: [&str; 7] =
    ["oci:", "oci-archive:", "docker-archive:", "archive:", "dir:", "docker-daemon:", "docker://"];

/// Finds out what `text` means here and now.
///
/// # Errors
/// It fails when `text` is neither a file that is a manifest or an image nor a reference, when
/// it is a bundle, and when the file cannot be read.
pub fn meaning(text: &OsStr) -> Result<Meaning, BadWord> {
    let sure = |word| Ok(Meaning { word, note: None });
    if text == "-" {
        return sure(Word::Stdin);
    }
    let path = Path::new(text);
    let word = Asked { path, text: text.to_str() };
    if let Some(text) = word.text.filter(|text| PREFIXES.iter().any(|p| text.starts_with(p))) {
        let mut image: ImageRef = text.parse().map_err(|error| BadWord(format!("{error}")))?;
        image.resolve(Path::new(""));
        let note = path.exists().then(|| {
            format!("{text}: taken as an image by its prefix; ./{text} is the file of that name")
        });
        return Ok(Meaning { word: Word::Image(Box::new(image)), note });
    }
    match fs::metadata(path) {
        Ok(metadata) => word.that_exists(&metadata),
        Err(error) => {
            let missing =
                matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory);
            match word.reference() {
                Ok(_) if word.names_a_part_of_a_file() => Err(BadWord(format!(
                    "{}: to choose an image of an archive by its name, write archive:FILE:NAME",
                    path.display()
                ))),
                Ok(image) if !word.is_like_a_file() => sure(Word::Image(Box::new(image))),
                _ if !missing => Err(BadWord(format!("{}: {error}", path.display()))),
                result => Err(word.missing(result.err())),
            }
        }
    }
}

/// A word that is no fixed one.
struct Asked<'t> {
    path: &'t Path,
    /// Nothing if it is not UTF-8, and so a path.
    text: Option<&'t str>,
}

impl Asked<'_> {
    /// Whether nobody would take the word for a reference.
    fn is_like_a_file(&self) -> bool {
        let Some(text) = self.text else {
            return true;
        };
        let begins = ["/", "./", "../", "~"].iter().any(|start| text.starts_with(start));
        let ends = ENDINGS.iter().any(|end| text.ends_with(end));
        begins || ends || text.ends_with('/') || text == "." || text == ".."
    }

    /// `image.tar:NAME`, as people write it who mean `archive:image.tar:NAME`.
    fn names_a_part_of_a_file(&self) -> bool {
        let file = self.text.and_then(|text| text.split_once(':')).map(|(file, _)| file);
        file.is_some_and(|file| ENDINGS.iter().any(|end| file.ends_with(end)))
    }

    fn reference(&self) -> Result<ImageRef, String> {
        let text = self.text.ok_or("it is not UTF-8")?;
        text.parse::<ImageRef>().map_err(|error| error.to_string())
    }

    /// Why the name of a file that is not there, or of nothing at all, is an error.
    fn missing(&self, not_a_reference: Option<String>) -> BadWord {
        let shown = self.path.display();
        if self.is_like_a_file() {
            let other = match (not_a_reference, self.text) {
                (None, Some(text)) => {
                    format!(" (the image of that name in a registry is docker://{text})")
                }
                _ => String::new(),
            };
            return BadWord(format!("{shown}: there is no such file{other}"));
        }
        BadWord(match not_a_reference {
            Some(why) => format!("{why}; and there is no file of that name"),
            None => format!("{shown}: there is no such file"),
        })
    }

    fn that_exists(&self, metadata: &Metadata) -> Result<Meaning, BadWord> {
        let shown = self.path.display();
        let io = |error: io::Error| BadWord(format!("{shown}: {error}"));
        if metadata.is_dir() {
            let found = content::directory(self.path);
            return match found {
                Directory::Layout { also_skopeo } => {
                    let note = also_skopeo.then(|| {
                        format!(
                            "{shown}: taken as an OCI layout; dir:{shown} is the image that \
                             skopeo wrote there"
                        )
                    });
                    Ok(self.files(FileForm::Oci, note))
                }
                Directory::Skopeo => Ok(self.files(FileForm::Dir, None)),
                Directory::Bundle => Err(self.is_a_bundle()),
                Directory::Other => self.elsewhere(
                    "a directory, but neither an OCI layout nor one that skopeo wrote (dir:)",
                    false,
                ),
            };
        }
        if !metadata.is_file() {
            // A pipe is read once, and what it may bring is a manifest.
            return Ok(Meaning { word: Word::Manifest(self.path.to_owned()), note: None });
        }
        match content::file(self.path).map_err(io)? {
            FileKind::Archive => Ok(self.files(FileForm::Archive, None)),
            FileKind::Manifest => Ok(self.manifest()),
            // Whatever is wrong with it, the manifest's reader says where.
            FileKind::Text if self.is_like_a_file() || self.reference().is_err() => {
                Ok(self.manifest())
            }
            FileKind::Text => self.elsewhere("neither a manifest nor an image archive", true),
            FileKind::Descriptor => Err(self.is_a_bundle()),
            FileKind::Binary => self.elsewhere(
                "neither a manifest (YAML) nor an image archive (a tar, plain or compressed \
                 with gzip, zstd, xz or bzip2)",
                true,
            ),
        }
    }

    fn is_a_bundle(&self) -> BadWord {
        let shown = self.path.display();
        BadWord(format!("{shown} is a bundle, compiled already; rootfs-boot starts it"))
    }

    fn manifest(&self) -> Meaning {
        let note = self.could_be_a_reference("manifest");
        Meaning { word: Word::Manifest(self.path.to_owned()), note }
    }

    /// The image in the files at the path.
    fn files(&self, form: FileForm, note: Option<String>) -> Meaning {
        let note = note.or_else(|| self.could_be_a_reference("image"));
        Meaning { word: Word::Image(Box::new(ImageRef::in_files(form, self.path))), note }
    }

    fn could_be_a_reference(&self, what: &str) -> Option<String> {
        let text = self.text.filter(|_| !self.is_like_a_file() && self.reference().is_ok())?;
        Some(format!(
            "{text}: taken as the {what} in the file of that name; docker://{text} is the image in \
             a registry"
        ))
    }

    /// A reference whose name is also that of something which is not an image.
    fn elsewhere(&self, is: &str, say: bool) -> Result<Meaning, BadWord> {
        let shown = self.path.display();
        match self.reference() {
            Ok(image) if !self.is_like_a_file() => {
                let note = say.then(|| {
                    format!(
                        "{shown}: taken as an image in a registry; the file of that name is {is}"
                    )
                });
                Ok(Meaning { word: Word::Image(Box::new(image)), note })
            }
            _ => Err(BadWord(format!("{shown} is {is}"))),
        }
    }
}

#[cfg(test)]
mod tests;
