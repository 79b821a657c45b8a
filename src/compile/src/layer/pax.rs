//! PAX extended headers: records of any bytes.

use std::ops::Range;

use anyhow::{Context as _, Result, anyhow, ensure};

/// Keys of which the last value alone counts.
const FIELDS: [&str; 13] = [
    "path",
    "linkpath",
    "size",
    "uid",
    "gid",
    "mtime",
    "GNU.sparse.size",
    "GNU.sparse.map",
    "GNU.sparse.name",
    "GNU.sparse.major",
    "GNU.sparse.minor",
    "GNU.sparse.realsize",
    "GNU.sparse.numblocks",
];

/// What keys begin with of which each record counts.
const LISTED: [&[u8]; 4] = [
    b"SCHILY.xattr.",
    b"LIBARCHIVE.xattr.",
    b"SCHILY.acl.",
    // Those of versions 0.0, of which each pair is a run.
    b"GNU.sparse.",
];

/// The records of one extended header that mean something, found once: a header
/// can hold half a million that mean nothing.
#[derive(Clone, Debug, Default)]
pub(super) struct Pax {
    bytes: Vec<u8>,
    fields: [Option<Range<usize>>; FIELDS.len()],
    /// Keys and values, in order.
    listed: Vec<(Range<usize>, Range<usize>)>,
    /// How many there were, whether they mean something or not.
    pub records: usize,
}

impl Pax {
    /// Splits `<length> <key>=<value>\n` records. A value may hold any byte.
    pub(super) fn parse(bytes: Vec<u8>) -> Result<Self> {
        let mut pax = Self::default();
        let mut at = 0;
        // Some writers pad the header's data with NULs.
        while bytes.get(at).is_some_and(|b| *b != 0) {
            let rest = &bytes[at..];
            let bad = || anyhow!("a PAX record is malformed");
            let space = rest.iter().take(20).position(|b| *b == b' ').ok_or_else(bad)?;
            let len = super::number::unsigned(&rest[..space]).context("a PAX record's length")?;
            let len = usize::try_from(len)?;
            let record = rest.get(space + 1..len).ok_or_else(bad)?;
            let record = record.strip_suffix(b"\n").ok_or_else(bad)?;
            let equals = record.iter().position(|b| *b == b'=').ok_or_else(bad)?;
            ensure!(equals > 0, bad());
            let key = at + space + 1..at + space + 1 + equals;
            let value = key.end + 1..at + len - 1;
            let name = &record[..equals];
            if let Some(field) = FIELDS.iter().position(|field| field.as_bytes() == name) {
                pax.fields[field] = Some(value);
            } else if LISTED.iter().any(|prefix| name.starts_with(prefix)) {
                pax.listed.push((key, value));
            }
            at += len;
            pax.records += 1;
        }
        pax.bytes = bytes;
        Ok(pax)
    }

    /// The last value of `key`, one of [`FIELDS`].
    pub(super) fn get(&self, key: &str) -> Option<&[u8]> {
        let field = FIELDS.iter().position(|field| *field == key);
        debug_assert!(field.is_some(), "{key}");
        Some(&self.bytes[self.fields[field?].clone()?])
    }

    /// As [`Pax::get`]; an empty value takes a field back to its header.
    pub(super) fn field(&self, key: &str) -> Option<&[u8]> {
        self.get(key).filter(|value| !value.is_empty())
    }

    /// Those of which each counts, in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let bytes = |range: &Range<usize>| &self.bytes[range.clone()];
        self.listed.iter().map(move |(key, value)| (bytes(key), bytes(value)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_may_hold_newlines_nuls_and_equals_signs() {
        let records = b"16 path=a\nb\0c=\n\n9 path=b\n24 SCHILY.xattr.u.x=\n=\0\n6 k=v\n9 uid=ab\n";
        let pax = Pax::parse(records.to_vec()).unwrap();
        assert_eq!(pax.get("path"), Some(&b"b"[..]));
        assert_eq!(pax.get("uid"), Some(&b"ab"[..]));
        let listed: Vec<_> = pax.iter().collect();
        assert_eq!(listed, [(&b"SCHILY.xattr.u.x"[..], &b"\n=\0"[..])]);
        let pax = Pax::parse(records[..16].to_vec()).unwrap();
        assert_eq!(pax.get("path"), Some(&b"a\nb\0c=\n"[..]));
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
            assert!(Pax::parse(bad.to_vec()).is_err(), "{}", bad.escape_ascii());
        }
    }
}
