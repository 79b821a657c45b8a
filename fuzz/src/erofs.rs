//! EROFS images that somebody else made.

use fsimage::budget::Budget;
use fsimage::digest::Digest;
use fsimage::erofs::disk::{HEAD_SIZE, SUPER_OFFSET, SUPER_SIZE, SuperBlock};
use fsimage::erofs::fsmeta::{self, LayerDevice};
use fsimage::erofs::plan::Form;
use fsimage::erofs::read::Reader;
use fsimage::tree::merge::on_device;
use fsimage::units::{BLOCK_SIZE, DeviceId};

use super::memory;
use super::shape::{assert_addresses, shape};

/// Bytes of memory that a tree may take.
const MEMORY: u64 = 32 << 20;

/// Any bytes as an image, once its size and its checksum are right: a tree that is read from
/// it lies within the image, and the writer takes it and the reader reads it again.
pub fn erofs(input: &[u8]) {
    let mut image = input.to_vec();
    image.resize(image.len().next_multiple_of(BLOCK_SIZE as usize).max(2 * HEAD_SIZE), 0);
    if !seal(&mut image) {
        return;
    }
    let Ok(reader) = Reader::new(&image) else {
        return;
    };
    let own = image.len() as u64 / BLOCK_SIZE;
    let others = reader.devices().iter().map(|device| u64::from(device.blocks));
    let blocks: Vec<u64> = std::iter::once(own).chain(others).collect();
    for form in [Form::Image, Form::Object] {
        let budget = Budget::new(MEMORY);
        let Ok(tree) = reader.tree(form, &budget) else { continue };
        assert!(budget.used() <= MEMORY);
        assert_addresses(&tree, &blocks);
        if form == Form::Object || !reader.devices().is_empty() {
            continue;
        }
        let tree = on_device(tree, DeviceId(1));
        let (diff_id, blake3) = (Digest::of(b"").into(), blake3::hash(b"").into());
        let device = LayerDevice { diff_id, blake3, size: image.len() as u64 };
        // The writer has limits of its own: names of xattrs, say.
        let Ok(written) = fsmeta::write(&tree, &[device], memory::file()) else { continue };
        let bytes = memory::bytes(&written.file);
        let again = Reader::new(&bytes).expect("what was written can be read");
        let again = again.tree(form, &Budget::new(2 * MEMORY)).expect("and its tree");
        assert_eq!(shape(&again), shape(&tree));
    }
}

/// Corrects what would end nearly every try: the number of blocks, and the checksum.
fn seal(image: &mut [u8]) -> bool {
    let blocks = (image.len() as u64 / BLOCK_SIZE) as u32;
    let Some(head) = image.first_chunk_mut::<HEAD_SIZE>() else {
        return false;
    };
    let bytes: &[u8; SUPER_SIZE] = head[SUPER_OFFSET..].first_chunk().expect("a head holds one");
    let Ok(superblock) = SuperBlock::decode(bytes) else {
        return false;
    };
    SuperBlock { blocks, ..superblock }.seal(head);
    true
}
