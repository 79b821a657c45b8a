//! The input of a build, and its results.

use std::path::PathBuf;

use oci::{Access, Platform, Reference};

use crate::cache::store::Cache;
use crate::layer::limits::Limits;
use crate::manifest::lock::LockUse;
use crate::manifest::types::Manifest;
use crate::patch::change::Change;

/// What to build, where, and how.
#[derive(Debug)]
pub struct Request {
    /// The checked manifest: image, patches, upper and boot options.
    pub manifest: Manifest,
    /// The path at which the bundle is published.
    pub output: PathBuf,
    /// Replace a bundle that is there.
    pub force: bool,
    /// The directory of the cache, which is made if it is missing.
    pub cache_dir: PathBuf,
    /// How many layers are compiled at the same time; 0 is one for each core.
    pub jobs: usize,
    /// The platform, in place of the manifest's.
    pub platform: Option<Platform>,
    /// What layers and patches may cost at most.
    pub limits: Limits,
    /// The time of files that patches make, in seconds since 1970, in place of the image's
    /// own.
    pub source_date_epoch: Option<i64>,
    /// How registries are reached. Its `documents` are ignored: the cache holds them.
    pub access: Access,
    /// The lock file, and how the build uses it.
    pub lock: LockUse,
    /// Repositories from which compiled layers are taken.
    pub cache_from: Vec<Reference>,
    /// Repositories to which the compiled layers of this build are sent.
    pub cache_to: Vec<Reference>,
}

impl Request {
    /// A build of `manifest` into `output`, with its layers cached in `cache_dir`, and the
    /// defaults of the program for everything else.
    pub fn new(
        manifest: Manifest,
        output: impl Into<PathBuf>,
        cache_dir: impl Into<PathBuf>,
    ) -> Self {
        Self {
            manifest,
            output: output.into(),
            force: false,
            cache_dir: cache_dir.into(),
            jobs: 0,
            platform: None,
            limits: Limits::default(),
            source_date_epoch: None,
            access: Access::default(),
            lock: LockUse::default(),
            cache_from: Vec::new(),
            cache_to: Vec::new(),
        }
    }

    /// How registries are reached, with the documents in the cache.
    pub(super) fn registries(&self) -> Access {
        Access { documents: Cache::documents_dir(&self.cache_dir), ..self.access.clone() }
    }
}

/// Numbers of a finished build.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    /// Layers of the image.
    pub layers: usize,
    /// Layers that came from the cache.
    pub cached: usize,
    /// Bytes of blobs that were read.
    pub bytes_in: u64,
    /// Bytes of fsmeta and layers.
    pub bytes_out: u64,
    /// Inodes of the image's merged tree, as fsmeta has them.
    pub inodes: usize,
}

/// What a build would change in the image.
#[derive(Clone, Debug)]
pub struct Preview {
    /// The changes of each patch of the manifest.
    pub changes: Vec<Vec<Change>>,
    /// Bytes of the upper that the bundle would have.
    pub upper: u64,
}
