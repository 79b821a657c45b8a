//! `inspect` and `verify`; `keygen` and `sign`.

use std::path::PathBuf;

use clap::Args;

use super::cache::CacheDir;
use super::limits::ReadArgs;

/// Show what a bundle holds
///
/// Prints the image, its layers, what each patch does, and sizes. It also lists names that
/// differ only in case, which a machine with another file system could not tell apart.
#[derive(Args)]
#[command(after_help = "\
Examples:
  rootfs-compile inspect app
  rootfs-compile inspect app --json")]
pub(crate) struct Inspect {
    /// Directory of the bundle
    pub dir: PathBuf,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub cache: CacheDir,
    #[command(flatten)]
    pub read: ReadArgs,
}

/// Check a bundle completely: every hash, block, inode and directory entry
///
/// Prints a line for each problem. The exit code is 0 if the bundle is sound, otherwise 1.
#[derive(Args)]
#[command(after_help = "\
Examples:
  rootfs-compile verify app
  rootfs-compile verify app --key release.pub")]
pub(crate) struct Verify {
    /// Directory of the bundle
    pub dir: PathBuf,
    #[command(flatten)]
    pub key: KeyArgs,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub read: ReadArgs,
}

/// Create a pair of keys to sign bundles with
///
/// FILE gets the secret key, FILE.pub the public one; both have the format of minisign. If the
/// variable ROOTFS_COMPILE_KEY_PASSWORD is set, it protects the secret key.
#[derive(Args)]
#[command(after_help = "\
Examples:
  rootfs-compile keygen -o release
  ROOTFS_COMPILE_KEY_PASSWORD=secret rootfs-compile keygen -o protected")]
pub(crate) struct Keygen {
    /// File for the secret key; the public key goes to FILE.pub
    #[arg(short, long, value_name = "FILE")]
    pub output: PathBuf,
}

/// Check all files of a bundle, then sign it
///
/// The signature becomes part of the bundle. If the key has a password, the variable
/// ROOTFS_COMPILE_KEY_PASSWORD must hold it.
#[derive(Args)]
#[command(after_help = "\
Examples:
  rootfs-compile sign app --key release
  ROOTFS_COMPILE_KEY_PASSWORD=secret rootfs-compile sign app --key protected")]
pub(crate) struct Sign {
    /// Directory of the bundle
    pub dir: PathBuf,
    /// Secret key, made by keygen or by minisign
    #[arg(long, value_name = "FILE")]
    pub key: PathBuf,
    #[command(flatten)]
    pub read: ReadArgs,
}

/// Whose signature a bundle must have.
#[derive(Args)]
pub(crate) struct KeyArgs {
    /// Refuse a bundle that this public key did not sign; if given several times, one of the
    /// keys must have signed it
    #[arg(long, value_name = "FILE")]
    pub key: Vec<PathBuf>,
}
