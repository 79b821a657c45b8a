//! Values of options.

use bundle::boot::ByteSize;
use fsimage::budget::MAX_SPARSE;
use oci::{BadName, Reference, check_tag};

/// Seconds since 1970; a variable that is set to nothing says nothing.
#[derive(Clone, Copy)]
pub(crate) struct Epoch(pub Option<i64>);

impl std::str::FromStr for Epoch {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.is_empty() { Ok(Self(None)) } else { text.parse().map(|sec| Self(Some(sec))) }
    }
}

/// A tag as registries have them.
pub(super) fn tag(text: &str) -> Result<String, BadName> {
    check_tag(text).map(|()| text.to_owned())
}

/// A name without a tag.
pub(super) fn repository(text: &str) -> Result<Reference, String> {
    let name: Reference = text.parse().map_err(|error| format!("{error}"))?;
    let last = text.rsplit('/').next().unwrap_or_default();
    match name.digest().is_some() || last.contains(':') {
        true => Err("a repository has neither tag nor digest: its tags are the layers".into()),
        false => Ok(name),
    }
}

pub(super) fn pair(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("write NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

pub(super) fn size(text: &str) -> Result<u64, String> {
    text.parse::<ByteSize>().map(|size| size.0).map_err(|error| error.to_string())
}

pub(super) fn sparse_size(text: &str) -> Result<u64, String> {
    match size(text)? {
        bytes if bytes <= MAX_SPARSE => Ok(bytes),
        _ => Err("readers of bundles allow 32GiB".to_owned()),
    }
}
