//! The manifest: what a user asks for.

mod capability;
pub(super) mod check;
mod document;
mod error;
mod load;
pub(super) mod lock;
mod marks;
pub(super) mod mode;
pub(super) mod owner;
pub mod patch;
mod place;
mod schema;
mod step;
#[cfg(test)]
mod tests;
pub(super) mod types;
mod vars;
mod written;
pub(super) mod xattr;

pub use self::check::regex;
pub use self::error::ManifestError;
pub use self::lock::{Lock, LockUse};
pub use self::mode::{BadMode, Mode};
pub use self::owner::{BadOwner, Group, Id, Owner};
pub use self::place::Place;
pub use self::schema::{manifest_schema, patches_schema};
pub use self::types::{Manifest, Patch};
pub use self::written::{Upper, VerifyImage};
pub use self::xattr::{BadXattr, xattr_value};
