//! The manifest: what a user asks for.

mod boot;
mod platform;
mod reference;
mod size;

use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;

pub use self::boot::{BadBoot, Boot, Publish, Tmpfs};
pub use self::platform::{BadPlatform, Platform};
pub use self::reference::{BadReference, ImageRef, Transport};
pub use self::size::{BadSize, ByteSize};
use crate::units::BLOCK_SIZE;

/// A manifest, checked.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    pub image: ImageRef,
    /// That of the host's architecture when it is not given.
    #[serde(default)]
    pub platform: Option<Platform>,
    #[serde(default)]
    pub upper: Upper,
    #[serde(default)]
    pub boot: Boot,
}

/// The writable upper.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Upper {
    /// Bytes of the file system; whole blocks, 16 MiB to 16 TiB.
    #[serde(default = "Upper::default_size")]
    pub size: UpperSize,
}

/// Bytes of an upper.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "ByteSize")]
pub struct UpperSize(pub u64);

impl TryFrom<ByteSize> for UpperSize {
    type Error = BadSize;

    fn try_from(ByteSize(bytes): ByteSize) -> Result<Self, BadSize> {
        if !(16 << 20..=16 << 40).contains(&bytes) {
            return Err(BadSize::Range(bytes));
        }
        if !bytes.is_multiple_of(BLOCK_SIZE) {
            return Err(BadSize::Blocks(bytes));
        }
        Ok(Self(bytes))
    }
}

impl Upper {
    fn default_size() -> UpperSize {
        UpperSize(4 << 30)
    }
}

impl Default for Upper {
    fn default() -> Self {
        Self { size: Self::default_size() }
    }
}

/// Why there is no manifest.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    #[error("{}: {source}", path.display())]
    Io { path: PathBuf, source: std::io::Error },
    /// The message ends with line and column.
    #[error("{}{}: {source}", path.display(), place(source))]
    Yaml { path: PathBuf, source: serde_yaml::Error },
}

fn place(error: &serde_yaml::Error) -> String {
    error.location().map_or_else(String::new, |at| format!(":{}:{}", at.line(), at.column()))
}

impl Manifest {
    /// Reads the manifest at `path`; relative paths in it begin at its directory.
    pub fn load(path: &Path) -> Result<Self, ManifestError> {
        let io = |source| ManifestError::Io { path: path.to_owned(), source };
        let text = fs::read_to_string(path).map_err(io)?;
        let yaml = |source| ManifestError::Yaml { path: path.to_owned(), source };
        let mut manifest: Self = serde_yaml::from_str(&text).map_err(yaml)?;
        manifest.image.resolve(path.parent().unwrap_or(Path::new("")));
        Ok(manifest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> String {
        let path =
            std::env::temp_dir().join(format!("manifest-{:?}.yaml", std::thread::current().id()));
        fs::write(&path, text).unwrap();
        let error = Manifest::load(&path).unwrap_err().to_string();
        fs::remove_file(&path).unwrap();
        error.strip_prefix(path.to_str().unwrap()).unwrap().to_owned()
    }

    #[test]
    fn a_manifest_has_defaults() {
        let manifest: Manifest = serde_yaml::from_str("image: oci:a/b").unwrap();
        assert_eq!(manifest.upper.size, UpperSize(4 << 30));
        assert_eq!(manifest.platform, None);
        let text = "image: oci:a/b:c\nplatform: linux/arm/v7\nupper: { size: 16MiB }\n";
        let manifest: Manifest = serde_yaml::from_str(text).unwrap();
        assert_eq!(manifest.upper.size, UpperSize(16 << 20));
        assert_eq!(manifest.platform.unwrap().to_string(), "linux/arm/v7");
    }

    #[test]
    fn errors_tell_line_and_column_and_what_would_be_right() {
        let unknown = error("image: oci:a\nuper: { size: 1GiB }\n");
        assert!(unknown.starts_with(":2:1: ") && unknown.contains("uper"), "{unknown}");
        assert!(unknown.contains("`image`, `platform`, `upper`, `boot`"), "{unknown}");
        let nested = error("image: oci:a\nupper:\n  sise: 1GiB\n");
        assert!(nested.starts_with(":3:3: ") && nested.contains("`size`"), "{nested}");
        let size = error("image: oci:a\nupper: { size: 1MiB }\n");
        assert!(size.starts_with(":2:") && size.contains("16 MiB"), "{size}");
        let image = error("\nimage: docker.io/library/alpine\n");
        assert!(image.starts_with(":2:") && image.contains("oci-archive:FILE"), "{image}");
        let yaml = error("image: oci:a\n\tupper\n");
        assert!(yaml.starts_with(":2:"), "{yaml}");
        for (boot, line, word) in [
            ("  cpus: 0\n", 3, "nonzero"),
            ("  env: { A: a }\n  tmpfs: [tmp]\n", 4, "/PATH:SIZE"),
            ("  publish: [\"80\"]\n", 3, "HOST:GUEST"),
            ("  memroy: 1GiB\n", 3, "`memory`"),
        ] {
            let text = error(&format!("image: oci:a\nboot:\n{boot}"));
            assert!(text.starts_with(&format!(":{line}:")) && text.contains(word), "{text}");
        }
        let missing = error("platform: linux/amd64\n");
        assert!(missing.contains("missing field `image`"), "{missing}");
    }
}
