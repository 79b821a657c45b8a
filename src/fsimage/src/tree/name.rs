//! Names and paths inside an image.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};

/// One component of a path: 1 to 255 bytes, no `/`, no NUL, not `.` or `..`.
#[derive(Clone)]
pub struct Name(Bytes);

/// Most names are short: those need no memory of their own.
#[derive(Clone)]
enum Bytes {
    Short { len: u8, bytes: [u8; SHORT] },
    Long(Box<[u8]>),
}

/// Bytes of the longest name that is kept inline without making [`Name`] larger.
const SHORT: usize = 22;

/// Why bytes are not a [`Name`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadName {
    /// There are no bytes.
    #[error("a name is empty")]
    Empty,
    /// The bytes are `.` or `..`, which stand for directories.
    #[error("a name is \".\" or \"..\"")]
    Dots,
    /// A NUL or a `/` is among the bytes.
    #[error("a name holds a NUL or a slash")]
    Forbidden,
    /// There are more than 255 bytes, namely this many.
    #[error("a name has {0} bytes; Linux allows 255")]
    Long(usize),
}

impl Name {
    /// The name that `bytes` are.
    ///
    /// # Errors
    /// When they are empty, `.` or `..`, have more than 255 bytes, or hold a NUL or a `/`.
    pub fn new(bytes: &[u8]) -> Result<Self, BadName> {
        match bytes {
            b"" => Err(BadName::Empty),
            b"." | b".." => Err(BadName::Dots),
            _ if bytes.len() > 255 => Err(BadName::Long(bytes.len())),
            _ if bytes.iter().any(|b| matches!(b, 0 | b'/')) => Err(BadName::Forbidden),
            _ if bytes.len() <= SHORT => {
                let mut short = [0; SHORT];
                short[..bytes.len()].copy_from_slice(bytes);
                Ok(Self(Bytes::Short { len: bytes.len() as u8, bytes: short }))
            }
            _ => Ok(Self(Bytes::Long(bytes.into()))),
        }
    }

    /// The bytes of the name.
    pub fn as_bytes(&self) -> &[u8] {
        match &self.0 {
            Bytes::Short { len, bytes } => &bytes[..usize::from(*len)],
            Bytes::Long(bytes) => bytes,
        }
    }
}

impl Name {
    /// Bytes that it has on the heap.
    pub(super) fn heap_bytes(&self) -> u64 {
        match &self.0 {
            Bytes::Short { .. } => 0,
            Bytes::Long(bytes) => bytes.len() as u64 + 16,
        }
    }
}

impl PartialEq for Name {
    fn eq(&self, other: &Self) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl Eq for Name {}

impl PartialOrd for Name {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Name {
    fn cmp(&self, other: &Self) -> Ordering {
        self.as_bytes().cmp(other.as_bytes())
    }
}

impl Hash for Name {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_bytes().hash(state);
    }
}

impl Borrow<[u8]> for Name {
    fn borrow(&self) -> &[u8] {
        self.as_bytes()
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.as_bytes().escape_ascii())
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

/// A path inside the image, from its root; empty is the root itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GuestPath(pub Vec<Name>);

impl GuestPath {
    /// The components of `bytes`, `/` and `.` between them dropped.
    ///
    /// # Errors
    /// When a component is `..`, has more than 255 bytes, or holds a NUL.
    pub fn parse(bytes: &[u8]) -> Result<Self, BadName> {
        bytes
            .split(|b| *b == b'/')
            .filter(|part| !part.is_empty() && *part != b".")
            .map(Name::new)
            .collect::<Result<_, _>>()
            .map(Self)
    }

    /// The path of `name` in the directory that this is.
    pub fn join(&self, name: &Name) -> Self {
        Self(self.0.iter().chain([name]).cloned().collect())
    }

    /// As a message names it; [`shown`] says how.
    pub fn shown(&self) -> String {
        if self.0.is_empty() { "/".to_owned() } else { shown(&self.to_bytes()).to_string() }
    }

    /// The components joined by `/`, with none in front.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.0.iter().map(Name::as_bytes).collect::<Vec<_>>().join(&b'/')
    }
}

impl fmt::Display for GuestPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("/");
        }
        write!(f, "{}", self.to_bytes().escape_ascii())
    }
}

/// Bytes of a name, a path or a value that a message shows; of longer ones it
/// shows the beginning, the end and the length.
const SHOWN: usize = 160;

/// Any bytes, as a message shows them: a line or two at most, without control
/// characters.
pub fn shown(bytes: &[u8]) -> Shown<'_> {
    Shown(bytes)
}

/// What [`shown`] returns.
#[derive(Debug)]
pub struct Shown<'b>(&'b [u8]);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(bytes) = self;
        if bytes.len() <= SHOWN {
            return write!(f, "{}", bytes.escape_ascii());
        }
        let (begin, end) = (&bytes[..SHOWN / 2], &bytes[bytes.len() - SHOWN / 4..]);
        write!(f, "{}…{} ({} bytes)", begin.escape_ascii(), end.escape_ascii(), bytes.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_show_a_line_or_two() {
        assert_eq!(shown(b"a\n\xe8").to_string(), "a\\n\\xe8");
        let long = [b"begin", &[b'x'; 100_000][..], b"end"].concat();
        let text = shown(&long).to_string();
        assert!(text.starts_with("beginxx") && text.ends_with("xend (100008 bytes)"), "{text}");
        assert!(text.len() < 160, "{text}");
    }

    #[test]
    fn names_are_bytes_but_never_more_than_one_component() {
        assert!(Name::new(b"new\nline\\\xe8").is_ok());
        assert!(Name::new(&[b'x'; 255]).is_ok());
        assert_eq!(Name::new(&[b'x'; 256]), Err(BadName::Long(256)));
        assert_eq!(Name::new(b".."), Err(BadName::Dots));
        assert_eq!(Name::new(b"a/b"), Err(BadName::Forbidden));
        assert_eq!(Name::new(b"a\0"), Err(BadName::Forbidden));
        assert_eq!(Name::new(b""), Err(BadName::Empty));
    }

    #[test]
    fn paths_are_normalised() {
        let path = GuestPath::parse(b"/./usr//lib/").unwrap();
        assert_eq!(path.to_bytes(), b"usr/lib");
        assert!(GuestPath::parse(b"a/../b").is_err());
        assert_eq!(GuestPath::parse(b"./").unwrap(), GuestPath::default());
    }

    #[test]
    fn short_and_long_names_are_one_order() {
        assert_eq!(size_of::<Name>(), 24);
        let name = |len: usize, last: u8| {
            let bytes = [&vec![b'x'; len - 1][..], &[last]].concat();
            Name::new(&bytes).unwrap()
        };
        let names: Vec<Name> =
            (1..=40).flat_map(|len| [name(len, b'a'), name(len, b'x')]).collect();
        for a in &names {
            for b in &names {
                assert_eq!(a.cmp(b), a.as_bytes().cmp(b.as_bytes()));
                assert_eq!(a == b, a.as_bytes() == b.as_bytes());
            }
        }
    }
}
