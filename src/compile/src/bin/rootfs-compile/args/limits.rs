//! What images and bundles may cost.

use std::path::Path;

use bundle::opened::Place;
use clap::Args;
use rootfs_compile::layer::Limits;

use super::value::{size, sparse_size};

/// Bounds against images that are made to exhaust the machine.
#[derive(Args)]
#[command(next_help_heading = "Limits")]
pub(crate) struct LimitArgs {
    /// Size of one layer, uncompressed [default: 256GiB]
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub max_layer_bytes: Option<u64>,
    /// Size of one file, holes included [default: 1TiB]
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub max_file_bytes: Option<u64>,
    /// Number of entries of one layer [default: 16777216]
    #[arg(long, value_name = "N")]
    pub max_entries: Option<u64>,
    /// Length of a path, in bytes [default: 4096]
    #[arg(long, value_name = "N")]
    pub max_path: Option<u64>,
    /// Depth of a path, in directories [default: 1024]
    #[arg(long, value_name = "N")]
    pub max_depth: Option<u64>,
    /// Size of one file's extended attributes [default: 1MiB]
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub max_xattr_bytes: Option<u64>,
    /// Space for zeros and indexes of sparse files, of all layers together; at most 32GiB
    /// [default: 16GiB]
    #[arg(long, value_name = "SIZE", value_parser = sparse_size)]
    pub max_sparse_bytes: Option<u64>,
    /// Memory for the metadata of all layers together, and for patches [default: 1280MiB]
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub max_metadata_bytes: Option<u64>,
    /// Uncompressed size of all layers together, beyond 1024 times their compressed size
    /// [default: 16GiB]
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub max_expansion_bytes: Option<u64>,
    /// Work on paths: components, links followed, and records of extended headers
    /// [default: 536870912]
    #[arg(long, value_name = "N")]
    pub max_steps: Option<u64>,
    /// Size of the documents that are read to find an image: indexes, manifests, configs
    /// [default: 512MiB]
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub max_document_bytes: Option<u64>,
    /// Size of a compressed archive, uncompressed [default: 256GiB]
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub max_archive_bytes: Option<u64>,
}

impl LimitArgs {
    /// The defaults with what was given in their place.
    pub(crate) fn limits(&self) -> Limits {
        let default = Limits::default();
        Limits {
            layer_bytes: self.max_layer_bytes.unwrap_or(default.layer_bytes),
            file_bytes: self.max_file_bytes.unwrap_or(default.file_bytes),
            entries: self.max_entries.unwrap_or(default.entries),
            path: self.max_path.unwrap_or(default.path),
            depth: self.max_depth.unwrap_or(default.depth),
            xattr_bytes: self.max_xattr_bytes.unwrap_or(default.xattr_bytes),
            sparse_bytes: self.max_sparse_bytes.unwrap_or(default.sparse_bytes),
            metadata_bytes: self.max_metadata_bytes.unwrap_or(default.metadata_bytes),
            expansion: default.expansion,
            expansion_bytes: self.max_expansion_bytes.unwrap_or(default.expansion_bytes),
            steps: self.max_steps.unwrap_or(default.steps),
        }
    }
}

/// Bounds against bundles that are made to exhaust the machine.
#[derive(Args)]
#[command(next_help_heading = "Limits")]
pub(crate) struct ReadArgs {
    /// Memory for the metadata of each file system [default: 1280MiB]
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub max_metadata_bytes: Option<u64>,
}

impl ReadArgs {
    /// What was given, or the default.
    pub(crate) fn metadata_bytes(&self) -> u64 {
        self.max_metadata_bytes.unwrap_or(Limits::default().metadata_bytes)
    }

    /// The bundle at `path`, to be read within these bounds.
    pub(crate) fn bundle(&self, path: &Path) -> anyhow::Result<Place> {
        Ok(Place::find(path)?.within(self.metadata_bytes()))
    }
}
