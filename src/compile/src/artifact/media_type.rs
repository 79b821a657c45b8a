//! Media types and annotations of the artifact.

/// What the artifact is.
pub const ARTIFACT_TYPE: &str = "application/vnd.rootfs-compile.bundle.v1";
/// `bundle.json`.
pub const INDEX_TYPE: &str = "application/vnd.rootfs-compile.bundle.index.v1+json";
/// A file, compressed.
pub const FILE_TYPE: &str = "application/vnd.rootfs-compile.bundle.file.v1+zstd";
/// A file that is mostly holes, as [`sparse`](crate::artifact::sparse) writes it, compressed.
pub const SPARSE_TYPE: &str = "application/vnd.rootfs-compile.bundle.sparse.v1+zstd";
/// `bundle.json.minisig`, as it is.
pub const SIGNATURE_TYPE: &str = "application/vnd.rootfs-compile.bundle.signature.v1+minisig";
/// The annotation with a file's path.
pub const TITLE: &str = "org.opencontainers.image.title";
