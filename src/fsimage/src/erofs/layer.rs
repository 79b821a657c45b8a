//! A layer's own file system: `[superblock][file data][metadata]`.
//!
//! Data come first because they come first in a layer; the superblock names
//! where the metadata begin.

#![cfg_attr(doc, doc = "\n\n", doc = include_str!("../../../../docs/object.md"))]

use std::fs::File;
use std::io;

use super::disk::{COMPAT_MTIME, COMPAT_SB_CHKSUM, HEAD_SIZE, INCOMPAT_CHUNKED_FILE, SuperBlock};
use super::encode;
use super::error::PlanError;
use super::plan::{Form, Plan};
use crate::digest::{Blake3, DiffId, uuid_of};
use crate::io::sink::{FileSink, Sink};
use crate::tree::arena::Tree;
use crate::tree::extents::Extents;
use crate::tree::inode::InodeId;
use crate::units::{BLOCK_BITS, BLOCK_SIZE};

/// Must change whenever the same layer would become other bytes: cached objects of another version
/// are never used.
pub const FORMAT_VERSION: u32 = 4;

/// Why an object could not be written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// EROFS cannot hold the tree.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The file could not be written.
    #[error("writing it")]
    Io(#[from] io::Error),
}

/// A layer's object while its data arrive.
#[derive(Debug)]
pub struct ObjectWriter {
    sink: FileSink,
}

impl ObjectWriter {
    /// Begins an object in `file`, which is empty.
    ///
    /// # Errors
    /// When the zeros in the place of the superblock cannot be written.
    pub fn new(file: File) -> io::Result<Self> {
        let mut sink = FileSink::hashed(file);
        sink.zeros(HEAD_SIZE as u64)?;
        Ok(Self { sink })
    }

    /// Where the next byte of file data goes. Every file starts at a block's
    /// first byte; its writer pads it.
    pub fn data(&mut self) -> &mut FileSink {
        &mut self.sink
    }

    /// Writes the metadata of `tree` behind the data, and the superblock.
    /// Returns the file and its BLAKE3.
    ///
    /// # Errors
    /// When EROFS cannot hold `tree`, or the file cannot be written.
    pub fn finish(
        mut self,
        tree: &Tree<Extents>,
        diff_id: DiffId,
    ) -> Result<(File, Blake3), WriteError> {
        let plan = Plan::new(tree, Form::Object, self.sink.position())?;
        self.sink.cached()?;
        encode::metadata(&plan, &mut self.sink)?;
        let mut uuid = blake3::Hasher::new_derive_key("rootfs-compile layer object uuid");
        uuid.update(&FORMAT_VERSION.to_le_bytes()).update(diff_id.to_string().as_bytes());
        let mut superblock = superblock(&plan, &uuid.finalize());
        let mut head = [0; HEAD_SIZE];
        superblock.seal(&mut head);
        let (file, hash) = self.sink.finish(&head)?;
        Ok((file, hash.expect("the sink hashes")))
    }
}

/// The superblock of a single-device file system, its checksum still zero.
pub(super) fn superblock(plan: &Plan<'_>, uuid: &blake3::Hash) -> SuperBlock {
    let narrow = |offset: u64| (offset / BLOCK_SIZE) as u32;
    SuperBlock {
        checksum: 0,
        feature_compat: COMPAT_SB_CHKSUM | COMPAT_MTIME,
        blkszbits: BLOCK_BITS,
        // The root is the first inode, in the first block behind `meta_blkaddr`.
        root_nid: plan.nid(InodeId::ROOT).0 as u16,
        inos: plan.nodes.len() as u64,
        epoch: plan.epoch.sec as u64,
        fixed_nsec: plan.epoch.nsec,
        blocks: narrow(plan.end),
        meta_blkaddr: plan.meta_blkaddr,
        xattr_blkaddr: narrow(plan.shared_start),
        uuid: uuid_of(uuid.as_bytes()),
        feature_incompat: INCOMPAT_CHUNKED_FILE,
        extra_devices: 0,
        devt_slotoff: 0,
    }
}
