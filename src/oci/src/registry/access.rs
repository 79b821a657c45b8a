//! How registries are reached: the user's choices, and which registry gets which login.

use std::fmt;
use std::path::PathBuf;

use crate::compression::Spool;
use crate::pace::{LEAST, Pace};
use crate::reference::ImageRef;

/// How registries are reached.
///
/// Errors name these fields by the options of `rootfs-compile` that set them, such as
/// `--insecure-registry`, `--ca-cert`, `--offline`, `--max-archive-bytes` and `--min-rate`.
#[derive(Clone, Debug, Default)]
pub struct Access {
    /// `HOST[:PORT]` of registries that are spoken to without TLS.
    pub insecure: Vec<String>,
    /// Files of certificates (PEM) that are trusted besides the system's.
    pub ca_certs: Vec<PathBuf>,
    /// Connect to nothing.
    pub offline: bool,
    /// A login in place of the stored ones.
    pub credentials: Option<Credentials>,
    /// The directory where manifests and configs are kept, and spool files while they are read;
    /// an empty path is the working directory.
    pub documents: PathBuf,
    /// Bytes that an archive which is compressed as a whole may decompress to, in
    /// place of the default.
    pub archive_bytes: Option<u64>,
    /// The result of [`Access::document_bytes`], in place of the default.
    pub max_document_bytes: Option<u64>,
    /// The least bytes of a blob for each second of waiting, in place of the default.
    pub min_rate: Option<u64>,
    /// Take a tag for what it last led to, and ask only for one that was never seen.
    pub known_tags: bool,
}

/// Name and password for one registry; every other one gets what is stored for it.
#[derive(Clone)]
pub struct Credentials {
    /// The user's name.
    pub name: String,
    /// The password, or a token in its place.
    pub password: String,
    /// `HOST[:PORT]` as references have it. None: no registry gets them yet.
    pub registry: Option<String>,
}

/// Without the password.
impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, password: _, registry } = self;
        let mut shown = f.debug_struct("Credentials");
        shown.field("name", name).field("registry", registry).finish_non_exhaustive()
    }
}

impl Credentials {
    /// Whether they are for the registry `host`.
    pub(super) fn is_for(&self, host: &str) -> bool {
        /// Docker's files and API call Docker Hub by two names.
        fn known(host: &str) -> &str {
            if host == "index.docker.io" { "docker.io" } else { host }
        }
        self.registry.as_deref().is_some_and(|own| known(own) == known(host))
    }
}

/// The default of [`Access::document_bytes`]. The documents of an image have some KiB.
const MAX_DOCUMENTS: u64 = 512 << 20;

impl Access {
    /// Makes [`Access::credentials`] those of the registry of `image`, unless they name a
    /// registry themselves. Other registries that a build asks, such as those of shared
    /// layers, must not get them.
    pub fn are_for(&mut self, image: &ImageRef) {
        let registry = image.registry_name().map(|name| name.registry().to_owned());
        if let Some(given) = &mut self.credentials
            && given.registry.is_none()
        {
            given.registry = registry;
        }
    }

    /// Where archives are decompressed to.
    pub fn spool(&self) -> Spool {
        Spool { dir: self.documents.clone(), limit: self.archive_bytes }
    }

    /// The most bytes of indexes, manifests and configs that are read to find an image.
    pub fn document_bytes(&self) -> u64 {
        self.max_document_bytes.unwrap_or(MAX_DOCUMENTS)
    }

    /// The limit on how slowly a registry may send.
    pub(crate) fn pace(&self) -> Pace {
        Pace::new(self.min_rate.unwrap_or(LEAST))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_output_has_no_password() {
        let (name, password) = ("ursula".to_owned(), "secret".to_owned());
        let credentials = Some(Credentials { name, password, registry: None });
        let shown = format!("{:?}", Access { credentials, ..Access::default() });
        assert!(shown.contains("ursula") && !shown.contains("secret"), "{shown}");
    }
}
