//! The manifest: what a user asks for.

mod document;
mod error;
mod load;
pub(super) mod lock;
mod marks;
mod schema;
mod step;
#[cfg(test)]
mod tests;
pub(super) mod types;
mod vars;
mod written;

pub use self::error::ManifestError;
pub use self::lock::{Lock, LockUse};
pub use self::schema::{manifest_schema, patches_schema};
pub use self::types::Manifest;
pub use self::written::{Upper, VerifyImage};
