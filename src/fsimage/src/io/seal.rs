//! JSON documents of this program's own that are believed only to the byte.
//!
//! `{"seal":"<hex>","value":<JSON>}` and a newline: the seal is a BLAKE3 over what
//! the document is about and the bytes of its value. It tells a document that rotted,
//! was edited, or got the name of another; it is no signature.

use serde::Serialize;
use serde::de::DeserializeOwned;

const START: &str = "{\"seal\":\"";
const MIDDLE: &str = "\",\"value\":";
const END: &str = "}\n";
const HEX: usize = 64;

/// The document with the content `value`, about `subject`.
///
/// # Errors
/// When `value` does not let itself be serialized, or has a map with keys that JSON cannot
/// have.
pub fn write<T: Serialize>(subject: &str, value: &T) -> serde_json::Result<Vec<u8>> {
    let json = serde_json::to_vec(value)?;
    let seal = seal(subject, &json).to_hex();
    Ok([START.as_bytes(), seal.as_bytes(), MIDDLE.as_bytes(), &json, END.as_bytes()].concat())
}

/// The content of a document about `subject`; `None` if it is not as it was written.
pub fn read<T: DeserializeOwned>(subject: &str, bytes: &[u8]) -> Option<T> {
    let (hex, rest) = bytes.strip_prefix(START.as_bytes())?.split_at_checked(HEX)?;
    let json = rest.strip_prefix(MIDDLE.as_bytes())?.strip_suffix(END.as_bytes())?;
    if seal(subject, json).to_hex().as_bytes() != hex {
        return None;
    }
    serde_json::from_slice(json).ok()
}

fn seal(subject: &str, json: &[u8]) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new_derive_key("rootfs-compile sealed document v1");
    // With its length, the subject does not run into the value.
    hasher.update(&(subject.len() as u64).to_le_bytes());
    hasher.update(subject.as_bytes()).update(json);
    hasher.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_flipped_bit_and_no_other_name_is_believed() {
        let value = vec![1u64, 2, 300];
        let bytes = write("a", &value).unwrap();
        assert_eq!(read::<Vec<u64>>("a", &bytes).unwrap(), value);
        assert!(read::<Vec<u64>>("b", &bytes).is_none());
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut mutant = bytes.clone();
                mutant[at] ^= 1 << bit;
                assert!(read::<Vec<u64>>("a", &mutant).is_none(), "bit {bit} of byte {at}");
            }
            assert!(read::<Vec<u64>>("a", &bytes[..at]).is_none());
        }
        assert!(read::<Vec<u64>>("a", &[&bytes[..], b" "].concat()).is_none());
    }
}
