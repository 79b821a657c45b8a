//! Parses JSON that may be hostile, with a limit on the memory that its values take.
//!
//! Values can take a hundred times the bytes of their text: an object of seven bytes
//! (`{"":0},`) takes 700 bytes of memory, so that 16 MiB of such objects take 1.6 GiB.

use serde::de::{DeserializeOwned, Error as _};

/// The most memory, in bytes, that the values of a document may take. An index of 16 MiB
/// with ordinary entries takes an eighth of it.
const MAX_WEIGHT: usize = 512 << 20;

/// Bytes of memory for an object: its map begins with room for eleven entries.
const OBJECT: usize = 700;

/// Bytes of memory for a value; for a list or a text, those beyond its content.
const VALUE: usize = 64;

/// As [`serde_json::from_slice`].
///
/// # Errors
/// Also when the document would take much more memory than it has bytes.
pub fn from_slice<T: DeserializeOwned>(bytes: &[u8]) -> serde_json::Result<T> {
    if weight(bytes) > MAX_WEIGHT {
        return Err(serde_json::Error::custom("it has too many values"));
    }
    serde_json::from_slice(bytes)
}

/// An upper bound of the memory, in bytes, that the values of the document `bytes` take.
fn weight(bytes: &[u8]) -> usize {
    let mut weight = bytes.len();
    let mut rest = bytes.iter();
    while let Some(byte) = rest.next() {
        weight += match byte {
            b'{' => OBJECT,
            b'[' | b',' => VALUE,
            b'"' => {
                // Skips to the end of the text. An escaped quote does not end it.
                while let Some(byte) = rest.next() {
                    match byte {
                        b'"' => break,
                        b'\\' => drop(rest.next()),
                        _ => {}
                    }
                }
                VALUE
            }
            _ => 0,
        };
    }
    weight
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn small_values_by_the_million_are_refused() {
        for (item, count) in [("{\"\":0}", 2 << 20), ("0", 8 << 20), ("[]", 5 << 20)] {
            let text = format!("[{}{item}]", format!("{item},").repeat(count));
            let error = from_slice::<Value>(text.as_bytes()).unwrap_err().to_string();
            assert!(error.contains("too many values"), "{error}");
        }
        // What is in a text is text.
        let text = format!("[\"{}\"]", "\\\"{,[".repeat(4 << 20));
        assert!(from_slice::<Value>(text.as_bytes()).is_ok());
        let entry = r#"{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:0000000000000000000000000000000000000000000000000000000000000000","size":1234,"platform":{"architecture":"amd64","os":"linux"}}"#;
        let index = format!("[{}{entry}]", format!("{entry},").repeat((16 << 20) / entry.len()));
        assert!(weight(index.as_bytes()) < MAX_WEIGHT / 2);
    }
}
