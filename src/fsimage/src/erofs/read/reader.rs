//! An open EROFS image: its superblock and its device table, checked.

use std::fmt;

use crate::erofs::disk::{
    self, BadSuperBlock, DEVICE_SLOT_SIZE, DeviceSlot, HEAD_SIZE, INCOMPAT_DEVICE_TABLE,
    SUPER_OFFSET, SUPER_SIZE, SuperBlock,
};
use crate::erofs::read::error::{ReadError, Result};
use crate::units::BLOCK_SIZE;

/// An EROFS whose superblock and device table are sound.
pub struct Reader<'d> {
    /// The primary device.
    pub(super) data: &'d [u8],
    pub(super) superblock: SuperBlock,
    pub(super) devices: Vec<DeviceSlot>,
}

/// Without the bytes of the device.
impl fmt::Debug for Reader<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reader").field("superblock", &self.superblock).finish_non_exhaustive()
    }
}

impl<'d> Reader<'d> {
    /// Checks the superblock, its checksum, and the device table.
    ///
    /// # Errors
    /// When `data` is not as long as the superblock says, the superblock has a wrong checksum
    /// or none, or the device table is out of bounds or has gaps.
    pub fn new(data: &'d [u8]) -> Result<Self> {
        let fail = |what| ReadError::SuperBlock(BadSuperBlock(what));
        let head: &[u8; HEAD_SIZE] =
            data.first_chunk().ok_or_else(|| fail(format!("the file has {} bytes", data.len())))?;
        let bytes: &[u8; SUPER_SIZE] =
            head[SUPER_OFFSET..].first_chunk().expect("a block holds a superblock");
        let superblock = SuperBlock::decode(bytes)?;
        let checksum = SuperBlock::checksum_of(head);
        if superblock.feature_compat & disk::COMPAT_SB_CHKSUM == 0 {
            return Err(fail("there is no checksum".into()));
        }
        if superblock.checksum != checksum {
            let told = superblock.checksum;
            return Err(fail(format!("checksum is {checksum:#010x}, but {told:#010x} is written")));
        }
        let len = u64::from(superblock.blocks) * BLOCK_SIZE;
        if len != data.len() as u64 {
            return Err(fail(format!("{len} bytes of blocks in a file of {}", data.len())));
        }
        if superblock.fixed_nsec >= 1_000_000_000 {
            return Err(fail(format!("{} nanoseconds", superblock.fixed_nsec)));
        }
        let devices = device_table(data, &superblock)?;
        Ok(Self { data, superblock, devices })
    }

    /// The superblock of the primary device, as it was read.
    pub fn superblock(&self) -> &SuperBlock {
        &self.superblock
    }

    /// Slot 1 first.
    pub fn devices(&self) -> &[DeviceSlot] {
        &self.devices
    }

    /// Bytes `[at, at + len)` of the primary device.
    pub(super) fn bytes(&self, at: u64, len: u64) -> Option<&'d [u8]> {
        let start = usize::try_from(at).ok()?;
        let end = usize::try_from(at.checked_add(len)?).ok()?;
        self.data.get(start..end)
    }
}

fn device_table(data: &[u8], superblock: &SuperBlock) -> Result<Vec<DeviceSlot>, BadSuperBlock> {
    let bad = |what: &str| BadSuperBlock(what.to_owned());
    let count = u64::from(superblock.extra_devices);
    if (superblock.feature_incompat & INCOMPAT_DEVICE_TABLE != 0) != (count > 0) {
        let what = format!("{count} devices, and the device table's bit says otherwise");
        return Err(BadSuperBlock(what));
    }
    let at = u64::from(superblock.devt_slotoff) * DEVICE_SLOT_SIZE;
    let end = at + count * DEVICE_SLOT_SIZE;
    let table = usize::try_from(at).ok().zip(usize::try_from(end).ok());
    let table = table
        .and_then(|(at, end)| data.get(at..end))
        .ok_or_else(|| bad("device table past the end"))?;
    let mut uniaddr = superblock.blocks;
    let mut devices = Vec::new();
    for (i, slot) in table.as_chunks().0.iter().enumerate() {
        let slot = DeviceSlot::decode(slot);
        if slot.uniaddr != uniaddr {
            let what = format!("device {} begins at {}, not {uniaddr}", i + 1, slot.uniaddr);
            return Err(BadSuperBlock(what));
        }
        uniaddr =
            uniaddr.checked_add(slot.blocks).ok_or_else(|| bad("devices past 2^32 blocks"))?;
        devices.push(slot);
    }
    Ok(devices)
}
