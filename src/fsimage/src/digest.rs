//! Names of content: OCI digests, and BLAKE3 of what the compiler writes.

use std::fmt;
use std::io::{self, Read};
use std::str::FromStr;

use blake3::hazmat::{self, ChainingValue, HasherExt, Mode};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// A SHA-256 digest, written `sha256:<64 hex digits>` as OCI does.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest([u8; 32]);

/// A text that is no `sha256:` digest.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is not a digest of the form sha256:<64 lower-case hex digits>")]
pub struct BadDigest(String);

impl Digest {
    /// The digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// The digest that `hasher` comes to.
    pub fn from_hasher(hasher: Sha256) -> Self {
        Self(hasher.finalize().into())
    }

    /// The 64 hex digits.
    pub fn hex(&self) -> String {
        hex(&self.0)
    }
}

fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |nibble: u8| char::from(DIGITS[usize::from(nibble)]);
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

/// The bytes that `text` writes as 64 lower-case hex digits.
fn from_hex(text: &str) -> Option<[u8; 32]> {
    let digits: &[u8; 64] = text.as_bytes().try_into().ok()?;
    let nibble = |digit: u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; 32];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = nibble(pair[0])? << 4 | nibble(pair[1])?;
    }
    Some(bytes)
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("sha256:")?;
        f.write_str(&self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.to_string()
    }
}

impl TryFrom<String> for Digest {
    type Error = BadDigest;

    fn try_from(text: String) -> Result<Self, BadDigest> {
        text.parse()
    }
}

impl FromStr for Digest {
    type Err = BadDigest;

    fn from_str(text: &str) -> Result<Self, BadDigest> {
        let bytes = text.strip_prefix("sha256:").and_then(from_hex);
        bytes.map(Self).ok_or_else(|| BadDigest(text.to_owned()))
    }
}

/// What OCI tells layers apart by: the digest of a layer's uncompressed tar stream, which is
/// another one than that of the blob it is kept in.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct DiffId(Digest);

impl DiffId {
    /// The diff ID of the layer that has the tar stream `tar`.
    pub fn of(tar: &[u8]) -> Self {
        Self(Digest::of(tar))
    }

    /// The digest of the tar stream.
    pub fn digest(self) -> Digest {
        self.0
    }

    /// The 64 hex digits.
    pub fn hex(&self) -> String {
        self.0.hex()
    }
}

impl From<Digest> for DiffId {
    fn from(tar: Digest) -> Self {
        Self(tar)
    }
}

impl FromStr for DiffId {
    type Err = BadDigest;

    fn from_str(text: &str) -> Result<Self, BadDigest> {
        text.parse().map(Self)
    }
}

impl fmt::Display for DiffId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for DiffId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The BLAKE3 of some bytes, written as 64 lower-case hex digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Blake3([u8; 32]);

/// A text that is not a [`Blake3`].
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is not a BLAKE3 hash, which has 64 lower-case hex digits")]
pub struct BadBlake3(String);

impl Blake3 {
    /// The hash of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        blake3::hash(bytes).into()
    }

    /// The hash itself.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl From<blake3::Hash> for Blake3 {
    fn from(hash: blake3::Hash) -> Self {
        Self(hash.into())
    }
}

impl fmt::Display for Blake3 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

impl fmt::Debug for Blake3 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl From<Blake3> for String {
    fn from(hash: Blake3) -> Self {
        hash.to_string()
    }
}

impl TryFrom<String> for Blake3 {
    type Error = BadBlake3;

    fn try_from(text: String) -> Result<Self, BadBlake3> {
        from_hex(&text).map(Self).ok_or(BadBlake3(text))
    }
}

/// The UUID of what is known by `hash`: version 8 of RFC 9562, whose content is its maker's own.
pub(crate) fn uuid_of(hash: &[u8; 32]) -> [u8; 16] {
    let mut uuid = [0; 16];
    uuid.copy_from_slice(&hash[..16]);
    uuid[6] = uuid[6] & 0x0f | 0x80;
    uuid[8] = uuid[8] & 0x3f | 0x80;
    uuid
}

/// Bytes that SHA-256 takes at once.
pub const SHA256_BLOCK: usize = 64;

/// Hashes `x` with `a` and `y` with `b`. Blocks of a hash wait for each other, not
/// for those of another one: in turns, a processor is done with both earlier.
pub fn update_both(a: &mut Sha256, x: &[u8], b: &mut Sha256, y: &[u8]) {
    let len = x.len().min(y.len());
    let (x, x_rest) = x.split_at(len);
    let (y, y_rest) = y.split_at(len);
    for (x, y) in x.chunks(SHA256_BLOCK).zip(y.chunks(SHA256_BLOCK)) {
        a.update(x);
        b.update(y);
    }
    a.update(x_rest);
    b.update(y_rest);
}

/// Hashes and counts what is read through it.
#[derive(Debug)]
pub struct HashingReader<R> {
    inner: R,
    sha256: Sha256,
    bytes: u64,
}

impl<R> HashingReader<R> {
    /// Reads from `inner`.
    pub fn new(inner: R) -> Self {
        Self { inner, sha256: Sha256::new(), bytes: 0 }
    }

    /// Bytes read so far.
    pub fn total(&self) -> u64 {
        self.bytes
    }

    /// The digest of all that was read.
    pub fn digest(self) -> Digest {
        Digest(self.sha256.finalize().into())
    }
}

impl<R: Read> Read for HashingReader<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buf)?;
        self.sha256.update(&buf[..n]);
        self.bytes += n as u64;
        Ok(n)
    }
}

/// Bytes that BLAKE3 gets at once: few enough to be in the processor's cache still.
/// It is several times as fast on whole parts of its tree, so each piece should end
/// where this divides its offset.
pub const HASHED: usize = 128 << 10;

/// Bytes of input under one chaining value of [`TreeHash`].
const GROUP: usize = 1 << 20;

/// BLAKE3 of a stream whose first bytes are known last.
///
/// BLAKE3 is a tree: everything behind the first group of 1 MiB can be hashed
/// while that group is still open. Holds 32 bytes per MiB.
pub struct TreeHash {
    /// The first group, whole.
    first: Vec<u8>,
    /// The group being filled (unused while the first one is).
    current: blake3::Hasher,
    filled: usize,
    /// One for each full group behind the first.
    groups: Vec<ChainingValue>,
}

/// Without the bytes of the first group.
impl fmt::Debug for TreeHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TreeHash").field("groups", &self.groups.len()).finish_non_exhaustive()
    }
}

impl Default for TreeHash {
    fn default() -> Self {
        Self { first: Vec::new(), current: Self::group(1), filled: 0, groups: Vec::new() }
    }
}

impl TreeHash {
    fn group(index: u64) -> blake3::Hasher {
        let mut hasher = blake3::Hasher::new();
        hasher.set_input_offset(index * GROUP as u64);
        hasher
    }

    /// Takes the bytes that come next.
    pub fn update(&mut self, mut bytes: &[u8]) {
        let head = bytes.len().min(GROUP - self.first.len());
        self.first.extend_from_slice(&bytes[..head]);
        bytes = &bytes[head..];
        while !bytes.is_empty() {
            if self.filled == GROUP {
                self.groups.push(self.current.finalize_non_root());
                self.current = Self::group(self.groups.len() as u64 + 1);
                self.filled = 0;
            }
            let take = bytes.len().min(GROUP - self.filled);
            self.current.update(&bytes[..take]);
            self.filled += take;
            bytes = &bytes[take..];
        }
    }

    /// Takes `len` zero bytes.
    pub fn update_zeros(&mut self, mut len: u64) {
        static ZEROS: [u8; 1 << 16] = [0; 1 << 16];
        while len > 0 {
            let take = len.min(ZEROS.len() as u64);
            self.update(&ZEROS[..take as usize]);
            len -= take;
        }
    }

    /// Ends the stream, `head` standing in the place of its first bytes.
    ///
    /// # Panics
    /// When `head` is longer than the stream or than a group.
    pub fn finish(mut self, head: &[u8]) -> Blake3 {
        self.first[..head.len()].copy_from_slice(head);
        if self.filled == 0 {
            return Blake3::of(&self.first);
        }
        let mut cvs = vec![blake3::Hasher::new().update(&self.first).finalize_non_root()];
        cvs.append(&mut self.groups);
        cvs.push(self.current.finalize_non_root());
        let left = cvs.len().next_power_of_two() / 2;
        let (left, right) = (merge(&cvs[..left]), merge(&cvs[left..]));
        hazmat::merge_subtrees_root(&left, &right, Mode::Hash).into()
    }
}

/// The chaining value over neighbouring groups, split as BLAKE3 splits: the
/// left side is the largest power of two that leaves something on the right.
fn merge(cvs: &[ChainingValue]) -> ChainingValue {
    match cvs {
        [one] => *one,
        _ => {
            let left = cvs.len().next_power_of_two() / 2;
            hazmat::merge_subtrees_non_root(&merge(&cvs[..left]), &merge(&cvs[left..]), Mode::Hash)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tree_hash_is_blake3_for_every_shape_of_tree() {
        for groups in 0..9 {
            for extra in [0, 1, 1024, 500_000] {
                let len = groups * GROUP + extra;
                let bytes: Vec<u8> = (0..len).map(|i| (i * 7 % 253) as u8).collect();
                let mut hash = TreeHash::default();
                for part in bytes.chunks(333_333) {
                    hash.update(part);
                }
                assert_eq!(hash.finish(&[]), Blake3::of(&bytes), "{groups} groups + {extra}");
            }
        }
    }

    #[test]
    fn digests_are_read_strictly() {
        let text = format!("sha256:{}", "0a".repeat(32));
        assert_eq!(text.parse::<Digest>().unwrap().to_string(), text);
        for bad in ["", "sha256:", "sha512:00", &text[1..], &text.to_uppercase(), &text[..70]] {
            assert!(bad.parse::<Digest>().is_err(), "{bad}");
            assert!(Blake3::try_from(bad.replace("sha256:", "")).is_err(), "{bad}");
        }
        let hash = Blake3::of(b"x");
        assert_eq!(hash.to_string(), blake3::hash(b"x").to_hex().as_str());
        assert_eq!(Blake3::try_from(hash.to_string()).unwrap(), hash);
    }
}
