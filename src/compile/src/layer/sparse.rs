//! Sparse files in their four spellings: a map of where the stored bytes belong.

use anyhow::{Result, anyhow, bail, ensure};
use fsimage::tree::shown;

use super::number;
use super::pax::Pax;
use super::stream::Stream;

/// Stored bytes of a sparse file, in the file's order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SparseMap {
    /// Bytes of the file, holes included.
    pub size: u64,
    /// Offset and length of each run of stored bytes.
    pub runs: Vec<(u64, u64)>,
}

/// More runs than this would be a bomb: a map is kept in memory.
const MAX_RUNS: usize = 1 << 20;

impl SparseMap {
    fn push(&mut self, offset: u64, len: u64) -> Result<()> {
        ensure!(self.runs.len() < MAX_RUNS, "a sparse file in more than {MAX_RUNS} pieces");
        // Empty entries only mark the end.
        if len > 0 {
            self.runs.push((offset, len));
        }
        Ok(())
    }

    /// Checks that runs ascend within the file and add up to what is stored.
    pub fn check(&self, stored: u64) -> Result<()> {
        let (mut end, mut sum) = (0u64, 0u64);
        for (offset, len) in &self.runs {
            ensure!(*offset >= end, "the runs of a sparse file overlap");
            end = offset.checked_add(*len).ok_or_else(|| anyhow!("a sparse run is too long"))?;
            sum += len;
        }
        ensure!(end <= self.size, "a sparse run ends at {end} of {} bytes", self.size);
        ensure!(sum == stored, "a sparse file stores {stored} bytes, but its map has {sum}");
        Ok(())
    }
}

/// The old GNU form: four runs in the header, more in blocks behind it.
pub fn old_gnu(header: &tar::Header, stream: &mut Stream<'_>) -> Result<SparseMap> {
    let gnu = header.as_gnu().ok_or_else(|| anyhow!("a sparse entry without GNU header"))?;
    let mut map = SparseMap { size: field(&gnu.realsize)?, runs: Vec::new() };
    let mut add = |sparse: &tar::GnuSparseHeader| {
        // An unused slot is all NUL, or blank.
        if sparse.is_empty() {
            Ok(())
        } else {
            map.push(field(&sparse.offset)?, field(&sparse.numbytes)?)
        }
    };
    gnu.sparse.iter().try_for_each(&mut add)?;
    let mut more = gnu.is_extended();
    while more {
        let block =
            stream.block()?.ok_or_else(|| anyhow!("the tar stream is cut inside a header"))?;
        let mut extension = tar::GnuExtSparseHeader::new();
        extension.as_mut_bytes().copy_from_slice(&block);
        extension.sparse().iter().try_for_each(&mut add)?;
        more = extension.is_extended();
    }
    Ok(map)
}

fn field(bytes: &[u8]) -> Result<u64> {
    u64::try_from(number::header_number(bytes)?).map_err(|_| anyhow!("a sparse map is negative"))
}

/// A map from PAX records, versions 0.0 and 0.1; `None` if there is none.
pub fn from_records(pax: &Pax) -> Result<Option<SparseMap>> {
    let Some(size) = pax.field("GNU.sparse.size") else {
        return Ok(None);
    };
    let mut map = SparseMap { size: number::unsigned(size)?, runs: Vec::new() };
    if let Some(text) = pax.get("GNU.sparse.map") {
        let mut numbers = text.split(|b| *b == b',').filter(|part| !part.is_empty());
        while let Some(offset) = numbers.next() {
            let len = numbers.next().ok_or_else(|| anyhow!("GNU.sparse.map is odd"))?;
            map.push(number::unsigned(offset)?, number::unsigned(len)?)?;
        }
        return Ok(Some(map));
    }
    let mut offset = None;
    for (key, value) in pax.iter() {
        match key {
            b"GNU.sparse.offset" => offset = Some(number::unsigned(value)?),
            b"GNU.sparse.numbytes" => {
                let at =
                    offset.take().ok_or_else(|| anyhow!("GNU.sparse.numbytes without offset"))?;
                map.push(at, number::unsigned(value)?)?;
            }
            _ => {}
        }
    }
    Ok(Some(map))
}

/// Version 1.0: the map stands before the data, as decimal lines padded to
/// whole blocks. Returns it with how many bytes it took; `None` if the records
/// name no such map.
pub fn before_data(
    pax: &Pax,
    stored: u64,
    stream: &mut Stream<'_>,
) -> Result<Option<(SparseMap, u64)>> {
    match (pax.field("GNU.sparse.major"), pax.field("GNU.sparse.minor")) {
        (Some(b"1"), Some(b"0")) => {}
        (None, _) | (Some(b"0"), _) => return Ok(None),
        (Some(major), _) => bail!("sparse format {}.x is not known", shown(major)),
    }
    let size = pax
        .field("GNU.sparse.realsize")
        .ok_or_else(|| anyhow!("GNU.sparse.realsize is missing"))?;
    let mut map = SparseMap { size: number::unsigned(size)?, runs: Vec::new() };
    let mut lines = Lines { stream, left: stored, block: Vec::new(), at: 0, taken: 0 };
    let count = lines.number()?;
    ensure!(count <= MAX_RUNS as u64, "a sparse file in more than {MAX_RUNS} pieces");
    for _ in 0..count {
        let (offset, len) = (lines.number()?, lines.number()?);
        map.push(offset, len)?;
    }
    let taken = lines.taken;
    Ok(Some((map, taken)))
}

/// Decimal lines in blocks of a stream.
struct Lines<'s, 'a> {
    stream: &'s mut Stream<'a>,
    /// Bytes of the entry that were not read yet.
    left: u64,
    block: Vec<u8>,
    at: usize,
    taken: u64,
}

impl Lines<'_, '_> {
    fn number(&mut self) -> Result<u64> {
        let (mut number, mut digits) = (0u64, 0);
        loop {
            if self.at == self.block.len() {
                ensure!(self.left >= 512, "a sparse file's map is cut");
                self.block = self.stream.bytes(512)?;
                self.left -= 512;
                self.taken += 512;
                self.at = 0;
            }
            let byte = self.block[self.at];
            self.at += 1;
            match byte {
                b'\n' if digits > 0 => return Ok(number),
                // More of them go past 2⁶³, which no file does.
                b'0'..=b'9' if digits < 18 => {
                    number = number * 10 + u64::from(byte - b'0');
                    digits += 1;
                }
                _ => bail!("a sparse file's map is malformed"),
            }
        }
    }
}
