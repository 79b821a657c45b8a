//! PAX extended headers: records of any bytes.

use anyhow::{Context as _, Result, anyhow, ensure};

/// The records of one extended header, in order; later ones count.
#[derive(Clone, Debug, Default)]
pub struct Pax(Vec<(Vec<u8>, Vec<u8>)>);

impl Pax {
    /// Splits `<length> <key>=<value>\n` records. A value may hold any byte.
    pub fn parse(mut bytes: &[u8]) -> Result<Self> {
        let mut records = Vec::new();
        // Some writers pad the header's data with NULs.
        while bytes.first().is_some_and(|b| *b != 0) {
            let bad = || anyhow!("a PAX record is malformed");
            let space = bytes.iter().take(20).position(|b| *b == b' ').ok_or_else(bad)?;
            let len = super::number::unsigned(&bytes[..space]).context("a PAX record's length")?;
            let len = usize::try_from(len)?;
            let record = bytes.get(space + 1..len).ok_or_else(bad)?;
            let record = record.strip_suffix(b"\n").ok_or_else(bad)?;
            let equals = record.iter().position(|b| *b == b'=').ok_or_else(bad)?;
            ensure!(equals > 0, bad());
            records.push((record[..equals].to_vec(), record[equals + 1..].to_vec()));
            bytes = &bytes[len..];
        }
        Ok(Self(records))
    }

    /// The last value of `key`.
    pub fn get(&self, key: &str) -> Option<&[u8]> {
        let found = self.0.iter().rev().find(|(k, _)| k == key.as_bytes());
        found.map(|(_, value)| value.as_slice())
    }

    /// As [`Pax::get`]; an empty value takes a field back to its header.
    pub fn field(&self, key: &str) -> Option<&[u8]> {
        self.get(key).filter(|value| !value.is_empty())
    }

    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.0.iter().map(|(key, value)| (key.as_slice(), value.as_slice()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_may_hold_newlines_nuls_and_equals_signs() {
        let record = b"20 SCHILY.x=a\nb\0c=\n\n6 k=v\n";
        let pax = Pax::parse(record).unwrap();
        assert_eq!(pax.get("SCHILY.x"), Some(&b"a\nb\0c=\n"[..]));
        assert_eq!(pax.get("k"), Some(&b"v"[..]));
    }

    #[test]
    fn malformed_records_are_errors() {
        for bad in [
            &b"5 k=v\n"[..],
            b"7 k=v\n",
            b"x k=v\n",
            b"6 kvv\n",
            b"99999999999999999999 k=v\n",
            b"5 =v\n",
        ] {
            assert!(Pax::parse(bad).is_err(), "{}", bad.escape_ascii());
        }
    }
}
