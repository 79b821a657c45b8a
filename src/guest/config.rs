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

#[cfg(test)]
mod tests {
    use super::*;

    fn config(bytes: &'static [u8]) -> Config {
        Config { bytes }
    }

    fn all(config: &Config, key: &'static str) -> Vec<Str> {
        config.all(key).collect()
    }

    #[test]
    fn values_of_a_key_come_in_order() {
        let config = config(b"arg=sh\0env=A=1\0arg=-c\0arg=\0argument=x\0");
        assert_eq!(all(&config, "arg"), [&b"sh\0"[..], b"-c\0", b"\0"]);
        assert_eq!(config.one("env"), Some(&b"A=1\0"[..]));
        assert!(!config.has("user") && config.has("argument"));
    }

    #[test]
    fn a_record_without_its_end_or_its_sign_is_passed_over() {
        assert_eq!(all(&config(b"arg=a\0arg=b"), "arg"), [b"a\0"]);
        assert_eq!(all(&config(b"arg\0=x\0\0"), "arg"), [b""; 0]);
        assert_eq!(all(&config(b""), "arg"), [b""; 0]);
    }

    #[test]
    fn strings_are_split_at_the_first_separator() {
        assert_eq!(split(b"ro:tag:/a:b\0", b':'), Some((&b"ro"[..], &b"tag:/a:b\0"[..])));
        assert_eq!(split(b"tag\0", b':'), None);
        assert_eq!((bare(b"a\0"), bare(b"a")), (&b"a"[..], &b"a"[..]));
    }

    #[test]
    fn a_number_is_all_digits_and_fits() {
        assert_eq!(number(b"0"), Some(0));
        assert_eq!(number(b"18446744073709551615"), Some(u64::MAX));
        for text in [&b""[..], b"18446744073709551616", b"-1", b"+1", b" 1", b"1\0", b"0x1"] {
            assert_eq!(number(text), None, "{text:?}");
        }
    }
}
