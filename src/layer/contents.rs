//! The contents of a layer's files, on blocks; equal ones once.

use std::collections::HashMap;
use std::io;

use anyhow::{Context as _, Result};

use super::stream::Stream;
use crate::sink::{FileSink, Sink as _};
use crate::units::{BLOCK_SIZE, BlockAddr, blocks_of};

/// Bytes of the largest file that is looked for. Larger ones are seldom there
/// twice, and would have to be held until it is known that they are not.
const MAX_EQUAL: u64 = 128 << 10;

/// Where contents go, and where they are.
pub struct Contents<'d> {
    pub data: &'d mut FileSink,
    /// The first content of each size and CRC-32C: 16 bytes for each. Both are the
    /// image's to choose, so the table has a secret of its own.
    known: HashMap<(u32, u32), BlockAddr>,
    scratch: Vec<u8>,
}

impl<'d> Contents<'d> {
    pub fn new(data: &'d mut FileSink) -> Self {
        Self { data, known: HashMap::new(), scratch: Vec::new() }
    }

    /// Puts the next `size` bytes of `stream` on blocks, unless they are there:
    /// the first of them, and how many.
    pub fn add(&mut self, stream: &mut Stream<'_>, size: u64) -> Result<(BlockAddr, u32)> {
        let start = self.next_block()?;
        if size == 0 || size > MAX_EQUAL {
            stream.copy(size, self.data)?;
            self.pad(start)?;
        } else {
            let bytes = stream.piece(size as usize, &mut self.scratch)?;
            let key = (size as u32, crc32c::crc32c(bytes));
            match self.known.get(&key) {
                // The sum only says where to look.
                Some(known) if self.data.holds(known.offset(), bytes)? => {
                    return Ok((*known, blocks_of(size) as u32));
                }
                Some(_) => {}
                None => {
                    self.known.insert(key, start);
                }
            }
            self.data.data(bytes)?;
            self.pad(start)?;
        }
        Ok((start, self.next_block()?.0 - start.0))
    }

    /// The block behind all contents, of which the last one is full.
    pub fn next_block(&self) -> Result<BlockAddr> {
        BlockAddr::from_offset(self.data.position()).context("the layer's data go past 4 TiB")
    }

    /// Fills the last block.
    fn pad(&mut self, start: BlockAddr) -> io::Result<()> {
        let len = self.data.position() - start.offset();
        self.data.zeros(len.next_multiple_of(BLOCK_SIZE) - len)
    }
}
