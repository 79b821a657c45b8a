//! `cache`, and where the cache is.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::limits::ReadArgs;

#[derive(Args)]
pub(crate) struct CacheDir {
    /// Directory of the cache of compiled layers [default: $XDG_CACHE_HOME/rootfs-compile]
    #[arg(long = "cache-dir", env = "ROOTFS_COMPILE_CACHE", value_name = "DIR")]
    pub cache_dir: Option<PathBuf>,
}

/// Check the cache of compiled layers
#[derive(Subcommand)]
#[command(after_help = "\
Examples:
  rootfs-compile cache verify")]
pub(crate) enum Cache {
    Verify(CacheVerify),
}

/// Check all that the cache holds, and remove what killed runs left there
///
/// Prints a line for each problem. The exit code is 0 if all is right, otherwise 1.
#[derive(Args)]
#[command(after_help = "\
Examples:
  rootfs-compile cache verify
  rootfs-compile cache verify --remove --cache-dir /var/cache/rootfs-compile")]
pub(crate) struct CacheVerify {
    /// Remove what is wrong; it is compiled again when it is needed
    #[arg(long)]
    pub remove: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub cache: CacheDir,
    #[command(flatten)]
    pub read: ReadArgs,
}
