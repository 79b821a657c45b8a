//! Media types of OCI, of Docker before it, and of in-toto, as far as more than one file
//! deals with them.

/// An index of OCI.
pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// A manifest of OCI.
pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// The config of an artifact that has none: `{}`.
pub const EMPTY: &str = "application/vnd.oci.empty.v1+json";
/// What Docker has as an index.
pub(crate) const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
/// What Docker has as a manifest.
pub(crate) const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
/// A layer of Docker's that is not compressed.
pub(crate) const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar";
/// A statement of in-toto, and what an envelope says that it has one.
pub const IN_TOTO: &str = "application/vnd.in-toto+json";
