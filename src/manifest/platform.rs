//! Platforms in OCI's words.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// An operating system and an architecture, perhaps with a variant.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Platform {
    pub os: String,
    pub architecture: String,
    pub variant: Option<String>,
}

/// A text that is no platform.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no platform; write OS/ARCHITECTURE[/VARIANT], linux/amd64 for one")]
pub struct BadPlatform(String);

impl Platform {
    /// Linux on the architecture that this program was built for.
    pub fn host() -> Self {
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            "x86" => "386",
            "powerpc64" => "ppc64le",
            other => other,
        };
        Self { os: "linux".into(), architecture: architecture.into(), variant: None }
    }

    /// Whether an image of `self` is one for `wanted`. A variant counts when
    /// both have one; arm64 is its v8.
    pub fn serves(&self, wanted: &Platform) -> bool {
        let variant = |platform: &Platform| match (&*platform.architecture, &platform.variant) {
            ("arm64", None) => Some("v8".to_owned()),
            (_, variant) => variant.clone(),
        };
        self.os == wanted.os
            && self.architecture == wanted.architecture
            && match (variant(self), variant(wanted)) {
                (Some(has), Some(wants)) => has == wants,
                _ => true,
            }
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        self.variant.iter().try_for_each(|variant| write!(f, "/{variant}"))
    }
}

impl FromStr for Platform {
    type Err = BadPlatform;

    fn from_str(text: &str) -> Result<Self, BadPlatform> {
        let parts: Vec<&str> = text.split('/').collect();
        let plain = |part: &&str| {
            !part.is_empty()
                && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
        };
        let owned = |part: &str| part.to_owned();
        match parts[..] {
            _ if !parts.iter().all(plain) => Err(BadPlatform(text.to_owned())),
            [os, arch] => Ok(Self { os: owned(os), architecture: owned(arch), variant: None }),
            [os, arch, variant] => {
                Ok(Self { os: owned(os), architecture: owned(arch), variant: Some(owned(variant)) })
            }
            _ => Err(BadPlatform(text.to_owned())),
        }
    }
}

impl TryFrom<String> for Platform {
    type Error = BadPlatform;

    fn try_from(text: String) -> Result<Self, BadPlatform> {
        text.parse()
    }
}

impl From<Platform> for String {
    fn from(platform: Platform) -> Self {
        platform.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variants_count_when_both_have_one() {
        let serves = |has: &str, wanted: &str| {
            has.parse::<Platform>().unwrap().serves(&wanted.parse().unwrap())
        };
        assert!(serves("linux/arm64/v8", "linux/arm64"));
        assert!(serves("linux/arm64", "linux/arm64/v8"));
        assert!(serves("linux/arm/v7", "linux/arm"));
        assert!(!serves("linux/arm/v6", "linux/arm/v7"));
        assert!(!serves("linux/amd64", "linux/arm64"));
        assert!("amd64".parse::<Platform>().is_err() && "a/b/c/d".parse::<Platform>().is_err());
    }
}
