//! `build` and `run`.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, ValueEnum, ValueHint};
use oci::{Platform, Reference};

use super::cache::CacheDir;
use super::limits::LimitArgs;
use super::registry::RegistryArgs;
use super::value::{Epoch, pair, repository};
use crate::machine::MachineArgs;

/// Compile an image, or a manifest, into a bundle
///
/// A manifest names an image and lists changes to it. Nothing is written into DIR before all of
/// it is compiled: a build that fails or is killed leaves no half of a bundle.
#[derive(Args)]
#[command(after_help = "\
Examples:
  rootfs-compile build python:3.12-slim -o python
  rootfs-compile build app.yaml -o app --force
  rootfs-compile build app.yaml --set PORT=80 --dry-run
  rootfs-compile build app.yaml -o app --force --lock --provenance app.json
  rootfs-compile build image.tar -o image")]
pub(crate) struct Build {
    /// An image reference, a file or directory that holds an image, or a manifest (- reads one
    /// from standard input)
    #[arg(value_name = "IMAGE|MANIFEST|FILE", value_hint = ValueHint::AnyPath)]
    pub image: OsString,
    /// Directory for the bundle
    #[arg(short, long, value_name = "DIR", required_unless_present = "dry_run")]
    pub output: Option<PathBuf>,
    /// Replace the bundle if DIR already has one
    #[arg(long)]
    pub force: bool,
    /// Make no bundle; list what each patch would create (+), change (~) and remove (-)
    #[arg(long)]
    pub dry_run: bool,
    /// Print the list of --dry-run as JSON
    #[arg(long, requires = "dry_run")]
    pub json: bool,
    /// Write to FILE what the bundle was made of: an in-toto statement with SLSA provenance
    #[arg(long, value_name = "FILE", conflicts_with = "dry_run")]
    pub provenance: Option<PathBuf>,
    #[command(flatten)]
    pub compile: CompileArgs,
    /// Print notes, such as which of several images was taken
    #[arg(short, long, conflicts_with = "quiet", help_heading = "Messages")]
    pub verbose: bool,
    #[command(flatten)]
    pub lock: LockArgs,
    #[command(flatten)]
    pub shared: SharedArgs,
}

/// Boot an image, and compile it first unless that was done before
///
/// The bundle is kept in the cache and made again when the image or the manifest has changed.
/// rootfs-boot then takes the place of this process; the options from "Machine" to "Diagnostics"
/// are its options.
#[derive(Args)]
#[command(after_help = "\
Examples:
  rootfs-compile run python:3.12-slim -- python3 -V
  rootfs-compile run --memory 2g --net -p 8080:80 nginx
  rootfs-compile run --pull always app.yaml
  rootfs-compile run -e DEBUG=1 -v ./src:/src:ro app.yaml -- sh -c 'ls /src'")]
pub(crate) struct Run {
    /// An image reference, a file or directory that holds an image, or a manifest (- reads one
    /// from standard input)
    #[arg(value_name = "IMAGE|MANIFEST|FILE", value_hint = ValueHint::AnyPath)]
    pub image: OsString,
    /// Command to run instead of the image's; the image's entrypoint stays
    #[arg(value_name = "COMMAND", trailing_var_arg = true)]
    pub command: Vec<OsString>,
    /// When to ask the registry which image a tag means
    #[arg(long, value_enum, default_value_t = PullPolicy::Missing)]
    pub pull: PullPolicy,
    #[command(flatten)]
    pub compile: CompileArgs,
    #[command(flatten)]
    pub machine: MachineArgs,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum PullPolicy {
    /// Only if the tag was not seen before, or its bundle is gone
    Missing,
    /// Each time
    Always,
    /// Never, even if there is nothing to boot then
    Never,
}

/// What all that compiles is told.
#[derive(Args)]
pub(crate) struct CompileArgs {
    /// Layers to compile at the same time [default: one for each core]
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub jobs: Option<u16>,
    /// Take the image for this platform, whatever the manifest says
    #[arg(long, value_name = "OS/ARCH[/VARIANT]", help_heading = "Image and manifest")]
    pub platform: Option<Platform>,
    /// Set a variable of the manifest; it wins over the manifest's own value
    #[arg(long, value_name = "NAME=VALUE", value_parser = pair, help_heading = "Image and manifest")]
    pub set: Vec<(String, String)>,
    /// Time of what patches create, in seconds since 1970 [default: when the image was created]
    #[arg(
        long,
        env = "SOURCE_DATE_EPOCH",
        value_name = "SECONDS",
        allow_negative_numbers = true,
        help_heading = "Image and manifest"
    )]
    pub source_date_epoch: Option<Epoch>,
    #[command(flatten)]
    pub cache: CacheDir,
    /// How to show progress
    #[arg(long, value_enum, default_value_t = Progress::Auto, help_heading = "Messages")]
    pub progress: Progress,
    /// Print nothing but errors
    #[arg(short, long, help_heading = "Messages")]
    pub quiet: bool,
    #[command(flatten)]
    pub registry: RegistryArgs,
    #[command(flatten)]
    pub limits: LimitArgs,
}

/// Compiled layers in a registry, for machines that build the same ones.
#[derive(Args)]
#[command(next_help_heading = "Cache in a registry")]
pub(crate) struct SharedArgs {
    /// Take compiled layers from this repository, and trust them
    #[arg(long, value_name = "[HOST/]NAME", value_parser = repository)]
    pub cache_from: Vec<Reference>,
    /// Send the compiled layers to this repository
    #[arg(long, value_name = "[HOST/]NAME", value_parser = repository)]
    pub cache_to: Vec<Reference>,
}

/// Which image a tag is.
#[derive(Args)]
#[command(next_help_heading = "Locks")]
pub(crate) struct LockArgs {
    /// Record which image the tag means, in NAME.lock beside the manifest; later builds use it
    #[arg(long)]
    pub lock: bool,
    /// Ask again which image the tag means, and record it
    #[arg(long, conflicts_with_all = ["locked", "offline"])]
    pub update: bool,
    /// Fail if the lock does not say which image the tag means
    #[arg(long)]
    pub locked: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Progress {
    /// Bars if standard error is a terminal, otherwise plain
    Auto,
    /// Bars
    Tty,
    /// A line for each layer
    Plain,
    /// A JSON object for each step
    Json,
    /// Nothing
    None,
}
