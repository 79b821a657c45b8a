//! A bundle as an OCI artifact: what registries and layouts keep.
//!
//! The config is `bundle.json` itself; each file is a blob of its own, so that
//! bundles that share layers share their blobs. What a file holds is told by
//! `bundle.json`, what its blob holds by the manifest.

#![cfg_attr(doc, doc = "\n\n", doc = include_str!("../../../../docs/artifact.md"))]

pub(super) mod media_type;
pub(super) mod pack;
pub mod sparse;
pub(super) mod unpack;

pub use self::media_type::{
    ARTIFACT_TYPE, FILE_TYPE, INDEX_TYPE, SIGNATURE_TYPE, SPARSE_TYPE, TITLE,
};
pub use self::pack::{Blob, Packed, file_blob, json_blob, pack};
pub use self::unpack::{ArtifactFile, largest_blob, unpack};
