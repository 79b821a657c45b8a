//! How registries are reached.

use std::path::PathBuf;

use clap::Args;

use super::value::size;

/// How images of a registry are reached. Name and password are those of docker
/// login or podman login; ROOTFS_COMPILE_USERNAME and ROOTFS_COMPILE_PASSWORD win at
/// one registry, the image's own or the one that ROOTFS_COMPILE_REGISTRY names.
#[derive(Args)]
#[command(next_help_heading = "Registries")]
pub(crate) struct RegistryArgs {
    /// Use plain HTTP for this registry; one on this machine needs no option.
    /// ROOTFS_COMPILE_INSECURE_REGISTRIES may list more
    #[arg(long, value_name = "HOST[:PORT]")]
    pub insecure_registry: Vec<String>,
    /// Trust the certificates (PEM) in FILE, besides the system's
    #[arg(long, value_name = "FILE")]
    pub ca_cert: Vec<PathBuf>,
    /// Give up on a transfer slower than SIZE per second over two minutes; 0 never gives up
    /// [default: 1KiB]
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub min_rate: Option<u64>,
    /// Do not connect to anything; use what is cached
    #[arg(long)]
    pub offline: bool,
}
