//! `push`, `pull` and `export`.

use std::path::PathBuf;

use clap::Args;
use oci::ImageRef;

use super::bundle::KeyArgs;
use super::cache::CacheDir;
use super::limits::ReadArgs;
use super::registry::RegistryArgs;
use super::value::tag;

#[derive(Args)]
pub(crate) struct Push {
    /// The bundle's directory
    pub dir: PathBuf,
    /// [HOST[:PORT]/]NAME[:TAG]
    pub reference: ImageRef,
    /// Send a statement of what the bundle was made of, too, as its referrer
    #[arg(long, value_name = "FILE")]
    pub provenance: Option<PathBuf>,
    #[command(flatten)]
    pub cache: CacheDir,
    #[command(flatten)]
    pub registry: RegistryArgs,
    #[command(flatten)]
    pub read: ReadArgs,
}

#[derive(Args)]
pub(crate) struct Pull {
    /// [HOST[:PORT]/]NAME[:TAG], oci:DIR[:TAG] or oci-archive:FILE[:TAG]
    pub reference: ImageRef,
    /// The bundle's directory
    #[arg(short, long, value_name = "DIR")]
    pub output: PathBuf,
    /// Replace a bundle that is there
    #[arg(long)]
    pub force: bool,
    #[command(flatten)]
    pub key: KeyArgs,
    #[command(flatten)]
    pub cache: CacheDir,
    #[command(flatten)]
    pub registry: RegistryArgs,
    #[command(flatten)]
    pub read: ReadArgs,
}

#[derive(Args)]
#[group(skip)]
pub(crate) struct Export {
    /// The bundle's directory
    pub dir: PathBuf,
    #[command(flatten)]
    pub to: ExportTo,
    /// The name it gets there
    #[arg(long, default_value = "latest", value_parser = tag, conflicts_with_all = ["raw", "tar"])]
    pub tag: String,
    #[command(flatten)]
    pub cache: CacheDir,
    #[command(flatten)]
    pub read: ReadArgs,
}

#[derive(Args)]
#[group(required = true, multiple = false)]
pub(crate) struct ExportTo {
    /// An OCI layout, which may be there already
    #[arg(long, value_name = "DIR")]
    pub oci_layout: Option<PathBuf>,
    /// An OCI layout in a tar
    #[arg(long, value_name = "FILE")]
    pub oci_archive: Option<PathBuf>,
    /// The bundle's directory as a tar; its upper keeps its holes
    #[arg(long, value_name = "FILE")]
    pub tar: Option<PathBuf>,
    /// The disk alone, for machines that read no descriptor
    #[arg(long, value_name = "FILE")]
    pub raw: Option<PathBuf>,
}
