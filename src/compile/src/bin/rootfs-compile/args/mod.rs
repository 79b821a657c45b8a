//! What was typed.

mod bundle;
mod cache;
mod compile;
mod documents;
mod limits;
mod registry;
#[cfg(test)]
mod tests;
mod transfer;
mod value;

use clap::{Parser, Subcommand};

pub(crate) use self::bundle::{Inspect, KeyArgs, Keygen, Sign, Verify};
pub(crate) use self::cache::{Cache, CacheDir, CacheVerify};
pub(crate) use self::compile::{Build, CompileArgs, LockArgs, Progress, PullPolicy, Run};
pub(crate) use self::documents::{Generate, Schema, SchemaOf};
pub(crate) use self::registry::RegistryArgs;
pub(crate) use self::transfer::{Export, Pull, Push};

/// Compiles container images to bundles that a virtual machine boots
///
/// A bundle is a directory of disk images: EROFS with the files of the image, and ext4 for what
/// the machine writes. A manifest (YAML) says what should be different from the image. Each
/// layer is compiled once and kept in a cache, which all later builds use.
///
/// Exit codes: 0 done; 1 failed, or a bundle is not sound; 2 the command line or the manifest
/// is wrong. `run` has those of the command inside, and 125 if there was no machine.
#[derive(Parser)]
#[command(
    name = "rootfs-compile",
    version,
    max_term_width = 100,
    after_help = "\
Examples:
  rootfs-compile run python:3.12-slim -- python3 -V
  rootfs-compile build python:3.12-slim -o python
  rootfs-boot python -- python3 -V

rootfs-compile COMMAND --help has examples of each command."
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Subcommand)]
pub(crate) enum Command {
    Build(Box<Build>),
    Run(Box<Run>),
    Inspect(Inspect),
    Verify(Verify),
    Keygen(Keygen),
    Sign(Sign),
    Push(Push),
    #[command(visible_alias = "import")]
    Pull(Pull),
    Export(Export),
    #[command(subcommand)]
    Cache(Cache),
    Schema(Schema),
    // For packages, which do it once.
    #[command(hide = true)]
    Generate(Generate),
}
