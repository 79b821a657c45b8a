//! Platforms as OCI names them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// An operating system and an architecture, perhaps with a variant.
///
/// Always in normal form, which is containerd's: names of Go (`amd64` for
/// `x86_64`), lower case, and no variant where it is the usual one of the
/// architecture (amd64's v1, arm64's v8). Arm alone always has one: v7, unless
/// another is given. So equal platforms compare equal however they were spelled.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Platform {
    /// Operating system, by Go's name.
    pub os: String,
    /// Architecture, by Go's name.
    pub architecture: String,
    /// Variant of the architecture; None where it is the usual one.
    pub variant: Option<String>,
}

/// A text that is not a platform.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a platform; write OS/ARCHITECTURE[/VARIANT], for example linux/amd64")]
pub struct BadPlatform(String);

impl Platform {
    /// Linux on the architecture that this program was built for.
    pub fn host() -> Self {
        let architecture = match std::env::consts::ARCH {
            "x86" => "386",
            "powerpc64" => "ppc64le",
            other => other,
        };
        Self::normal("linux", architecture, "")
    }

    /// The platform that an image says it is for. An empty variant is an absent one, and so
    /// is one that is not valid. `None` if `os` or `architecture` is not a valid name.
    pub fn of_image(os: &str, architecture: &str, variant: &str) -> Option<Self> {
        let variant = if is_name(variant) { variant } else { "" };
        (is_name(os) && is_name(architecture)).then(|| Self::normal(os, architecture, variant))
    }

    fn normal(os: &str, architecture: &str, variant: &str) -> Self {
        let (mut os, architecture) = (os.to_ascii_lowercase(), architecture.to_ascii_lowercase());
        if os == "macos" {
            os = "darwin".into();
        }
        let variant = variant.to_ascii_lowercase();
        let (architecture, variant) = match (&*architecture, &*variant) {
            ("i386" | "386", _) => ("386", ""),
            ("x86_64" | "x86-64" | "amd64", "v1" | "1") => ("amd64", ""),
            ("x86_64" | "x86-64" | "amd64", other) => ("amd64", other),
            ("aarch64" | "arm64", "8" | "v8" | "v8.0") => ("arm64", ""),
            ("aarch64" | "arm64", "9" | "9.0" | "v9.0") => ("arm64", "v9"),
            ("aarch64" | "arm64", other) => ("arm64", other),
            ("armhf", _) | ("arm", "" | "7") => ("arm", "v7"),
            ("armel", _) | ("arm", "6") => ("arm", "v6"),
            ("arm", "5") => ("arm", "v5"),
            ("arm", "8") => ("arm", "v8"),
            (architecture, variant) => (architecture, variant),
        };
        let variant = (!variant.is_empty()).then(|| variant.to_owned());
        Self { os, architecture: architecture.to_owned(), variant }
    }

    /// How well an image for `self` serves where `wanted` is asked for: 0 is
    /// best, `None` not at all.
    ///
    /// The order is containerd's (`platforms.Only`): a processor runs what was
    /// made for its own variant or an older one, and the newest of those is
    /// best. Unlike there, a 32-bit image does not serve on a 64-bit processor: the
    /// guest's kernel need not run it.
    pub fn rank(&self, wanted: &Platform) -> Option<u32> {
        if !self.is_same_machine(wanted) {
            return None;
        }
        if self.variant == wanted.variant {
            return Some(0);
        }
        let (has, wants) = (self.version()?, wanted.version()?);
        match (&*self.architecture, has, wants) {
            ("amd64", (has, 0), (wants, 0)) => wants.checked_sub(has),
            ("arm", (has @ 5.., 0), (wants, 0)) => wants.checked_sub(has),
            ("arm64", (has, minor), (wants, wanted_minor)) if has == wants => {
                wanted_minor.checked_sub(minor)
            }
            // Arm's v9.x has all of v8.(x + 5); the last of v8 is v8.9.
            ("arm64", (8, minor), (9, wanted_minor)) => {
                let newest = wanted_minor.saturating_add(5).min(9);
                Some(wanted_minor.saturating_add(1).saturating_add(newest.checked_sub(minor)?))
            }
            _ => None,
        }
    }

    /// Whether operating system and architecture are the same.
    pub fn is_same_machine(&self, other: &Platform) -> bool {
        (&self.os, &self.architecture) == (&other.os, &other.architecture)
    }

    /// The numbers of a variant `vMAJOR[.MINOR]`.
    fn version(&self) -> Option<(u32, u32)> {
        let variant = match (&*self.architecture, &self.variant) {
            (_, Some(variant)) => variant,
            ("amd64", None) => "v1",
            ("arm64", None) => "v8",
            _ => return None,
        };
        let (major, minor) =
            variant.strip_prefix('v').map(|v| v.split_once('.').unwrap_or((v, "0")))?;
        let number = |text: &str| {
            let digits = text.bytes().all(|b| b.is_ascii_digit());
            digits.then(|| text.parse().ok()).flatten()
        };
        Some((number(major)?, number(minor)?))
    }
}

/// Whether `text` can be a part of a platform.
fn is_name(text: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
    (1..=64).contains(&text.len()) && text.bytes().all(plain)
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
        match parts[..] {
            _ if !parts.iter().all(|part| is_name(part)) => Err(BadPlatform(text.to_owned())),
            [os, architecture] => Ok(Self::normal(os, architecture, "")),
            [os, architecture, variant] => Ok(Self::normal(os, architecture, variant)),
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

    fn parse(text: &str) -> Platform {
        text.parse().unwrap()
    }

    #[test]
    fn spellings_have_one_normal_form() {
        // From the tests of github.com/containerd/platforms, but for Arm's v7.
        for (text, normal) in [
            ("linux/x86_64", "linux/amd64"),
            ("Linux/x86-64", "linux/amd64"),
            ("linux/amd64/v1", "linux/amd64"),
            ("linux/amd64/V2", "linux/amd64/v2"),
            ("linux/i386", "linux/386"),
            ("linux/aarch64", "linux/arm64"),
            ("linux/arm64/v8", "linux/arm64"),
            ("linux/arm64/8", "linux/arm64"),
            ("linux/arm64/v8.1", "linux/arm64/v8.1"),
            ("linux/arm", "linux/arm/v7"),
            ("linux/arm/6", "linux/arm/v6"),
            ("linux/armhf", "linux/arm/v7"),
            ("linux/armel", "linux/arm/v6"),
            ("macOS/arm64", "darwin/arm64"),
            ("linux/s390x", "linux/s390x"),
        ] {
            assert_eq!(parse(text).to_string(), normal);
        }
        for bad in ["amd64", "a/b/c/d", "linux/", "linux/amd64/", "linux/a b", ""] {
            assert!(bad.parse::<Platform>().is_err(), "{bad}");
        }
    }

    #[test]
    fn what_an_image_says_may_be_odd() {
        let of = |os, architecture, variant| {
            Platform::of_image(os, architecture, variant).map(|platform| platform.to_string())
        };
        assert_eq!(of("linux", "amd64", "").unwrap(), "linux/amd64");
        assert_eq!(of("linux", "amd64", "v8 (odd)/x").unwrap(), "linux/amd64");
        assert_eq!(of("linux", "arm64", "\u{1b}[2J").unwrap(), "linux/arm64");
        assert_eq!(of("linux", "", ""), None);
        assert_eq!(of("linux", "amd 64", ""), None);
    }

    #[test]
    fn an_older_variant_serves_a_newer_one_and_never_the_reverse() {
        // From the tests of github.com/containerd/platforms (TestOnly, TestCompareOnly).
        let order = |wanted: &str, all: &str| {
            let mut ranks: Vec<(u32, &str)> = all
                .split(' ')
                .filter_map(|text| Some((parse(text).rank(&parse(wanted))?, text)))
                .collect();
            ranks.sort_by_key(|(rank, _)| *rank);
            ranks.into_iter().map(|(_, text)| text).collect::<Vec<_>>().join(" ")
        };
        let amd = "linux/amd64/v3 linux/amd64 linux/amd64/v2 linux/386 windows/amd64";
        assert_eq!(order("linux/amd64", amd), "linux/amd64");
        assert_eq!(order("linux/amd64/v2", amd), "linux/amd64/v2 linux/amd64");
        assert_eq!(order("linux/amd64/v4", amd), "linux/amd64/v3 linux/amd64/v2 linux/amd64");
        let arm = "linux/arm/v4 linux/arm/v5 linux/arm/v6 linux/arm linux/arm/v8 linux/arm64";
        assert_eq!(order("linux/arm", arm), "linux/arm linux/arm/v6 linux/arm/v5");
        assert_eq!(order("linux/arm/v6", arm), "linux/arm/v6 linux/arm/v5");
        assert_eq!(order("linux/arm/v4", arm), "linux/arm/v4");
        let arm64 = "linux/arm64 linux/arm64/v8.1 linux/arm64/v9 linux/arm64/v8.6 linux/arm64/v8.5";
        assert_eq!(order("linux/arm64/v8", arm64), "linux/arm64");
        assert_eq!(order("linux/arm64/v8.2", arm64), "linux/arm64/v8.1 linux/arm64");
        assert_eq!(
            order("linux/arm64/v9", arm64),
            "linux/arm64/v9 linux/arm64/v8.5 linux/arm64/v8.1 linux/arm64"
        );
        // No order is known of these.
        assert_eq!(order("linux/ppc64le/power9", "linux/ppc64le/power8 linux/ppc64le"), "");
    }
}
