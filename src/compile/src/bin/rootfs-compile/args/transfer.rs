//! `push`, `pull` and `export`.

use std::path::PathBuf;

use clap::Args;
use oci::ImageRef;

use super::bundle::KeyArgs;
use super::cache::CacheDir;
use super::limits::ReadArgs;
use super::registry::RegistryArgs;
use super::value::tag;

/// Send a bundle to a registry
///
/// Layers that the registry already has are not sent again.
#[derive(Args)]
#[command(after_help = "\
Examples:
  rootfs-compile push app registry.example.com/app:1.0
  rootfs-compile push app registry.example.com/app:1.0 --provenance app.json")]
pub(crate) struct Push {
    /// Directory of the bundle
    pub dir: PathBuf,
    /// Name in the registry: [HOST[:PORT]/]NAME[:TAG]
    pub reference: ImageRef,
    /// Also send FILE, a statement that build --provenance wrote, as a referrer of the bundle
    #[arg(long, value_name = "FILE")]
    pub provenance: Option<PathBuf>,
    #[command(flatten)]
    pub cache: CacheDir,
    #[command(flatten)]
    pub registry: RegistryArgs,
    #[command(flatten)]
    pub read: ReadArgs,
}

/// Fetch a bundle from a registry, an OCI layout or an archive
#[derive(Args)]
#[command(after_help = "\
Examples:
  rootfs-compile pull registry.example.com/app:1.0 -o app
  rootfs-compile pull registry.example.com/app:1.0 -o app --force --key release.pub
  rootfs-compile pull oci-archive:app.tar -o copy")]
pub(crate) struct Pull {
    /// Where the bundle is: [HOST[:PORT]/]NAME[:TAG], oci:DIR[:TAG] or oci-archive:FILE[:TAG]
    pub reference: ImageRef,
    /// Directory for the bundle
    #[arg(short, long, value_name = "DIR")]
    pub output: PathBuf,
    /// Replace the bundle if DIR already has one
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

/// Write a bundle as an OCI layout, an OCI archive, a tar or one flat disk
///
/// `pull` reads layouts and archives again; --raw is for machines that cannot read the disk's
/// descriptor, bundle.vmdk.
#[derive(Args)]
#[group(skip)]
#[command(
    override_usage = "rootfs-compile export [OPTIONS] <DIR> --oci-layout|--oci-archive|--tar|--raw <TO>",
    after_help = "\
Examples:
  rootfs-compile export app --oci-archive app.tar --tag 1.0
  rootfs-compile export app --oci-layout layout
  rootfs-compile export app --raw app.img"
)]
pub(crate) struct Export {
    /// Directory of the bundle
    pub dir: PathBuf,
    #[command(flatten)]
    pub to: ExportTo,
    /// Name of the bundle in the layout or archive
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
    /// Write an OCI layout, or add the bundle to one that is there
    #[arg(long, value_name = "DIR")]
    pub oci_layout: Option<PathBuf>,
    /// Write an OCI layout as a tar
    #[arg(long, value_name = "FILE")]
    pub oci_archive: Option<PathBuf>,
    /// Write the bundle's directory as a tar, holes of sparse files kept
    #[arg(long, value_name = "FILE")]
    pub tar: Option<PathBuf>,
    /// Write the disk with the image's files as one flat file
    #[arg(long, value_name = "FILE")]
    pub raw: Option<PathBuf>,
}
