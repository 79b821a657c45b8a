//! Media types of OCI, of Docker before it, and of in-toto, as far as more than one file
//! deals with them.

/// An index of OCI.
pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// A manifest of OCI.
pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// The config of an artifact that has none: `{}`.
pub const EMPTY: &str = "application/vnd.oci.empty.v1+json";
/// Docker's form of an index, a manifest list.
pub(crate) const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
/// Docker's form of a manifest.
pub(crate) const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
/// Docker's form of a layer that is not compressed.
pub(crate) const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar";
/// A statement of in-toto; also the payload type of a DSSE envelope that holds one.
pub const IN_TOTO: &str = "application/vnd.in-toto+json";
