//! The merged image: metadata alone, whose file data lie on the layers.
//!
//! `[superblock][device table][metadata]`. The kernel finds a layer's blocks by
//! its slot: as a device of its own, or, when all are strung together in one
//! disk, behind `uniaddr`.

use std::fs::File;
use std::io;

use super::disk::{
    DEVICE_SLOT_SIZE, DeviceSlot, HEAD_SIZE, INCOMPAT_DEVICE_TABLE, SUPER_OFFSET, SUPER_SIZE,
};
use super::encode;
use super::error::PlanError;
use super::layer::{WriteError, superblock};
use super::plan::{Form, Plan};
use crate::digest::{Blake3, DiffId};
use crate::io::sink::{FileSink, Sink};
use crate::tree::arena::Tree;
use crate::tree::extents::Extents;
use crate::units::blocks_of;

/// A layer as a device of the image.
#[derive(Clone, Copy, Debug)]
pub struct LayerDevice {
    /// Digest of the layer's uncompressed tar, which becomes the tag of its slot.
    pub diff_id: DiffId,
    /// BLAKE3 of its object.
    pub blake3: Blake3,
    /// Bytes of its object, a multiple of the block size.
    pub size: u64,
}

/// An image, written but not yet synced.
#[derive(Debug)]
pub struct Written {
    /// The file that holds the image.
    pub file: File,
    /// BLAKE3 of the image.
    pub blake3: Blake3,
    /// How many inodes the image has.
    pub inodes: usize,
}

/// Writes the image `tree`, whose extents lie on `layers` (slot 1 first), into
/// `file`, which is empty.
///
/// # Errors
/// When there are more than 65535 layers, EROFS cannot hold `tree` or address all layers, or
/// `file` cannot be written.
pub fn write(
    tree: &Tree<Extents>,
    layers: &[LayerDevice],
    file: File,
) -> Result<Written, WriteError> {
    let extra_devices =
        u16::try_from(layers.len()).map_err(|_| PlanError::TooLarge("number of layers"))?;
    let table = (SUPER_OFFSET + SUPER_SIZE) as u64;
    let start = table + DEVICE_SLOT_SIZE * u64::from(extra_devices);
    let plan = Plan::new(tree, Form::Image, start)?;

    let mut uuid = blake3::Hasher::new_derive_key("rootfs-compile fsmeta uuid");
    for layer in layers {
        uuid.update(layer.blake3.as_bytes());
    }
    let mut superblock = superblock(&plan, &uuid.finalize());
    if extra_devices > 0 {
        superblock.feature_incompat |= INCOMPAT_DEVICE_TABLE;
        superblock.extra_devices = extra_devices;
        superblock.devt_slotoff = (table / DEVICE_SLOT_SIZE) as u16;
    }

    let mut sink = HeadKeeper { inner: FileSink::hashed(file), head: Vec::new() };
    // Where a machine begins to read.
    sink.inner.cached()?;
    sink.zeros(table)?;
    let mut uniaddr = blocks_of(plan.end);
    for layer in layers {
        let blocks = blocks_of(layer.size);
        let end = uniaddr + blocks;
        let narrow = |n: u64| u32::try_from(n).map_err(|_| PlanError::TooLarge("all layers"));
        let mut tag = [0; 64];
        tag.copy_from_slice(layer.diff_id.hex().as_bytes());
        let slot = DeviceSlot { tag, blocks: narrow(blocks)?, uniaddr: narrow(uniaddr)? };
        narrow(end)?;
        sink.data(&slot.encode())?;
        uniaddr = end;
    }
    encode::metadata(&plan, &mut sink)?;

    let HeadKeeper { inner, head } = sink;
    let mut head = head.try_into().expect("the metadata end behind the superblock's block");
    superblock.seal(&mut head);
    let (file, hash) = inner.finish(&head)?;
    let inodes = plan.nodes.len();
    Ok(Written { file, blake3: hash.expect("the sink hashes"), inodes })
}

/// Keeps a copy of the head: its checksum is known last.
struct HeadKeeper {
    inner: FileSink,
    head: Vec<u8>,
}

impl Sink for HeadKeeper {
    fn data(&mut self, bytes: &[u8]) -> io::Result<()> {
        let room = HEAD_SIZE - self.head.len();
        self.head.extend_from_slice(&bytes[..room.min(bytes.len())]);
        self.inner.data(bytes)
    }

    fn zeros(&mut self, len: u64) -> io::Result<()> {
        let room = (HEAD_SIZE - self.head.len()) as u64;
        self.head.resize(self.head.len() + room.min(len) as usize, 0);
        self.inner.zeros(len)
    }

    fn position(&self) -> u64 {
        self.inner.position()
    }
}
