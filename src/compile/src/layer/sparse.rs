//! Sparse files in their four spellings: a map of where the stored bytes belong.

use anyhow::{Result, anyhow, bail, ensure};
use fsimage::tree::shown;

use super::number;
use super::pax::Pax;
use super::stream::Stream;

/// Stored bytes of a sparse file, in the file's order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct SparseMap {
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
    pub(super) fn check(&self, stored: u64) -> Result<()> {
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

/// Where the map of a sparse file stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// In the header, and in blocks behind it.
    OldGnu,
    /// In PAX records: versions 0.0 and 0.1.
    Records,
    /// Before the data, and PAX records say so: version 1.0.
    BeforeData,
}

impl Form {
    /// Whether PAX records tell the file's name and size.
    pub(super) fn is_pax(self) -> bool {
        self != Self::OldGnu
    }
}

/// Which form a member of the type `kind` is in, if it is sparse.
///
/// Go's archive/tar decides so, and takes a version that it does not know for none: the
/// file is what is stored, with the name that it has in any case.
pub(super) fn form(kind: u8, pax: &Pax) -> Option<Form> {
    if kind == b'S' {
        return Some(Form::OldGnu);
    }
    match (pax.field("GNU.sparse.major"), pax.field("GNU.sparse.minor")) {
        (Some(b"0"), Some(b"0" | b"1")) => Some(Form::Records),
        (Some(b"1"), Some(b"0")) => Some(Form::BeforeData),
        (None, None) => {
            let has_map = pax.field("GNU.sparse.map").is_some() || runs(pax).next().is_some();
            has_map.then_some(Form::Records)
        }
        _ => None,
    }
}

/// The old GNU form: four runs in the header, more in blocks behind it.
pub(super) fn old_gnu(header: &tar::Header, stream: &mut Stream<'_>) -> Result<SparseMap> {
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

/// A map from PAX records, versions 0.0 and 0.1. The file has `stored` bytes unless
/// they say otherwise.
pub(super) fn from_records(pax: &Pax, stored: u64) -> Result<SparseMap> {
    let mut map = SparseMap { size: size(pax, stored)?, runs: Vec::new() };
    let mut count = 0;
    let mut add = |offset: &[u8], len: &[u8]| {
        count += 1;
        map.push(number::unsigned(offset)?, number::unsigned(len)?)
    };
    let mut records = runs(pax).peekable();
    if records.peek().is_some() {
        while let Some((key, offset)) = records.next() {
            match (key, records.next()) {
                (OFFSET, Some((LEN, len))) => add(offset, len)?,
                _ => bail!("GNU.sparse.offset and GNU.sparse.numbytes do not take turns"),
            }
        }
    } else if let Some(text) = pax.field("GNU.sparse.map") {
        let mut numbers = text.split(|b| *b == b',');
        while let Some(offset) = numbers.next() {
            add(offset, numbers.next().ok_or_else(|| anyhow!("GNU.sparse.map is odd"))?)?;
        }
    }
    let told = pax.field("GNU.sparse.numblocks");
    let told = told.ok_or_else(|| anyhow!("GNU.sparse.numblocks is missing"))?;
    ensure!(
        number::unsigned(told)? == count,
        "GNU.sparse.numblocks is {}, and the map has {count} runs",
        shown(told)
    );
    Ok(map)
}

const OFFSET: &[u8] = b"GNU.sparse.offset";
const LEN: &[u8] = b"GNU.sparse.numbytes";

/// The records of version 0.0, of which each two are a run.
fn runs(pax: &Pax) -> impl Iterator<Item = (&[u8], &[u8])> {
    pax.iter().filter(|(key, _)| [OFFSET, LEN].contains(key))
}

/// Bytes of the file that a PAX header says to be sparse.
fn size(pax: &Pax, stored: u64) -> Result<u64> {
    let told = pax.field("GNU.sparse.size").or_else(|| pax.field("GNU.sparse.realsize"));
    told.map_or(Ok(stored), number::unsigned)
}

/// Version 1.0: the map stands before the data, as decimal lines padded to
/// whole blocks. Returns it with how many bytes it took.
pub(super) fn before_data(
    pax: &Pax,
    stored: u64,
    stream: &mut Stream<'_>,
) -> Result<(SparseMap, u64)> {
    let mut map = SparseMap { size: size(pax, stored)?, runs: Vec::new() };
    let mut lines = MapLines { stream, left: stored, block: Vec::new(), at: 0, taken: 0 };
    let count = lines.number()?;
    ensure!(count <= MAX_RUNS as u64, "a sparse file in more than {MAX_RUNS} pieces");
    for _ in 0..count {
        let (offset, len) = (lines.number()?, lines.number()?);
        map.push(offset, len)?;
    }
    let taken = lines.taken;
    Ok((map, taken))
}

/// Decimal lines in blocks of a stream.
struct MapLines<'s, 'a> {
    stream: &'s mut Stream<'a>,
    /// Bytes of the entry that were not read yet.
    left: u64,
    block: Vec<u8>,
    at: usize,
    taken: u64,
}

impl MapLines<'_, '_> {
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
