//! A tar becomes an object.

use std::fs::File;

use fsimage::digest::{Blake3, Digest};
use fsimage::erofs::plan::Form;
use fsimage::erofs::read::Reader;
use fsimage::tree::Tree;
use fsimage::tree::extents::Extents;
use fsimage::units::BLOCK_SIZE;
use rootfs_compile::layer::{self, Budgets, Compiled, Limits};

use super::memory;
use super::shape::{assert_addresses, shape};

/// Limits that an input of a fuzzer can reach.
pub(crate) fn limits() -> Limits {
    Limits {
        layer_bytes: 64 << 20,
        sparse_bytes: 4 << 20,
        metadata_bytes: 32 << 20,
        expansion_bytes: 8 << 20,
        steps: 1 << 20,
        ..Limits::default()
    }
}

/// Compiles `blob`; nothing if it is refused.
pub(crate) fn compile(blob: &[u8], limits: &Limits, budgets: &Budgets) -> Option<Compiled> {
    let file = memory::file();
    let diff_id = Digest::of(b"").into();
    let outcome = layer::compile(blob, diff_id, file, limits, budgets, &|_| {});
    let whole = outcome.checked(|digest, size| {
        assert_eq!(size, blob.len() as u64, "not all was read");
        assert_eq!(digest, Digest::of(blob));
        Ok(())
    });
    whole.ok()
}

/// The tree of an object, as a build reads it out of the cache.
pub(crate) fn read(object: &File, limits: &Limits) -> Tree<Extents> {
    let bytes = memory::bytes(object);
    let reader = Reader::new(&bytes).expect("what was written can be read");
    let tree = reader.tree(Form::Object, &Budgets::new(limits).metadata);
    tree.expect("what was written can be read, within the writer's own budget")
}

/// Any bytes as the blob of a layer: if they become an object, then its reader gets the tree
/// that its writer had, and all of its files lie within it.
pub fn layer(input: &[u8]) {
    let limits = limits();
    let Some(compiled) = compile(input, &limits, &Budgets::new(&limits)) else {
        return;
    };
    if compiled.uncompressed == input.len() as u64 && !is_compressed(input) {
        assert_eq!(compiled.diff_id.hex(), Digest::of(input).hex());
    }
    let object = memory::bytes(&compiled.file);
    assert_eq!(Blake3::of(&object), compiled.blake3);
    let tree = read(&compiled.file, &limits);
    assert_eq!(shape(&tree), shape(&compiled.tree));
    assert_addresses(&tree, &[object.len() as u64 / BLOCK_SIZE]);
}

fn is_compressed(blob: &[u8]) -> bool {
    blob.starts_with(b"\x1f\x8b")
        || blob.starts_with(b"\x28\xb5\x2f\xfd")
        || blob.starts_with(b"\x50\x2a\x4d\x18")
}
