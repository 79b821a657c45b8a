//! `inspect` and `verify`; `keygen` and `sign`.

use std::path::PathBuf;

use clap::Args;

use super::cache::CacheDir;
use super::limits::ReadArgs;

#[derive(Args)]
pub(crate) struct Inspect {
    /// The bundle's directory
    pub dir: PathBuf,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub cache: CacheDir,
    #[command(flatten)]
    pub read: ReadArgs,
}

#[derive(Args)]
pub(crate) struct Verify {
    /// The bundle's directory
    pub dir: PathBuf,
    #[command(flatten)]
    pub key: KeyArgs,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub read: ReadArgs,
}

#[derive(Args)]
pub(crate) struct Keygen {
    /// Where the secret key goes; the public one is called so with .pub behind it.
    /// ROOTFS_COMPILE_KEY_PASSWORD protects the secret key, if it is set
    #[arg(short, long, value_name = "FILE")]
    pub output: PathBuf,
}

#[derive(Args)]
pub(crate) struct Sign {
    /// The bundle's directory
    pub dir: PathBuf,
    /// A secret key, of keygen or minisign. ROOTFS_COMPILE_KEY_PASSWORD has its password
    #[arg(long, value_name = "FILE")]
    pub key: PathBuf,
    #[command(flatten)]
    pub read: ReadArgs,
}

/// Whose signature a bundle must have.
#[derive(Args)]
pub(crate) struct KeyArgs {
    /// Refuse a bundle that is not signed with this public key, or with one of several
    #[arg(long, value_name = "FILE")]
    pub key: Vec<PathBuf>,
}
