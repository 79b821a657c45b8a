//! The contents of a layer's files, on blocks; equal ones once.

use std::collections::hash_map::{Entry, RandomState};
use std::hash::BuildHasher as _;
use std::io;

use anyhow::{Context as _, Result};
use polyval::Polyval;
use polyval::universal_hash::UniversalHash as _;
use rustc_hash::FxHashMap;

use super::stream::Stream;
use crate::sink::{FileSink, Sink as _};
use crate::units::{BLOCK_SIZE, BlockAddr, blocks_of};

/// Bytes of the largest file that is looked for. Larger ones are seldom there
/// twice, and would have to be held until it is known that they are not.
const MAX_EQUAL: u64 = 128 << 10;

/// Where contents go, and where they are.
pub struct Contents<'d> {
    pub data: &'d mut FileSink,
    /// Where each content is, by its [`sum`]: 24 bytes for each.
    known: FxHashMap<[u64; 2], BlockAddr>,
    key: Polyval,
    scratch: Vec<u8>,
}

impl<'d> Contents<'d> {
    pub fn new(data: &'d mut FileSink) -> Self {
        let mut secret = polyval::Key::default();
        for half in secret.chunks_exact_mut(8) {
            half.copy_from_slice(&RandomState::new().hash_one(()).to_le_bytes());
        }
        let (known, key) = (FxHashMap::default(), Polyval::new(&secret));
        Self { data, known, key, scratch: Vec::new() }
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
            match self.known.entry(sum(&self.key, bytes)) {
                Entry::Occupied(known) => return Ok((*known.get(), blocks_of(size) as u32)),
                Entry::Vacant(unknown) => unknown.insert(start),
            };
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

/// A sum that two contents share only if they are equal: whoever chooses them does
/// not know the key, so that two others share it with a chance of 2⁻¹¹⁴. (For any
/// two of n blocks, n in 2¹²⁸ keys of a polynomial of degree n do.)
fn sum(key: &Polyval, bytes: &[u8]) -> [u64; 2] {
    let mut sum = key.clone();
    sum.update_padded(bytes);
    let mut len = polyval::Block::default();
    len[..8].copy_from_slice(&(bytes.len() as u64).to_le_bytes());
    sum.update(&[len]);
    let tag = u128::from_le_bytes(sum.finalize().into());
    [tag as u64, (tag >> 64) as u64]
}
