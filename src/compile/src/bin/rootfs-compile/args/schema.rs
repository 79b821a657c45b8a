//! `schema`.

use clap::{Args, ValueEnum};

/// Print the JSON Schema of manifests
///
/// Editors that know the schema complete manifests and check them.
#[derive(Args)]
#[command(after_help = "\
Examples:
  rootfs-compile schema > manifest.schema.json
  rootfs-compile schema patches > patches.schema.json")]
pub(crate) struct Schema {
    /// What to describe
    #[arg(value_enum, default_value_t = SchemaOf::Manifest)]
    pub of: SchemaOf,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum SchemaOf {
    /// A manifest
    Manifest,
    /// A list of patches, in a file that a manifest includes
    Patches,
}
