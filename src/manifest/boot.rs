//! How a bundle boots when nobody says otherwise: the manifest's `boot:`, which
//! travels in the bundle's index.

use std::collections::BTreeMap;
use std::fmt;
use std::num::{NonZeroU8, NonZeroU32};
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::ByteSize;
use super::lenient::{self, Flag, Int, Text};

/// Defaults of `rootfs-boot` for one bundle. What is not set is the image's, or
/// the program's own.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct Boot {
    #[serde(
        skip_serializing_if = "Option::is_none",
        deserialize_with = "lenient::optional_number"
    )]
    #[schemars(with = "Option<Int>")]
    pub cpus: Option<NonZeroU8>,
    /// Bytes; whole MiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Text>")]
    pub memory: Option<ByteSize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entrypoint: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command: Option<Vec<String>>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workdir: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Vec<String>")]
    pub tmpfs: Vec<Tmpfs>,
    #[serde(skip_serializing_if = "std::ops::Not::not", deserialize_with = "lenient::flag")]
    #[schemars(with = "Flag")]
    pub read_only: bool,
    /// Given to a machine only by whoever starts it.
    #[serde(skip_serializing_if = "std::ops::Not::not", deserialize_with = "lenient::flag")]
    #[schemars(with = "Flag")]
    pub net: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Vec<String>")]
    pub publish: Vec<Publish>,
    /// Seconds.
    #[serde(
        skip_serializing_if = "Option::is_none",
        deserialize_with = "lenient::optional_number"
    )]
    #[schemars(with = "Option<Int>")]
    pub timeout: Option<NonZeroU32>,
}

/// Memory as a directory: `PATH[:SIZE]`, or `none` for no default ones.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Tmpfs {
    None,
    At {
        path: String,
        /// Bytes; half of the memory if none is given.
        size: Option<u64>,
    },
}

/// A port of the host that leads to one of the guest: `HOST:GUEST`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Publish {
    pub host: u16,
    pub guest: u16,
}

/// A text that is none of what was asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadBoot {
    #[error("{0:?} is no tmpfs; write /PATH, /PATH:SIZE, or none")]
    Tmpfs(String),
    #[error("{0:?} publishes no port; write HOST:GUEST, each 1 to 65535")]
    Publish(String),
}

impl FromStr for Tmpfs {
    type Err = BadBoot;

    fn from_str(text: &str) -> Result<Self, BadBoot> {
        let bad = || BadBoot::Tmpfs(text.to_owned());
        if text == "none" {
            return Ok(Self::None);
        }
        let (path, size) = match text.split_once(':') {
            None => (text, None),
            Some((path, size)) => (path, Some(size.parse::<ByteSize>().map_err(|_| bad())?.0)),
        };
        if !path.starts_with('/') || path == "/" || path.contains('\0') || size == Some(0) {
            return Err(bad());
        }
        Ok(Self::At { path: path.to_owned(), size })
    }
}

impl fmt::Display for Tmpfs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::At { path, size: None } => f.write_str(path),
            Self::At { path, size: Some(size) } => write!(f, "{path}:{size}"),
        }
    }
}

impl FromStr for Publish {
    type Err = BadBoot;

    fn from_str(text: &str) -> Result<Self, BadBoot> {
        let port = |text: &str| text.parse::<u16>().ok().filter(|port| *port != 0);
        let ports =
            text.split_once(':').and_then(|(host, guest)| Some((port(host)?, port(guest)?)));
        let (host, guest) = ports.ok_or_else(|| BadBoot::Publish(text.to_owned()))?;
        Ok(Self { host, guest })
    }
}

impl fmt::Display for Publish {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.guest)
    }
}

macro_rules! as_text {
    ($($name:ty),*) => { $(
        impl TryFrom<String> for $name {
            type Error = BadBoot;

            fn try_from(text: String) -> Result<Self, BadBoot> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(value: $name) -> Self {
                value.to_string()
            }
        }
    )* };
}

as_text!(Tmpfs, Publish);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tmpfs_and_ports_are_read_and_written_alike() {
        for text in ["none", "/tmp", "/var/cache:1048576"] {
            assert_eq!(text.parse::<Tmpfs>().unwrap().to_string(), text);
        }
        assert_eq!("/a:1MiB".parse::<Tmpfs>().unwrap().to_string(), "/a:1048576");
        for bad in ["", "tmp", "/", "/a:", "/a:x", "/a:0"] {
            assert!(bad.parse::<Tmpfs>().is_err(), "{bad}");
        }
        assert_eq!("8080:80".parse(), Ok(Publish { host: 8080, guest: 80 }));
        for bad in ["80", "0:80", "80:0", "65536:1", "a:b", ":"] {
            assert!(bad.parse::<Publish>().is_err(), "{bad}");
        }
    }
}
