//! What the host asks for: records `key=value` and NUL, in a file of the boot disk.

use crate::arena::Str;
use crate::sys;
use crate::wire::MAX_CONFIG;

pub struct Config {
    bytes: &'static [u8],
}

impl Config {
    pub fn read() -> sys::Result<Self> {
        Ok(Self { bytes: sys::read_file(b"/config\0", MAX_CONFIG)? })
    }

    /// The values of `key` in order, each with its NUL.
    pub fn all(&self, key: &'static str) -> impl Iterator<Item = Str> + Clone + use<> {
        let records = self.bytes.split_inclusive(|b| *b == 0);
        records.filter_map(move |record| {
            let value = record.strip_prefix(key.as_bytes())?.strip_prefix(b"=")?;
            (value.last() == Some(&0)).then_some(value)
        })
    }

    /// The first value of `key`, with its NUL.
    pub fn one(&self, key: &'static str) -> Option<Str> {
        self.all(key).next()
    }

    pub fn has(&self, key: &'static str) -> bool {
        self.one(key).is_some()
    }
}

/// The string without its NUL.
pub fn bare(text: Str) -> &'static [u8] {
    text.strip_suffix(b"\0").unwrap_or(text)
}

/// Splits at the first `separator`: what is before it and, with the NUL, what is behind.
pub fn split(text: Str, separator: u8) -> Option<(&'static [u8], Str)> {
    let at = text.iter().position(|b| *b == separator)?;
    Some((&text[..at], &text[at + 1..]))
}

/// A decimal number, if all of it is one and it fits.
pub fn number(text: &[u8]) -> Option<u64> {
    let digits = text.iter().try_fold(0u64, |n, b| {
        let digit = b.checked_sub(b'0').filter(|d| *d < 10)?;
        n.checked_mul(10)?.checked_add(digit.into())
    });
    digits.filter(|_| !text.is_empty())
}
