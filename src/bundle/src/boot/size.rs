//! Sizes as people write them, in every spelling that docker takes.

use std::str::FromStr;

use fsimage::units::PAGE_SIZE;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A number of bytes: `4GiB`, `512m`, `1.5 GB`, or plain bytes. Units are powers
/// of 1024 whatever their spelling, as in docker's options.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ByteSize(pub u64);

/// A text that is not a size, or not one that is allowed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadSize {
    /// Not a number with a unit that is known, or one of 2^64 bytes or more.
    #[error(
        "{0:?} is not a size; write bytes, or a number with k, m, g or t (512m, 1.5g, 64KiB: powers of 1024)"
    )]
    Text(String),
    /// Bytes of an upper that are too few or too many.
    #[error("an upper of {0} bytes; it must have 16 MiB to 16 TiB")]
    Range(u64),
    /// Bytes of an upper that are not a multiple of 4096.
    #[error("{0} bytes are not whole blocks of 4096")]
    Blocks(u64),
}

impl FromStr for ByteSize {
    type Err = BadSize;

    fn from_str(text: &str) -> Result<Self, BadSize> {
        let bad = || BadSize::Text(text.to_owned());
        let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let (number, unit) = text.split_at(digits);
        let shift = match unit.trim().to_ascii_lowercase().as_str() {
            "" | "b" => 0,
            "k" | "kb" | "kib" => 10,
            "m" | "mb" | "mib" => 20,
            "g" | "gb" | "gib" => 30,
            "t" | "tb" | "tib" => 40,
            "p" | "pb" | "pib" => 50,
            _ => return Err(bad()),
        };
        scaled(number, 1 << shift).map(Self).ok_or_else(bad)
    }
}

/// `number`, which may have a point, times `unit`, rounded down.
fn scaled(number: &str, unit: u64) -> Option<u64> {
    /// The most digits behind the point that count: more make no difference even for a unit of
    /// 2^50.
    const MOST: usize = 18;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    let fraction = fraction.get(..MOST.min(fraction.len()))?;
    let scale = 10u128.pow(fraction.len() as u32);
    // An empty part on either side of the point is a mistake.
    let fraction = u128::from(fraction.parse::<u64>().ok()?) * u128::from(unit) / scale;
    let whole = whole.parse::<u64>().ok()?.checked_mul(unit)?;
    whole.checked_add(u64::try_from(fraction).ok()?)
}

impl Serialize for ByteSize {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(self.0)
    }
}

impl<'de> Deserialize<'de> for ByteSize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = ByteSize;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a size such as 4GiB")
            }

            fn visit_u64<E: de::Error>(self, bytes: u64) -> Result<ByteSize, E> {
                Ok(ByteSize(bytes))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<ByteSize, E> {
                text.parse().map_err(E::custom)
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

/// The size of an upper in bytes: 16 MiB to 16 TiB, in whole blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "ByteSize")]
pub struct UpperSize(pub u64);

impl TryFrom<ByteSize> for UpperSize {
    type Error = BadSize;

    fn try_from(ByteSize(bytes): ByteSize) -> Result<Self, BadSize> {
        if !(16 << 20..=16 << 40).contains(&bytes) {
            return Err(BadSize::Range(bytes));
        }
        if !bytes.is_multiple_of(PAGE_SIZE) {
            return Err(BadSize::Blocks(bytes));
        }
        Ok(Self(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The values are those that docker/go-units' tests of `RAMInBytes` have.
    #[test]
    fn sizes_are_docker_s() {
        for (text, bytes) in [
            ("32", 32),
            ("32b", 32),
            ("32B", 32),
            ("32k", 32 << 10),
            ("32K", 32 << 10),
            ("32kb", 32 << 10),
            ("32Kb", 32 << 10),
            ("32Kib", 32 << 10),
            ("32KIB", 32 << 10),
            ("32Mb", 32 << 20),
            ("32Gb", 32 << 30),
            ("32Tb", 32 << 40),
            ("32Pb", 32 << 50),
            ("32PB", 32 << 50),
            ("32P", 32 << 50),
            ("32.3", 32),
            ("32.3 mb", 33_869_004),
            ("32 kb", 32 << 10),
            ("4GiB", 4 << 30),
            ("512 M", 512 << 20),
            ("1.5g", 3 << 29),
            ("0.3MB", 314_572),
        ] {
            assert_eq!(text.parse(), Ok(ByteSize(bytes)), "{text}");
        }
        for bad in ["", "hello", "-32", ".3kB", "32.", "32 mm", "32bb", "32m b", "32bm", " 32 "] {
            assert!(bad.parse::<ByteSize>().is_err(), "{bad}");
        }
        for large in ["99999999999999999999", "99999999999TiB", "1.2.3", "16384p"] {
            assert!(large.parse::<ByteSize>().is_err(), "{large}");
        }
    }
}
