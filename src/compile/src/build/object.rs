//! Compiled layers, and reading their objects.

use std::fs::File;
use std::sync::Arc;

use anyhow::Result;
use fsimage::digest::Blake3;
use fsimage::erofs::plan::Form;
use fsimage::erofs::read::Reader;
use fsimage::io::mmap;
use fsimage::tree::Tree;
use fsimage::tree::extents::Extents;

use crate::cache::store::Object;
use crate::layer::limits::Budgets;

/// A compiled layer.
pub(super) struct Ready {
    pub tree: Tree<Extents>,
    /// The file of its object.
    pub file: Arc<File>,
    /// BLAKE3 of the object.
    pub blake3: Blake3,
    /// Bytes of the object.
    pub size: u64,
    /// Bytes of the layer's tar stream.
    pub uncompressed: u64,
    /// Whether it was not compiled by this build.
    pub cached: bool,
}

/// Reads the tree of `object`, which may take at most `most` bytes of the budget for metadata.
/// If that fails, the budget gets its bytes back, for the layer that is compiled instead.
pub(super) fn read_object(object: &Object, budgets: &Budgets, most: u64) -> Result<Tree<Extents>> {
    let bytes = mmap::file(&object.file)?;
    let reader = Reader::new(&bytes)?;
    Ok(budgets.metadata.attempt(most, |part| reader.tree(Form::Object, part))?)
}
