//! Errors of files that a bundle lacks or that are not regular files.

use std::io::ErrorKind;

use anyhow::anyhow;

/// The message of an `error` from opening or reading a file of a bundle.
pub(super) fn missing(error: std::io::Error) -> anyhow::Error {
    match error.kind() {
        ErrorKind::NotFound => anyhow!("it is missing"),
        ErrorKind::InvalidInput | ErrorKind::InvalidData => anyhow!("it {error}"),
        _ => error.into(),
    }
}
