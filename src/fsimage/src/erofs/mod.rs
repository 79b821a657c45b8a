//! EROFS: the file system of layers and of the merged metadata.
//!
//! [`plan`] fixes every address, `encode` writes them; [`read`] reads what
//! anyone wrote.

pub mod disk;

mod dirent;
mod encode;
mod error;
pub mod fsmeta;
pub mod layer;
pub mod plan;
pub mod read;
mod xattr;

pub use self::error::PlanError;
pub use crate::xattr::prefix::split_name as split_xattr_name;
