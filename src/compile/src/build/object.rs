//! A layer that is ready, and its object read back.

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

/// A layer that is compiled.
pub(super) struct Ready {
    pub tree: Tree<Extents>,
    /// Its object.
    pub file: Arc<File>,
    pub blake3: Blake3,
    pub size: u64,
    pub uncompressed: u64,
    pub cached: bool,
}

/// The tree of `object`, which may take `most` bytes of the metadata's budget. One that
/// cannot be read takes none of it from the layer that is compiled in its place.
pub(super) fn read_object(object: &Object, budgets: &Budgets, most: u64) -> Result<Tree<Extents>> {
    let bytes = mmap::file(&object.file)?;
    let reader = Reader::new(&bytes)?;
    Ok(budgets.metadata.attempt(most, |part| reader.tree(Form::Object, part))?)
}
