//! What is said of a file that a bundle lacks.

use std::io::ErrorKind;

use anyhow::anyhow;

pub(super) fn missing(error: std::io::Error) -> anyhow::Error {
    match error.kind() {
        ErrorKind::NotFound => anyhow!("it is missing"),
        ErrorKind::InvalidInput | ErrorKind::InvalidData => anyhow!("it {error}"),
        _ => error.into(),
    }
}
