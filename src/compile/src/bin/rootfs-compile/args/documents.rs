//! `schema` and `generate`.

use std::path::PathBuf;

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

/// Write the man pages of both programs, and completions for bash, zsh and fish
#[derive(Args)]
#[command(after_help = "\
Examples:
  rootfs-compile generate /usr/local
  rootfs-compile generate ~/.local")]
pub(crate) struct Generate {
    /// Where the programs are installed; the files go to PREFIX/share
    #[arg(value_name = "PREFIX")]
    pub prefix: PathBuf,
}
