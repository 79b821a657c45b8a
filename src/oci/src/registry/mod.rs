//! Images in a registry: manifests and configs by digest, layers as streams.
//!
//! The rest of the crate reads an image in a registry like a layout with one entry, which is
//! what the reference names. Manifests and configs are kept on disk, so that an image whose
//! layers are cached can be built again without a connection.

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
