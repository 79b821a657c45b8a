//! Images in a registry: manifests and configs by digest, layers as streams.
//!
//! To whoever reads it, a registry is a layout with blobs and one entry, which is
//! what the reference names. What was read of an image, its layers
//! apart, is kept on disk, so that it can be built again without a connection.

pub(super) mod access;
mod blob;
mod client;
mod credentials;
mod documents;
mod failure;
mod login;
mod plain;
mod push;
mod runtime;
pub(super) mod store;

pub use self::access::{Access, Credentials};
pub use self::documents::Documents;
pub use self::push::Repository;
pub use self::store::RegistryStore;
