//! An artifact to a bundle.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Read};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use bundle::content::{ContentHash, MAX_HOLES};
use bundle::index::{FileEntry, Index};
use bundle::signature::{self, Key, MAX_SIGNATURE};
use bundle::sound::{self, Depth};
use bundle::staging::{Staging, write_file};
use bundle::{INDEX, SIGNATURE, UPPER, seal};
use fsimage::budget::{Budget, EXPANSION, MAX_SPARSE};
use fsimage::io::sink;
use fsimage::units::BLOCK_SIZE;

use super::sparse;
use crate::artifact::media_type::{FILE_TYPE, SIGNATURE_TYPE, SPARSE_TYPE};

/// A file of an artifact, as its manifest tells of it.
pub struct ArtifactFile<'a> {
    /// In the bundle.
    pub path: String,
    /// The blob's media type, as the manifest gives it.
    pub media_type: String,
    /// Bytes of the blob.
    pub size: u64,
    /// Opens the blob; what is read is checked by whoever gives it.
    pub open: Box<dyn Fn() -> Result<Box<dyn Read + Send + 'a>> + 'a>,
}

/// Without the closure.
impl fmt::Debug for ArtifactFile<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ArtifactFile").field("path", &self.path).finish_non_exhaustive()
    }
}

/// Makes the files of a bundle in `staging`: `json` is its index, `pieces` are
/// the files. `adopt` may bring a layer from elsewhere. One of `keys` must have signed
/// the bundle, if there are any. All of it is checked before this ends; nothing is
/// published. Returns the index.
///
/// # Errors
/// It fails when `json` is not a sound index, when there are `keys` and none of them signed it,
/// when the pieces are not exactly the files that it names, with their hashes and within their
/// bounds, and when `staging` cannot be written.
pub fn unpack(
    json: &[u8],
    pieces: Vec<ArtifactFile<'_>>,
    staging: &Staging,
    adopt: &dyn Fn(&FileEntry) -> Result<bool>,
    keys: &[Key],
    metadata_bytes: u64,
) -> Result<Index> {
    let index = seal::from_json(json).context(INDEX)?;
    let count = pieces.len();
    let mut pieces: BTreeMap<String, ArtifactFile<'_>> =
        pieces.into_iter().map(|piece| (piece.path.clone(), piece)).collect();
    ensure!(pieces.len() == count, "two blobs of the artifact are the same file");
    let signature = pieces.remove(SIGNATURE).as_ref().map(signature_of).transpose();
    let signature = signature.context(SIGNATURE)?;
    if !keys.is_empty() {
        // Before any file is brought.
        signature::check(json, signature.as_deref(), keys)?;
    }
    let expansion = Expansion { zeros: Budget::new(MAX_ZEROS), others: Budget::new(MAX_OTHERS) };
    for entry in &index.files {
        let path = &entry.path;
        let piece = pieces.remove(path).ok_or_else(|| anyhow!("the artifact has no {path}"))?;
        if adopt(entry)? {
            continue;
        }
        file(&piece, entry, staging, &expansion).with_context(|| path.clone())?;
    }
    if let Some(other) = pieces.keys().next() {
        bail!("the artifact has {other:?}, which {INDEX} does not know");
    }
    write_file(staging, INDEX, json)?;
    if let Some(signature) = signature {
        write_file(staging, SIGNATURE, &signature)?;
    }
    // The hashes of layers are known by now.
    sound::check(&staging.place()?.within(metadata_bytes), Depth::Received)?;
    Ok(index)
}

/// The signature that `piece` is.
fn signature_of(piece: &ArtifactFile<'_>) -> Result<Vec<u8>> {
    let found = &piece.media_type;
    ensure!(
        found == SIGNATURE_TYPE,
        "its media type is {}, not {SIGNATURE_TYPE}",
        found.escape_debug()
    );
    ensure!(piece.size <= MAX_SIGNATURE, "it has {} bytes", piece.size);
    let mut bytes = Vec::new();
    (piece.open)()?.take(MAX_SIGNATURE).read_to_end(&mut bytes)?;
    signature::decode(&bytes)?;
    Ok(bytes)
}

/// Bytes of a file at most: more than any layer may have by default.
const MAX_FILE: u64 = 256 << 30;

/// Zeros by which all files may be longer than [`EXPANSION`] times their blobs: those
/// that a build may have for sparse files, and what else may be zero. They become holes.
const MAX_ZEROS: u64 = MAX_SPARSE + (16 << 30);

/// Other bytes by which they may be longer, which is what a build allows. They take space
/// on the disk before anybody sees that the hash is another.
const MAX_OTHERS: u64 = 16 << 30;

/// By how much all files may be longer than [`EXPANSION`] times their blobs.
struct Expansion {
    zeros: Budget<'static>,
    others: Budget<'static>,
}

/// What a blob decompresses to, of which more than a share is taken from a budget:
/// 10 MiB of zstd can stand for 320 GiB.
struct Bounded<'b, R> {
    inner: R,
    /// Bytes that cost nothing.
    free: u64,
    expansion: &'b Expansion,
}

impl<R: Read> Read for Bounded<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        let free = self.free.min(n as u64) as usize;
        self.free -= free as u64;
        let blocks = buffer[free..n].chunks(BLOCK_SIZE as usize);
        let zeros = blocks.filter(|block| sink::is_zero(block)).map(<[u8]>::len).sum::<usize>();
        let others = n - free - zeros;
        let Expansion { zeros: of_zeros, others: of_others } = self.expansion;
        for (budget, bytes, what) in [(of_zeros, zeros, "zeros"), (of_others, others, "others")] {
            let taken = budget.take(bytes as u64);
            taken.map_err(|_| {
                let (kind, limit) = (io::ErrorKind::InvalidData, budget.limit());
                let text = "the blobs stand for more than";
                io::Error::new(
                    kind,
                    format!("{text} {EXPANSION} times their bytes, and {limit} {what} beyond that"),
                )
            })?;
        }
        Ok(n)
    }
}

/// Bytes of a zstd blob of `size` bytes at most, by far.
pub fn largest_blob(size: u64) -> u64 {
    size.saturating_add(size / 64).saturating_add(1 << 20)
}

fn file(
    piece: &ArtifactFile<'_>,
    entry: &FileEntry,
    staging: &Staging,
    expansion: &Expansion,
) -> Result<()> {
    // What is not sparse takes space, and so does hashing what is.
    let is_sparse = entry.path == UPPER;
    ensure!(
        is_sparse || entry.size <= MAX_FILE,
        "it has {} bytes; {MAX_FILE} are allowed",
        entry.size
    );
    let expected = if is_sparse { SPARSE_TYPE } else { FILE_TYPE };
    let found = &piece.media_type;
    ensure!(found == expected, "its media type is {}, not {expected}", found.escape_debug());
    // zstd has frames in which there is nothing: they could come without an end.
    let most = largest_blob(entry.size);
    // The reverse of it: a few blocks that stand for zeros without an end.
    let largest = piece.size.saturating_mul(EXPANSION).saturating_add(MAX_HOLES);
    ensure!(
        is_sparse || entry.size <= largest,
        "its blob of {} bytes stands for {}; {largest} are allowed",
        piece.size,
        entry.size
    );
    ensure!(piece.size <= most, "its blob has {} bytes; {most} would be enough", piece.size);
    let mut blob = (piece.open)()?;
    let file = staging.create(&piece.path)?;
    let stream = zstd::Decoder::new(&mut blob).context("zstd")?;
    let free = piece.size.saturating_mul(EXPANSION);
    let mut stream = Bounded { inner: stream, free, expansion };
    let file = if is_sparse {
        let mut limited = (&mut stream).take(largest);
        let read = sparse::read(&mut limited, &file, entry.size);
        ensure!(
            limited.limit() > 0,
            "its blob of {} bytes stands for more than {largest}, which are allowed",
            piece.size
        );
        read?;
        file
    } else {
        let (file, hash, copied) = sink::copy(&mut stream, entry.size.saturating_add(1), file)?;
        ensure!(copied == entry.size, "it has other than the {} bytes it should", entry.size);
        entry.content.check(&ContentHash::Blake3(hash))?;
        file
    };
    drop(stream);
    // What checks the blob wants to see all of it.
    io::copy(&mut blob, &mut io::sink())?;
    file.sync_all()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zeros_may_be_many_and_what_takes_space_may_not() {
        let read = |byte: u8, len: u64| {
            let expansion = Expansion { zeros: Budget::new(1 << 20), others: Budget::new(8192) };
            let inner = io::repeat(byte).take(len);
            let mut bounded = Bounded { inner, free: 100_000, expansion: &expansion };
            io::copy(&mut bounded, &mut io::sink())
        };
        for (byte, len) in [(0, 100_000 + (1 << 20)), (1, 100_000 + 8192)] {
            assert_eq!(read(byte, len).unwrap(), len);
            let error = read(byte, len + 1).unwrap_err().to_string();
            assert!(error.contains("1024 times their bytes"), "{error}");
        }
    }
}
