//! Little-endian numbers at offsets of a record on a disk.

/// A record, at least as long as the fields that are asked for.
#[derive(Clone, Copy)]
pub(crate) struct Fields<'a>(pub &'a [u8]);

impl Fields<'_> {
    pub(crate) fn u8(self, at: usize) -> u8 {
        self.0[at]
    }

    pub(crate) fn u16(self, at: usize) -> u16 {
        u16::from_le_bytes([self.0[at], self.0[at + 1]])
    }

    pub(crate) fn u32(self, at: usize) -> u32 {
        u32::from(self.u16(at)) | u32::from(self.u16(at + 2)) << 16
    }

    /// The number whose low half is at `low`, and its high half at `high`.
    pub(crate) fn u64(self, low: usize, high: usize) -> u64 {
        u64::from(self.u32(low)) | u64::from(self.u32(high)) << 32
    }
}

/// A record that is being written, with room for the fields that are set.
pub(crate) struct FieldsMut<'a>(pub &'a mut [u8]);

impl FieldsMut<'_> {
    pub(crate) fn u8(&mut self, at: usize, value: u8) {
        self.0[at] = value;
    }

    pub(crate) fn u16(&mut self, at: usize, value: u16) {
        self.bytes(at, &value.to_le_bytes());
    }

    pub(crate) fn u32(&mut self, at: usize, value: u32) {
        self.bytes(at, &value.to_le_bytes());
    }

    pub(crate) fn bytes(&mut self, at: usize, value: &[u8]) {
        self.0[at..at + value.len()].copy_from_slice(value);
    }
}
