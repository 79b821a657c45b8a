//! Names of images in registries, by the grammar of distribution/reference:
//! `[HOST[:PORT]/]NAME[:TAG][@DIGEST]`.
//!
//! The parser is written by hand. Compiling the regular expressions of that grammar takes
//! some 40 ms of CPU, several times as long as a start that finds everything in its cache.
//! A test compares the parser with that of `oci_spec`, which uses those expressions.

use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;

use fsimage::digest::Digest;

/// The registry of a name that does not name one.
const DOCKER_HUB: &str = "docker.io";
/// Another name of the same registry, and the host that serves it.
const DOCKER_HUB_HOST: &str = "index.docker.io";
/// Where Docker Hub keeps the repositories whose names have one part.
const DOCKER_LIBRARY: &str = "library";

const DEFAULT_TAG: &str = "latest";

/// Characters of a repository's name.
const MAX_REPOSITORY: usize = 255;
/// Characters of a tag.
const MAX_TAG: usize = 128;

/// The name of an image in a registry, in full: what people may leave out is filled in.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Reference {
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

/// A text that does not name an image in a registry.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadName {
    /// The text has no name, or nothing before the tag or the digest.
    #[error("the name is empty")]
    Empty,
    /// The first part is taken for a host, because it has a dot, a colon or an upper-case
    /// letter, but it is not a valid one.
    #[error(
        "{0:?} is not a host: a host has letters, digits, dots and inner hyphens, and may end in \
         :PORT"
    )]
    Host(String),
    /// The text in brackets is not an IPv6 address.
    #[error("{0:?} is not an IPv6 address")]
    Address(String),
    /// An address in brackets is not followed by `:PORT/` or `/`.
    #[error("[{0}] must be followed by /NAME or :PORT/NAME")]
    AfterAddress(String),
    /// A part of the name, between slashes, is not valid.
    #[error(
        "{0:?} cannot be a part of a name: a part has lower-case letters and digits, and between \
         them one dot, one or two underscores, or hyphens"
    )]
    Part(String),
    /// The repository's name is too long: it has so many characters.
    #[error("the name has {0} characters; {MAX_REPOSITORY} are allowed")]
    TooLong(usize),
    /// The text after the colon behind the name is not a tag.
    #[error(
        "{0:?} is not a tag: a tag has 1 to {MAX_TAG} letters, digits, dots, hyphens and underscores, \
         and begins with neither a dot nor a hyphen"
    )]
    Tag(String),
    /// The text after the `@` is not a digest.
    #[error("{0:?} is not a digest: a digest is sha256: and 64 lower-case hex digits")]
    Digest(String),
    /// The name has 64 hex digits, which Docker takes for an image ID.
    #[error("64 hex digits are an image ID, and not a name")]
    Id,
}

impl Reference {
    /// The registry's name: `HOST[:PORT]`, the host perhaps an IPv6 address in brackets.
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// The `HOST[:PORT]` that serves the registry.
    pub fn host(&self) -> &str {
        if self.registry == DOCKER_HUB { DOCKER_HUB_HOST } else { &self.registry }
    }

    /// The name inside the registry.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The tag: the one that was written, or `latest` where there is no digest either.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest, if one was written.
    pub fn digest(&self) -> Option<Digest> {
        self.digest
    }

    /// A reference to `tag` in the same repository.
    pub fn with_tag(&self, tag: impl Into<String>) -> Self {
        Self { tag: Some(tag.into()), digest: None, ..self.clone() }
    }

    /// A reference to `digest` in the same repository, without a tag.
    pub fn with_digest(&self, digest: Digest) -> Self {
        Self { tag: None, ..self.pinned(digest) }
    }

    /// The same reference, pinned to `digest`.
    pub fn pinned(&self, digest: Digest) -> Self {
        Self { digest: Some(digest), ..self.clone() }
    }
}

impl FromStr for Reference {
    type Err = BadName;

    fn from_str(text: &str) -> Result<Self, BadName> {
        // Neither a name nor a tag has an @.
        let (text, digest) = match text.split_once('@') {
            Some((text, digest)) => {
                let bad = |_| BadName::Digest(digest.to_owned());
                (text, Some(digest.parse().map_err(bad)?))
            }
            None => (text, None),
        };
        let (registry, rest) = split_registry(text)?;
        // Behind the registry, a colon can only stand before the tag.
        let (path, tag) = match rest.split_once(':') {
            Some((path, tag)) => (path, Some(tag)),
            None => (rest, None),
        };
        if path.is_empty() {
            return Err(BadName::Empty);
        }
        if let Some(part) = path.split('/').find(|part| !is_part(part)) {
            return Err(BadName::Part(part.to_owned()));
        }
        tag.map_or(Ok(()), check_tag)?;
        let repository = match registry == DOCKER_HUB && !path.contains('/') {
            true => format!("{DOCKER_LIBRARY}/{path}"),
            false => path.to_owned(),
        };
        if repository.len() > MAX_REPOSITORY {
            return Err(BadName::TooLong(repository.len()));
        }
        let tag = tag.or(digest.is_none().then_some(DEFAULT_TAG)).map(str::to_owned);
        Ok(Self { registry, repository, tag, digest })
    }
}

/// The registry that `text` names, or Docker Hub, and what follows it.
fn split_registry(text: &str) -> Result<(String, &str), BadName> {
    if let Some(rest) = text.strip_prefix('[') {
        return split_address(rest);
    }
    // A first part without a sign of a host belongs to a name on Docker Hub. An upper-case
    // letter is such a sign, because parts of a name have none.
    let is_host = |first: &str| {
        let is_upper = |byte: u8| byte.is_ascii_uppercase();
        first.contains(['.', ':']) || first == "localhost" || first.bytes().any(is_upper)
    };
    match text.split_once('/') {
        Some((DOCKER_HUB_HOST, rest)) => Ok((DOCKER_HUB.to_owned(), rest)),
        // The grammar does not allow underscores in a host, but such hosts occur; `is_part`
        // accepts them.
        Some((host, rest)) if is_host(host) => match is_host_and_port(host) || is_part(host) {
            true => Ok((host.to_owned(), rest)),
            false => Err(BadName::Host(host.to_owned())),
        },
        _ => Ok((DOCKER_HUB.to_owned(), text)),
    }
}

/// As [`split_registry`], for a `text` that follows a `[`.
fn split_address(text: &str) -> Result<(String, &str), BadName> {
    let (written, rest) = text.split_once(']').unwrap_or((text, ""));
    let address: Ipv6Addr = written.parse().map_err(|_| BadName::Address(written.to_owned()))?;
    let split = rest.split_once('/').filter(|(port, _)| port.is_empty() || is_port(port));
    let (port, rest) = split.ok_or_else(|| BadName::AfterAddress(written.to_owned()))?;
    Ok((format!("[{address}]{port}"), rest))
}

/// Whether `text` is `HOST[:PORT]`, where the host is a name or an IPv4 address.
fn is_host_and_port(text: &str) -> bool {
    let colon = text.find(':').unwrap_or(text.len());
    let (host, port) = text.split_at(colon);
    let is_label = |label: &str| {
        let is_inner = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        let has_hyphen_at_end = label.starts_with('-') || label.ends_with('-');
        !label.is_empty() && !has_hyphen_at_end && label.bytes().all(is_inner)
    };
    host.split('.').all(is_label) && (port.is_empty() || is_port(port))
}

/// Whether `text` is a colon and digits.
fn is_port(text: &str) -> bool {
    let digits = text.strip_prefix(':').unwrap_or_default();
    !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
}

/// Whether `text` can stand between two slashes of a name.
fn is_part(text: &str) -> bool {
    let is_word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let is_separator =
        |text: &str| matches!(text, "" | "." | "_" | "__") || text.bytes().all(|byte| byte == b'-');
    let is_end = |byte: Option<u8>| byte.is_some_and(is_word);
    is_end(text.bytes().next())
        && is_end(text.bytes().last())
        && text.split(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit()).all(is_separator)
}

/// Refuses a `text` that is not a tag.
///
/// # Errors
/// When it is empty or too long, or has a character that a tag does not have there.
pub fn check_tag(text: &str) -> Result<(), BadName> {
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let is_tag = text.len() <= MAX_TAG
        && text.bytes().next().is_some_and(is_word)
        && text.bytes().all(|byte| is_word(byte) || matches!(byte, b'.' | b'-'));
    if is_tag { Ok(()) } else { Err(BadName::Tag(text.to_owned())) }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        self.tag.iter().try_for_each(|tag| write!(f, ":{tag}"))?;
        self.digest.iter().try_for_each(|digest| write!(f, "@{digest}"))
    }
}

#[cfg(test)]
mod tests;
