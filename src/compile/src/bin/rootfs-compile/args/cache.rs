//! `cache`, and where the cache is.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::limits::ReadArgs;

#[derive(Args)]
pub(crate) struct CacheDir {
    /// Where compiled layers are kept [default: $XDG_CACHE_HOME/rootfs-compile]
    #[arg(long = "cache-dir", env = "ROOTFS_COMPILE_CACHE", value_name = "DIR")]
    pub cache_dir: Option<PathBuf>,
}

#[derive(Subcommand)]
pub(crate) enum Cache {
    /// Check all that the cache holds, and remove what killed runs left there
    Verify(CacheVerify),
}

#[derive(Args)]
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
