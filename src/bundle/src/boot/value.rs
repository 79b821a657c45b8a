//! The values of `boot:`. Each is defined here alone, and `rootfs-boot` uses the same types for
//! its options, so that it accepts every value that a build accepts.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::lenient::Text;
use super::size::ByteSize;
use crate::boot::bad_value::BadValue;

/// The most bytes of a host name on Linux.
pub(super) const HOSTNAME_BYTES: usize = 64;
pub(super) const MIB: u64 = 1 << 20;
/// The least memory of a machine. With 64 MiB, libkrunfw's kernel (6.12) panics before it
/// starts a process; with 72 MiB, 3 MiB are left to the command; with this, 9 MiB.
pub(super) const MEMORY: u64 = 80 * MIB;

/// A directory in memory (tmpfs): `PATH[:SIZE]`. The word `none` leaves out those that a
/// machine has by default.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tmpfs {
    /// The default directories in memory are left out.
    None,
    /// A directory in memory.
    At {
        /// Absolute path in the guest, which is not `/`.
        path: String,
        /// The most bytes it may hold; half of the machine's memory if it is not given.
        size: Option<u64>,
    },
}

impl FromStr for Tmpfs {
    type Err = BadValue;

    fn from_str(text: &str) -> Result<Self, BadValue> {
        let bad = || BadValue::Tmpfs(text.to_owned());
        if text == "none" {
            return Ok(Self::None);
        }
        let (path, size) = match text.split_once(':') {
            None => (text, None),
            Some((path, size)) => {
                // docker's --tmpfs writes `size=` before the size.
                let size = size.strip_prefix("size=").unwrap_or(size);
                (path, Some(size.parse::<ByteSize>().map_err(|_| bad())?.0))
            }
        };
        let is_root = path.bytes().all(|b| b == b'/');
        if !path.starts_with('/') || is_root || path.contains('\0') || size == Some(0) {
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

/// A port of the host that leads to one of the guest: `HOST:GUEST`, or `PORT` for
/// the same on both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Publish {
    /// TCP port of the host, 1 to 65535.
    pub host: u16,
    /// TCP port of the guest, 1 to 65535.
    pub guest: u16,
}

impl FromStr for Publish {
    type Err = BadValue;

    fn from_str(text: &str) -> Result<Self, BadValue> {
        let bad = || BadValue::Publish(text.to_owned());
        let port = |text: &str| text.parse::<u16>().ok().filter(|port| *port != 0);
        let ports = text.strip_suffix("/tcp").unwrap_or(text);
        if ports.contains('/') || ports.matches(':').count() > 1 {
            return Err(BadValue::PublishKind(text.to_owned()));
        }
        let (host, guest) = ports.split_once(':').unwrap_or((ports, ports));
        Ok(Self { host: port(host).ok_or_else(bad)?, guest: port(guest).ok_or_else(bad)? })
    }
}

impl fmt::Display for Publish {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.guest)
    }
}

/// The name of a machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hostname(String);

impl Hostname {
    /// The name as text: 1 to 64 letters, digits, hyphens, dots and underscores.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Hostname {
    type Err = BadValue;

    fn from_str(text: &str) -> Result<Self, BadValue> {
        let fits = |b: u8| b.is_ascii_alphanumeric() || b"-._".contains(&b);
        match text.len() {
            1..=HOSTNAME_BYTES if text.bytes().all(fits) => Ok(Self(text.to_owned())),
            _ => Err(BadValue::Hostname(text.to_owned())),
        }
    }
}

impl fmt::Display for Hostname {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A line of /etc/hosts: `NAME:IP`, or `NAME=IP`; an IPv6 address may have brackets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostEntry {
    /// The host's name.
    pub name: String,
    /// The IP address that the name leads to.
    pub address: IpAddr,
}

impl FromStr for HostEntry {
    type Err = BadValue;

    fn from_str(text: &str) -> Result<Self, BadValue> {
        let bad = || BadValue::HostEntry(text.to_owned());
        let (name, address) = text.split_once(['=', ':']).ok_or_else(bad)?;
        if address == "host-gateway" {
            return Err(BadValue::HostGateway);
        }
        let plain = |c: char| !c.is_whitespace() && !c.is_control() && c != '#';
        let bare = address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        let address = bare.unwrap_or(address).parse().map_err(|_| bad())?;
        match !name.is_empty() && name.chars().all(plain) {
            true => Ok(Self { name: name.to_owned(), address }),
            false => Err(bad()),
        }
    }
}

impl fmt::Display for HostEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.name, self.address)
    }
}

/// The address of a name server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dns(pub IpAddr);

impl FromStr for Dns {
    type Err = BadValue;

    fn from_str(text: &str) -> Result<Self, BadValue> {
        text.parse().map(Self).map_err(|_| BadValue::Dns(text.to_owned()))
    }
}

impl fmt::Display for Dns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Who runs the command: `USER[:GROUP]`, each a name of the image or a number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User(String);

impl FromStr for User {
    type Err = BadValue;

    fn from_str(text: &str) -> Result<Self, BadValue> {
        let bad = || BadValue::User(text.to_owned());
        let parts: Vec<&str> = text.split(':').collect();
        // To the kernel, the largest number means "no change".
        let fits = |part: &&str| {
            let is_number = !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
            !is_number || part.parse::<u32>().is_ok_and(|id| id != u32::MAX)
        };
        let plain = !text.contains(|c: char| c.is_control());
        match parts.len() <= 2 && parts.iter().all(fits) && plain {
            true => Ok(Self(text.to_owned())),
            false => Err(bad()),
        }
    }
}

impl fmt::Display for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Memory of a machine, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory(u64);

impl Memory {
    /// The memory of a machine by default.
    pub const DEFAULT: Self = Self(1024 * MIB);

    /// The memory in MiB, rounded down.
    pub fn mib(self) -> u32 {
        u32::try_from(self.0 / MIB).expect("it was checked when it was made")
    }
}

impl TryFrom<ByteSize> for Memory {
    type Error = BadValue;

    fn try_from(ByteSize(bytes): ByteSize) -> Result<Self, BadValue> {
        match bytes {
            ..MEMORY => Err(BadValue::LittleMemory(bytes)),
            _ if bytes / MIB > u32::MAX.into() => Err(BadValue::MuchMemory(bytes)),
            _ => Ok(Self(bytes)),
        }
    }
}

impl Serialize for Memory {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(self.0)
    }
}

impl<'de> Deserialize<'de> for Memory {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let size = ByteSize::deserialize(deserializer)?;
        Self::try_from(size).map_err(serde::de::Error::custom)
    }
}

/// A time above zero: plain seconds, or Go's durations (`1m30s`, `500ms`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span(pub Duration);

impl FromStr for Span {
    type Err = BadValue;

    fn from_str(text: &str) -> Result<Self, BadValue> {
        let bad = || BadValue::Duration(text.to_owned());
        let mut total = Duration::ZERO;
        let mut rest = text;
        while !rest.is_empty() {
            let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.');
            let (number, behind) = rest.split_at(digits.unwrap_or(rest.len()));
            let unit = behind.find(|c: char| c.is_ascii_digit() || c == '.');
            let (unit, behind) = behind.split_at(unit.unwrap_or(behind.len()));
            let seconds = match unit {
                // A number without a unit must be the whole text.
                "" if number.len() == text.len() => 1.0,
                "h" => 3600.0,
                "m" => 60.0,
                "s" => 1.0,
                "ms" => 1e-3,
                _ => return Err(bad()),
            };
            let number: f64 = number.parse().map_err(|_| bad())?;
            let part = Duration::try_from_secs_f64(number * seconds).map_err(|_| bad())?;
            total = total.checked_add(part).ok_or_else(bad)?;
            rest = behind;
        }
        if total.is_zero() { Err(bad()) } else { Ok(Self(total)) }
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

/// Written as a number where it is whole seconds, else as text.
impl Serialize for Span {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0.subsec_nanos() {
            0 => serializer.serialize_u64(self.0.as_secs()),
            _ => serializer.collect_str(&format_args!("{}", self.0.as_secs_f64())),
        }
    }
}

/// Refuses a path of the guest that is not absolute.
///
/// # Errors
/// With [`BadValue::Relative`] when `path` does not begin with `/`, or holds a NUL.
pub fn absolute(path: &[u8]) -> Result<(), BadValue> {
    match path {
        [b'/', ..] if !path.contains(&0) => Ok(()),
        _ => Err(BadValue::Relative(String::from_utf8_lossy(path).into_owned())),
    }
}

/// Refuses a text that cannot be the name of an environment variable.
///
/// # Errors
/// With [`BadValue::Variable`] when `name` is empty, or holds `=` or a NUL.
pub fn variable(name: &[u8]) -> Result<(), BadValue> {
    match name.is_empty() || name.contains(&b'=') || name.contains(&0) {
        true => Err(BadValue::Variable(String::from_utf8_lossy(name).into_owned())),
        false => Ok(()),
    }
}

/// Refuses a text that cannot be passed to a program as an argument or a variable.
///
/// # Errors
/// With [`BadValue::Nul`] when `text` holds a NUL.
pub fn argument(text: &str) -> Result<(), BadValue> {
    if text.contains('\0') { Err(BadValue::Nul(text.to_owned())) } else { Ok(()) }
}

/// Types that are written in a manifest as the text that they are as an option.
macro_rules! as_text {
    ($($name:ty),*) => { $(
        impl Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
    )* };
}

/// Types that are read from a manifest as that text, which YAML may take for a number.
macro_rules! from_text {
    ($($name:ty),*) => { $(
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                Text::deserialize(deserializer)?.0.parse().map_err(serde::de::Error::custom)
            }
        }
    )* };
}

as_text!(Tmpfs, Publish, Hostname, HostEntry, Dns, User);
from_text!(Tmpfs, Publish, Hostname, HostEntry, Dns, User, Span, super::signal::Signal);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_is_written_alike() {
        for text in ["none", "/tmp", "/var/cache:1048576"] {
            assert_eq!(text.parse::<Tmpfs>().unwrap().to_string(), text);
        }
        for (text, shown) in [("/a:1MiB", "/a:1048576"), ("/a:size=64k", "/a:65536")] {
            assert_eq!(text.parse::<Tmpfs>().unwrap().to_string(), shown);
        }
        for bad in ["", "tmp", "/", "//", "/a:", "/a:x", "/a:0", "/a:mode=1777"] {
            assert!(bad.parse::<Tmpfs>().is_err(), "{bad}");
        }
        assert_eq!("8080:80".parse(), Ok(Publish { host: 8080, guest: 80 }));
        assert_eq!("80".parse(), Ok(Publish { host: 80, guest: 80 }));
        assert_eq!("81:80/tcp".parse(), Ok(Publish { host: 81, guest: 80 }));
        for bad in ["", "0:80", "80:0", "65536:1", "a:b", ":", "80:", "53:53/udp", "1.2.3.4:1:2"] {
            assert!(bad.parse::<Publish>().is_err(), "{bad}");
        }
    }

    /// As docker's --add-host has them: opts.ValidateExtraHost of docker/cli.
    #[test]
    fn hosts_have_a_name_and_an_address() {
        for (text, name, address) in [
            ("myhost:192.168.0.1", "myhost", "192.168.0.1"),
            ("myhost=192.168.0.1", "myhost", "192.168.0.1"),
            ("thathost-nosuchname.org:10.0.2.1", "thathost-nosuchname.org", "10.0.2.1"),
            ("anipv6host:2003:ab34:e::1", "anipv6host", "2003:ab34:e::1"),
            ("ipv6local:::1", "ipv6local", "::1"),
            ("ipv6bracketed=[::1]", "ipv6bracketed", "::1"),
        ] {
            let entry: HostEntry = text.parse().unwrap();
            assert_eq!((&*entry.name, entry.address.to_string()), (name, address.to_owned()));
        }
        for bad in ["myhost", ":1.2.3.4", "a b:1.2.3.4", "myhost:", "myhost:192.notanipaddress.1"] {
            assert!(bad.parse::<HostEntry>().is_err(), "{bad}");
        }
        assert_eq!("a:host-gateway".parse::<HostEntry>(), Err(BadValue::HostGateway));
    }

    #[test]
    fn durations_are_seconds_or_go_s() {
        for (text, millis) in [
            ("10", 10_000),
            ("1.5", 1_500),
            ("10s", 10_000),
            ("1m30s", 90_000),
            ("1h", 3_600_000),
            ("1.5h", 5_400_000),
            ("500ms", 500),
        ] {
            assert_eq!(text.parse(), Ok(Span(Duration::from_millis(millis))), "{text}");
        }
        for bad in ["", "0", "0s", "-1", "1e30", "1x", "s", "1m30", "1 s", ".", "inf", "nan"] {
            assert!(bad.parse::<Span>().is_err(), "{bad}");
        }
    }

    #[test]
    fn users_names_and_memory_have_bounds() {
        for fine in ["", "0", "1000:1000", "app", "app:", ":5", "4294967294"] {
            assert!(fine.parse::<User>().is_ok(), "{fine}");
        }
        for bad in ["a:b:c", "4294967295", "0:4294967296", "a\nb"] {
            assert!(bad.parse::<User>().is_err(), "{bad}");
        }
        for bad in ["", "a b", "-\u{e9}", &"a".repeat(65)] {
            assert!(bad.parse::<Hostname>().is_err(), "{bad}");
        }
        assert_eq!(Memory::try_from(ByteSize(80 << 20)).unwrap().mib(), 80);
        assert!(Memory::try_from(ByteSize((80 << 20) - 1)).is_err());
        assert!(Memory::try_from(ByteSize(1 << 52)).is_err());
        assert_eq!(Memory::try_from(ByteSize(100 << 40)).unwrap().mib(), 100 << 20);
    }
}
