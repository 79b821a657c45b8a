//! The signature of a bundle: `bundle.json.minisig`, by minisign, over the bytes of the index.
//!
//! The index has the hash of every file, so that a signature of the index is one of all files,
//! for a reader that hashes them all.

use std::fmt;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use anyhow::{Context as _, Result, bail, ensure};
use fsimage::io::regular;
use minisign_verify::{Error, PublicKey, Signature};

use crate::missing::missing;
use crate::names::SIGNATURE;

/// The most bytes of a file with a signature or a key, far more than either has.
pub const MAX_SIGNATURE: u64 = 16 << 10;

/// A public key, and its name in messages.
#[derive(Clone, Debug)]
pub struct Key {
    key: PublicKey,
    name: String,
}

impl Key {
    /// Reads the file `path`, as minisign and [`super::sign::generate`] write it.
    ///
    /// # Errors
    /// When the file cannot be read, is larger than [`MAX_SIGNATURE`], or holds no public
    /// key of minisign.
    pub fn load(path: &Path) -> Result<Self> {
        let name = path.display().to_string();
        let read = || -> Result<Self> {
            let text = read_small(path)?;
            // The file has a comment and the key, or the key alone.
            let second = text.lines().nth(1).filter(|line| !line.trim().is_empty());
            let line = second.or(text.lines().next()).unwrap_or_default();
            Self::parse(line, &name)
        };
        read().with_context(|| format!("the key {name}"))
    }

    /// Parses the key `text`, which messages call `name`.
    ///
    /// # Errors
    /// When `text` is not a public key of minisign in base64.
    pub fn parse(text: &str, name: &str) -> Result<Self> {
        let key = PublicKey::from_base64(text.trim());
        let key = key.ok().context("it is not a public key of minisign")?;
        Ok(Self { key, name: name.to_owned() })
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

/// Reads the signature of the bundle whose directory is open as `dir`, if it has one. Its form
/// is checked, but not whose it is.
///
/// # Errors
/// When it is not a regular file, has more than [`MAX_SIGNATURE`] bytes, cannot be read,
/// or is not a signature of minisign.
pub fn read(dir: &File) -> Result<Option<Vec<u8>>> {
    match regular::read_at(dir, SIGNATURE, MAX_SIGNATURE) {
        Ok(bytes) => decode(&bytes).map(|_| Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(missing(error)),
    }
}

/// Lines of a signature: a comment for people, the signature, a comment that is signed,
/// and the signature of both.
const LINES: usize = 4;

/// Parses a signature. Nothing may follow it, so that the file cannot carry anything else.
///
/// # Errors
/// When `bytes` are not a signature of minisign, or more follows it.
pub fn decode(bytes: &[u8]) -> Result<Signature> {
    let text = std::str::from_utf8(bytes).ok().filter(|text| text.lines().count() <= LINES);
    let signature = text.and_then(|text| Signature::decode(text).ok());
    signature.context("it is not a signature of minisign")
}

/// The text of the file `path`, which must be small.
pub(super) fn read_small(path: &Path) -> Result<String> {
    let mut bytes = Vec::new();
    File::open(path)?.take(MAX_SIGNATURE + 1).read_to_end(&mut bytes)?;
    ensure!(bytes.len() as u64 <= MAX_SIGNATURE, "it has more than {MAX_SIGNATURE} bytes");
    String::from_utf8(bytes).context("it is not text")
}

/// Checks that the bundle's `signature` is one of its index `json`, by one of `keys`.
///
/// # Errors
/// When there is no signature, it is not one of minisign, it is by another key, or it is
/// of another index.
pub fn check(json: &[u8], signature: Option<&[u8]>, keys: &[Key]) -> Result<()> {
    let Some(signature) = signature else {
        bail!("it has no signature ({SIGNATURE}); rootfs-compile sign makes one");
    };
    let signature = decode(signature).context(SIGNATURE)?;
    let mut named = None;
    for key in keys {
        match key.key.verify(json, &signature, false) {
            Ok(()) => return Ok(()),
            Err(Error::UnexpectedKeyId) => {}
            // The signature has this key's ID, but does not fit. Key IDs are not secret, so
            // that another key may have the same.
            Err(_) => named = named.or(Some(key)),
        }
    }
    if let Some(key) = named {
        bail!(
            "{SIGNATURE} is not a signature of this index by {key}: one of the two was changed, or \
             the bundle built again since"
        );
    }
    let names: Vec<&str> = keys.iter().map(|key| &*key.name).collect();
    bail!("{SIGNATURE} is by another key than {}", names.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made by minisign 0.10 with a key that was thrown away.
    #[test]
    fn what_is_no_signature_is_an_error_and_no_panic() {
        let key = "RWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3";
        let key = Key::parse(key, "its name").unwrap();
        let good = "untrusted comment: signature from minisign secret key\n\
             RUQf6LRCGA9i559r3g7V1qNyJDApGip8MfqcadIgT9CuhV3EMhHoN1mGTkUidF/\
             z7SrlQgXdy8ofjb7bNJJylDOocrCo8KLzZwo=\n\
             trusted comment: timestamp:1633700835\tfile:test\tprehashed\n\
             wLMDjy9FLAuxZ3q4NlEvkgtyhrr0gtTu6KC4KBJdITbbOeAi1zBIYo0v4iTgt8jJpIidRJnp94ABQkJAgAooBQ==\n";
        let keys = [key];
        check(b"test", Some(good.as_bytes()), &keys).unwrap();
        let error = |json: &[u8], signature: Option<&[u8]>| {
            format!("{:#}", check(json, signature, &keys).unwrap_err())
        };
        for more in ["x", "\n", "more\n", "\r\n"] {
            let longer = format!("{good}{more}");
            assert!(error(b"test", Some(longer.as_bytes())).contains("not a signature"), "{more}");
        }
        assert!(error(b"test", None).contains("no signature"));
        assert!(error(b"text", Some(good.as_bytes())).contains("by its name"));
        for at in 0..good.len() {
            assert!(
                check(b"test", Some(&good.as_bytes()[..at]), &keys).is_err()
                    || at + 1 == good.len()
            );
            let mut bad = good.as_bytes().to_vec();
            bad[at] ^= 1;
            let first_line = good.find('\n').unwrap();
            // Whatever is in the first line is only for people.
            let free = at < first_line;
            assert!(free || check(b"test", Some(&bad), &keys).is_err(), "{at}");
        }
    }
}
