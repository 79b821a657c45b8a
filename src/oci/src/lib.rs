//! Container images where they are, in registries, layouts, archives and a daemon: their
//! names, their platforms, what they consist of, and their blobs.
//!
//! Start with [`ImageRef`], a name, and [`Image::open`], what it leads to. All calls block until
//! they are done, and those that reach a registry drive a runtime of their own: from async code,
//! call them where blocking is allowed (tokio's `spawn_blocking`).
//!
//! ```
//! let image: oci::ImageRef = "python:3.12-slim".parse()?;
//! let name = image.registry_name().expect("it is in a registry");
//! assert_eq!(name.to_string(), "docker.io/library/python:3.12-slim");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Without the feature `images` there are only the platforms, and nothing that speaks to a
//! network.

#![warn(missing_debug_implementations, missing_docs, clippy::missing_errors_doc)]

#[cfg(feature = "images")]
pub mod artifact;
#[cfg(feature = "images")]
mod blob;
#[cfg(feature = "images")]
mod compression;
#[cfg(feature = "images")]
mod config;
#[cfg(feature = "images")]
mod daemon;
#[cfg(feature = "images")]
mod distribution;
#[cfg(feature = "images")]
mod docker;
#[cfg(feature = "images")]
mod document;
#[cfg(feature = "images")]
pub mod foreign_json;
#[cfg(feature = "images")]
mod form;
#[cfg(feature = "images")]
mod image;
#[cfg(feature = "images")]
mod json;
#[cfg(feature = "images")]
mod layer;
#[cfg(feature = "images")]
mod layout;
#[cfg(feature = "images")]
pub mod layout_file;
#[cfg(feature = "images")]
pub mod media_type;
#[cfg(feature = "images")]
mod members;
#[cfg(feature = "images")]
mod names;
#[cfg(feature = "images")]
mod not_there;
#[cfg(feature = "images")]
mod open;
#[cfg(feature = "images")]
mod pace;
mod platform;
#[cfg(feature = "images")]
mod reference;
#[cfg(feature = "images")]
pub mod registry;
#[cfg(feature = "images")]
mod select;
#[cfg(feature = "images")]
mod signed;
#[cfg(feature = "images")]
mod skopeo;
#[cfg(feature = "images")]
mod store;
#[cfg(feature = "images")]
mod tls;

#[cfg(feature = "images")]
pub use self::compression::{Compression, Spool};
#[cfg(feature = "images")]
pub use self::daemon::image_id as daemon_image_id;
#[cfg(feature = "images")]
pub use self::distribution::{BadName, Reference, check_tag};
#[cfg(feature = "images")]
pub use self::document::Descriptor;
#[cfg(feature = "images")]
pub use self::image::Image;
#[cfg(feature = "images")]
pub use self::layer::Layer;
#[cfg(feature = "images")]
pub use self::names::REF_NAME;
#[cfg(feature = "images")]
pub use self::not_there::NotThere;
pub use self::platform::{BadPlatform, Platform};
#[cfg(feature = "images")]
pub use self::reference::{BadReference, FileForm, ImageFiles, ImageRef};
#[cfg(feature = "images")]
pub use self::registry::{Access, Credentials, Repository};
#[cfg(feature = "images")]
pub use self::signed::ImageKey;
#[cfg(feature = "images")]
pub use self::store::MAX_DOCUMENT;
