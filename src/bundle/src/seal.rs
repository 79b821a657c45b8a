//! The index as bytes: in a canonical form, and with a seal.
//!
//! The seal is a hash, as every other file has one in the index: BLAKE3 of the index as it is
//! written with an empty seal (`"seal": ""`). It reveals damage, but does not replace a
//! signature: whoever changes an index can seal it again.
//!
//! A reader accepts only the bytes that the writer writes. So a flipped bit, an unknown,
//! missing or repeated key, and another order or white space are all errors, and no two
//! programs read one index in different ways.

use anyhow::{Context as _, Result, anyhow, bail, ensure};

use super::index::{FORMAT, Index, VERSION};
use super::rules;

/// The most bytes of an index, for writers and readers. An artifact has the index as its
/// config, and a config may be as large.
pub const MAX_INDEX: u64 = 16 << 20;

/// The beginning of the value of `seal`, before 64 hex digits.
const KIND: &str = "blake3:";

/// Writes `index` with its seal, whatever seal it had before.
///
/// # Errors
/// When the index breaks one of the rules that its readers apply, or is too large.
pub fn to_json(mut index: Index) -> Result<Vec<u8>> {
    index.seal.clear();
    rules::check(&index)?;
    let (mut json, at) = unsealed(&index)?;
    let seal = seal_of(&json);
    json.splice(at..at, seal.bytes());
    let len = json.len() as u64;
    ensure!(len <= MAX_INDEX, "it would have {len} bytes; {MAX_INDEX} are allowed");
    Ok(json)
}

/// Reads an index.
///
/// # Errors
/// When `json` is not to the byte what [`to_json`] writes.
pub fn from_json(json: &[u8]) -> Result<Index> {
    let len = json.len() as u64;
    ensure!(len <= MAX_INDEX, "it has {len} bytes; {MAX_INDEX} are allowed");
    check_version(json)?;
    let mut index: Index = serde_json::from_slice(json)?;
    let seal = std::mem::take(&mut index.seal);
    let (canonical, at) = unsealed(&index)?;
    let (head, tail) = canonical.split_at(at);
    let rest = json.strip_prefix(head).and_then(|rest| rest.strip_prefix(seal.as_bytes()));
    ensure!(
        rest == Some(tail),
        "it is not written as this program writes it: it was changed or is damaged"
    );
    ensure!(seal == seal_of(&canonical), "its seal is not that of its content: it was changed");
    rules::check(&index)?;
    index.seal = seal;
    Ok(index)
}

/// Refuses an index of another version, before anything else of it is checked, so that the
/// error names the version.
fn check_version(json: &[u8]) -> Result<()> {
    let rest = json.strip_prefix(b"{\n  \"format\": \"").and_then(|rest| {
        let rest = rest.strip_prefix(FORMAT.as_bytes())?;
        rest.strip_prefix(b"\",\n  \"version\": ")
    });
    let rest = rest.ok_or_else(|| anyhow!("it does not begin as the index of a bundle does"))?;
    let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let found = std::str::from_utf8(&rest[..digits]).context("digits are text")?;
    if found != VERSION.to_string() {
        let found: String = found.chars().take(20).collect();
        bail!(
            "it has version {found}; this program reads version {VERSION}. Build the bundle again, \
             or use the program that made it"
        );
    }
    Ok(())
}

/// The bytes of `index`, whose seal is empty, and the position at which the seal belongs.
fn unsealed(index: &Index) -> Result<(Vec<u8>, usize)> {
    let mut json = serde_json::to_vec_pretty(index)?;
    json.push(b'\n');
    let at = format!("{{\n  \"format\": \"{FORMAT}\",\n  \"version\": {VERSION},\n  \"seal\": \"");
    ensure!(json.starts_with(at.as_bytes()), "it has another format or version");
    Ok((json, at.len()))
}

fn seal_of(unsealed: &[u8]) -> String {
    format!("{KIND}{}", blake3::hash(unsealed).to_hex())
}

#[cfg(test)]
mod tests;
