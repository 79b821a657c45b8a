//! `build` and `run`.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use oci::Platform;
use oci_spec::distribution::Reference;

use super::cache::CacheDir;
use super::limits::LimitArgs;
use super::registry::RegistryArgs;
use super::value::{Epoch, pair, repository};
use crate::machine::MachineArgs;

#[derive(Args)]
pub(crate) struct Build {
    /// An image reference, an image's archive or layout, or a manifest (YAML; - for
    /// standard input)
    #[arg(value_name = "IMAGE|MANIFEST|FILE")]
    pub image: OsString,
    /// The bundle's directory
    #[arg(short, long, value_name = "DIR", required_unless_present = "dry_run")]
    pub output: Option<PathBuf>,
    /// Make no bundle: list what each patch would make (+), change (~) and remove (-)
    #[arg(long)]
    pub dry_run: bool,
    /// Print that list as JSON
    #[arg(long, requires = "dry_run")]
    pub json: bool,
    /// Replace a bundle that is there
    #[arg(long)]
    pub force: bool,
    /// Write down what the bundle was made of: a statement of in-toto (SLSA provenance)
    #[arg(long, value_name = "FILE", conflicts_with = "dry_run")]
    pub provenance: Option<PathBuf>,
    /// Say more
    #[arg(short, long, conflicts_with = "quiet")]
    pub verbose: bool,
    #[command(flatten)]
    pub compile: CompileArgs,
    #[command(flatten)]
    pub lock: LockArgs,
    #[command(flatten)]
    pub shared: SharedArgs,
}

#[derive(Args)]
pub(crate) struct Run {
    /// An image reference, an image's archive or layout, or a manifest (YAML; - for
    /// standard input)
    #[arg(value_name = "IMAGE|MANIFEST|FILE")]
    pub image: OsString,
    /// In place of the image's command; its entrypoint stays
    #[arg(value_name = "COMMAND", trailing_var_arg = true)]
    pub command: Vec<OsString>,
    /// When to ask a registry for an image whose tag was seen before
    #[arg(long, value_enum, default_value_t = PullPolicy::Missing)]
    pub pull: PullPolicy,
    #[command(flatten)]
    pub compile: CompileArgs,
    #[command(flatten)]
    pub machine: MachineArgs,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum PullPolicy {
    /// Never, as long as what it led to is still there
    Missing,
    /// Each time
    Always,
    /// Not even for an image that is not there
    Never,
}

/// What all that compiles is told.
#[derive(Args)]
pub(crate) struct CompileArgs {
    /// Define a variable of the manifest; wins over its own vars
    #[arg(long, value_name = "NAME=VALUE", value_parser = pair)]
    pub set: Vec<(String, String)>,
    /// Seconds since 1970: the time of what patches make [default: when the image was made]
    #[arg(long, env = "SOURCE_DATE_EPOCH", value_name = "SECONDS", allow_negative_numbers = true)]
    pub source_date_epoch: Option<Epoch>,
    /// Take the image for this platform, whatever the manifest says
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    pub platform: Option<Platform>,
    /// Layers compiled at once [default: one for each core]
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub jobs: Option<u16>,
    #[command(flatten)]
    pub cache: CacheDir,
    /// How progress is shown
    #[arg(long, value_enum, default_value_t = Progress::Auto)]
    pub progress: Progress,
    /// Say nothing but errors
    #[arg(short, long)]
    pub quiet: bool,
    #[command(flatten)]
    pub registry: RegistryArgs,
    #[command(flatten)]
    pub limits: LimitArgs,
}

/// Compiled layers in a registry, for machines that build the same ones.
#[derive(Args)]
#[command(next_help_heading = "Shared layers")]
pub(crate) struct SharedArgs {
    /// Take compiled layers from this repository, and trust them
    #[arg(long, value_name = "[HOST/]NAME", value_parser = repository)]
    pub cache_from: Vec<Reference>,
    /// Put the compiled layers into this repository
    #[arg(long, value_name = "[HOST/]NAME", value_parser = repository)]
    pub cache_to: Vec<Reference>,
}

/// Which image a tag is.
#[derive(Args)]
#[command(next_help_heading = "Locks")]
pub(crate) struct LockArgs {
    /// Write down which image a tag led to, in NAME.lock beside the manifest; builds use it from then on
    #[arg(long)]
    pub lock: bool,
    /// Ask again which image the tag leads to, and write it down
    #[arg(long, conflicts_with_all = ["locked", "offline"])]
    pub update: bool,
    /// Fail where the lock does not say which image it is
    #[arg(long)]
    pub locked: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Progress {
    /// Bars on a terminal, else plain
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
