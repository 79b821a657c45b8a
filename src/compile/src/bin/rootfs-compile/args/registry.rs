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
    /// Speak plain HTTP to this registry; one on loopback needs no option.
    /// ROOTFS_COMPILE_INSECURE_REGISTRIES has more of them
    #[arg(long, value_name = "HOST[:PORT]")]
    pub insecure_registry: Vec<String>,
    /// Trust these certificates (PEM) besides the system's
    #[arg(long, value_name = "FILE")]
    pub ca_cert: Vec<PathBuf>,
    /// Give up what brings fewer bytes in each second of waiting, over two minutes; 0 waits for ever [default: 1KiB]
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub min_rate: Option<u64>,
    /// Connect to nothing: use what is cached
    #[arg(long)]
    pub offline: bool,
}
