//! What was typed.

mod bundle;
mod cache;
mod compile;
mod limits;
mod registry;
mod schema;
mod transfer;
mod value;

use clap::{Parser, Subcommand};

pub(crate) use self::bundle::{Inspect, KeyArgs, Keygen, Sign, Verify};
pub(crate) use self::cache::{Cache, CacheDir, CacheVerify};
pub(crate) use self::compile::{Build, CompileArgs, LockArgs, Progress, PullPolicy, Run};
pub(crate) use self::registry::RegistryArgs;
pub(crate) use self::schema::{Schema, SchemaOf};
pub(crate) use self::transfer::{Export, Pull, Push};

/// Compiles container images to bundles that a virtual machine boots.
#[derive(Parser)]
#[command(name = "rootfs-compile", version, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Compile an image, or what a manifest makes of one, to a bundle
    Build(Box<Build>),
    /// Compile an image unless that is done, and become the process inside
    Run(Box<Run>),
    /// Show what a bundle holds
    Inspect(Inspect),
    /// Check a bundle: every hash, block, inode and entry
    Verify(Verify),
    /// Make a pair of keys to sign bundles with: FILE, which is secret, and FILE.pub
    Keygen(Keygen),
    /// Sign a bundle, all of whose files are checked before
    Sign(Sign),
    /// Send a bundle to a registry; what the registry has is not sent
    Push(Push),
    /// Bring a bundle from a registry, a layout or an archive
    #[command(visible_alias = "import")]
    Pull(Pull),
    /// Write a bundle as an OCI layout or archive, or its disk as one flat file
    Export(Export),
    /// Look after the cache of compiled layers
    #[command(subcommand)]
    Cache(Cache),
    /// Print the JSON Schema of manifests, for editors that complete and check
    Schema(Schema),
}
