//! Blocks whose newest content lies in the journal.

use rustc_hash::FxHashMap;

pub(super) const MAGIC: u32 = 0xc03b_3998;

/// Where the newest content of some blocks of the file system lies.
#[derive(Debug, Default)]
pub(super) struct Overlay(pub(super) FxHashMap<u64, Copy>);

#[derive(Clone, Copy, Debug)]
pub(super) struct Copy {
    /// The journal's block on the disk.
    pub(super) block: u64,
    /// Its first four bytes were the journal's magic number, and zeros stand there.
    pub(super) escaped: bool,
}

impl Overlay {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Replaces what `bytes`, which lie at offset `at` of the file, have of blocks
    /// that the journal holds. `read` fills bytes from an offset of the file.
    pub(super) fn apply(
        &self,
        block_size: u64,
        at: u64,
        bytes: &mut [u8],
        read: impl Fn(u64, &mut [u8]) -> std::io::Result<()>,
    ) -> std::io::Result<()> {
        let end = at + bytes.len() as u64;
        for block in at / block_size..end.div_ceil(block_size) {
            let Some(copy) = self.0.get(&block) else { continue };
            let start = block * block_size;
            let (from, to) = (start.max(at), (start + block_size).min(end));
            let part = &mut bytes[(from - at) as usize..(to - at) as usize];
            read(copy.block * block_size + (from - start), part)?;
            if copy.escaped {
                let magic = MAGIC.to_be_bytes();
                for (i, byte) in part.iter_mut().enumerate() {
                    if let Some(escaped) = magic.get((from - start) as usize + i) {
                        *byte = *escaped;
                    }
                }
            }
        }
        Ok(())
    }
}
