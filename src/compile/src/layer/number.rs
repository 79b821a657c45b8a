//! Numbers as tar headers and PAX records write them.

use anyhow::{Result, anyhow, ensure};
use fsimage::tree::{Timestamp, shown};

/// A header's number: octal text, or base-256 when the first bit is set.
///
/// Base-256 is a big-endian two's complement number whose top bit is the flag
/// (GNU tar, star, libarchive).
pub(super) fn header_number(field: &[u8]) -> Result<i128> {
    match field.first() {
        Some(first) if first & 0x80 != 0 => {
            // The sign stands next to the flag.
            let start = if first & 0x40 != 0 { -1i128 } else { 0 };
            let first = i128::from(first & 0x7f) - if start < 0 { 0x80 } else { 0 };
            let rest = &field[1..];
            let bits = rest.iter().try_fold(first, |n, b| {
                n.checked_mul(256).and_then(|n| n.checked_add(i128::from(*b)))
            });
            bits.ok_or_else(|| anyhow!("a base-256 number is too large"))
        }
        _ => octal(field),
    }
}

fn octal(field: &[u8]) -> Result<i128> {
    let start = field.iter().position(|b| !is_filler(b)).unwrap_or(field.len());
    let text = &field[start..];
    let text = &text[..text.iter().position(is_filler).unwrap_or(text.len())];
    ensure!(
        text.iter().all(|b| (b'0'..=b'7').contains(b)),
        "the header field \"{}\" is not an octal number",
        field.escape_ascii()
    );
    Ok(text.iter().fold(0, |n, b| n * 8 + i128::from(b - b'0')))
}

/// Padding that writers put before and behind the digits of a number's field.
fn is_filler(byte: &u8) -> bool {
    matches!(byte, 0 | b' ')
}

/// Whether `field` holds a number and nothing else.
pub(super) fn is_header_number(field: &[u8]) -> bool {
    let digits = field.trim_ascii_end();
    let inner = digits.iter().skip_while(|b| is_filler(b)).skip_while(|b| !is_filler(b));
    // Go reads a field up to its first NUL.
    let alone = inner.take_while(|b| **b != 0).all(|b| *b == b' ');
    header_number(field).is_ok() && (alone || field[0] & 0x80 != 0)
}

/// A PAX record's whole decimal number, perhaps negative.
pub(super) fn decimal(value: &[u8]) -> Result<i128> {
    let text = std::str::from_utf8(value).ok();
    let number = text.and_then(|text| text.trim().parse::<i64>().ok());
    let number = number.ok_or_else(|| anyhow!("\"{}\" is not a number", shown(value)))?;
    Ok(number.into())
}

/// As [`decimal`], never negative.
pub(super) fn unsigned(value: &[u8]) -> Result<u64> {
    // A sparse file has a million of them: nearly all are short and plain.
    if (1..=18).contains(&value.len()) && value.iter().all(u8::is_ascii_digit) {
        return Ok(value.iter().fold(0, |sum, digit| sum * 10 + u64::from(digit - b'0')));
    }
    u64::try_from(decimal(value)?).map_err(|_| anyhow!("\"{}\" is negative", shown(value)))
}

/// A PAX time: decimal seconds, perhaps negative, perhaps with a fraction,
/// which is cut at nanoseconds.
pub(super) fn time(value: &[u8]) -> Result<Timestamp> {
    let bad = || anyhow!("\"{}\" is not a time", shown(value));
    let text = std::str::from_utf8(value).map_err(|_| bad())?;
    let (negative, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let all_digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    ensure!(!digits.is_empty() && all_digits(whole) && all_digits(fraction), bad());
    let whole = if whole.is_empty() { 0 } else { whole.parse::<i64>().map_err(|_| bad())? };
    let nsec = fraction.bytes().chain(std::iter::repeat(b'0')).take(9);
    let nsec = nsec.fold(0, |n, b| n * 10 + u32::from(b - b'0'));
    Ok(match (negative, nsec) {
        (false, _) => Timestamp { sec: whole, nsec },
        (true, 0) => Timestamp { sec: -whole, nsec },
        (true, _) => Timestamp { sec: -whole - 1, nsec: 1_000_000_000 - nsec },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_numbers_are_octal_or_base_256() {
        assert_eq!(header_number(b"0000644\0").unwrap(), 0o644);
        assert_eq!(header_number(b"   755 \0").unwrap(), 0o755);
        assert_eq!(header_number(b"\0\0\0\0\0\0\0\0").unwrap(), 0);
        assert_eq!(header_number(b"77777777").unwrap(), 0o77777777);
        assert_eq!(header_number(&[0x80, 0, 0, 0, 0, 0x2d, 0xc6, 0xc0]).unwrap(), 3_000_000);
        assert_eq!(header_number(&[0xff; 12]).unwrap(), -1);
        let mut minus_million = [0xff; 12];
        minus_million[8..].copy_from_slice(&(-1_000_000i32).to_be_bytes());
        assert_eq!(header_number(&minus_million).unwrap(), -1_000_000);
        assert!(header_number(b"0000688\0").is_err());
        // Go takes NULs away from both ends, and reads up to the next one.
        assert_eq!(header_number(b"\x000644\0").unwrap(), 0o644);
        assert_eq!(header_number(b"\0\0 01\x0077").unwrap(), 1);
    }

    #[test]
    fn times_go_below_zero_and_down_to_nanoseconds() {
        let at = |sec, nsec| Timestamp { sec, nsec };
        assert_eq!(time(b"1").unwrap(), at(1, 0));
        assert_eq!(time(b"1.000000001").unwrap(), at(1, 1));
        assert_eq!(time(b"1.9999999999").unwrap(), at(1, 999_999_999));
        assert_eq!(time(b"-1").unwrap(), at(-1, 0));
        assert_eq!(time(b"-0.25").unwrap(), at(-1, 750_000_000));
        assert_eq!(time(b"4294967296.5").unwrap(), at(1 << 32, 500_000_000));
        assert_eq!(time(b"+1.5").unwrap(), at(1, 500_000_000));
        assert!(time(b"+").is_err() && time(b"+-1").is_err());
        assert!(time(b"").is_err() && time(b"1e3").is_err() && time(b"--1").is_err());
    }
}
