//! How a bundle boots when nobody says otherwise: the manifest's `boot:`, which
//! travels in the bundle's index.

use std::collections::BTreeMap;
use std::fmt;
use std::num::NonZeroU8;

use serde::de::{self, Deserializer};
use serde::{Deserialize, Serialize};

use super::lenient::{self, Int, Text};
use super::signal::Signal;
use super::value::Dns;
use super::value::HostEntry;
use super::value::Hostname;
use super::value::Memory;
use super::value::Publish;
use super::value::Span;
use super::value::Tmpfs;
use super::value::User;
use super::value::absolute;
use super::value::argument;
use super::value::variable;
use crate::boot::bad_value::BadValue;
use crate::boot::bad_value::MAX_CPUS;

/// Defaults of `rootfs-boot` for one bundle. What is not set is the image's, or
/// the program's own.
///
/// Invariant: every value is one that `rootfs-boot` takes as an option, because
/// both read it by the same types.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct Boot {
    /// Processors of the machine, 1 to 254.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "cpus")]
    #[cfg_attr(feature = "schema", schemars(with = "Option<Int<NonZeroU8>>"))]
    pub cpus: Option<NonZeroU8>,
    /// Bytes (512m, 1GiB); whole MiB, at least 80.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<Memory>,
    /// The image's entrypoint is replaced by these words, and its command is dropped.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "entrypoint")]
    #[cfg_attr(feature = "schema", schemars(with = "Option<Vec<Text>>"))]
    pub entrypoint: Option<Vec<String>>,
    /// Words in place of the image's command.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "command")]
    #[cfg_attr(feature = "schema", schemars(with = "Option<Vec<Text>>"))]
    pub command: Option<Vec<String>>,
    /// Environment variables by name, over those of the image.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "environment")]
    #[cfg_attr(feature = "schema", schemars(with = "BTreeMap<String, Text>"))]
    pub env: BTreeMap<String, String>,
    /// The command's working directory, an absolute path, in place of the image's.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "workdir")]
    pub workdir: Option<String>,
    /// Who runs the command, in place of the image's user: USER or USER:GROUP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<User>,
    /// The machine's host name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hostname: Option<Hostname>,
    /// Lines of /etc/hosts: NAME:IP.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub add_host: Vec<HostEntry>,
    /// Addresses of name servers.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub dns: Vec<Dns>,
    /// Directories in memory: PATH or PATH:SIZE, or none for no default ones.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tmpfs: Vec<Tmpfs>,
    /// Nothing but tmpfs and volumes can be written.
    #[serde(skip_serializing_if = "std::ops::Not::not", deserialize_with = "lenient::flag")]
    #[cfg_attr(feature = "schema", schemars(with = "lenient::Flag"))]
    pub read_only: bool,
    /// What is written is kept in memory, without a copy of the upper.
    #[serde(skip_serializing_if = "std::ops::Not::not", deserialize_with = "lenient::flag")]
    #[cfg_attr(feature = "schema", schemars(with = "lenient::Flag"))]
    pub ephemeral: bool,
    /// Given to a machine only by whoever starts it.
    #[serde(skip_serializing_if = "std::ops::Not::not", deserialize_with = "lenient::flag")]
    #[cfg_attr(feature = "schema", schemars(with = "lenient::Flag"))]
    pub net: bool,
    /// HOST:GUEST, or PORT for the same on both.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub publish: Vec<Publish>,
    /// Seconds, or a duration such as 1m30s.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Span>,
    /// In place of the image's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_signal: Option<Signal>,
    /// Seconds, or a duration, between the stop signal and the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_timeout: Option<Span>,
}

fn cpus<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<NonZeroU8>, D::Error> {
    let cpus: Option<Int<NonZeroU8>> = Option::deserialize(deserializer)?;
    match cpus.map(|Int(cpus)| cpus) {
        Some(cpus) if cpus.get() > MAX_CPUS => Err(de::Error::custom(BadValue::Cpus(cpus.get()))),
        cpus => Ok(cpus),
    }
}

fn entrypoint<'de, D>(deserializer: D) -> Result<Option<Vec<String>>, D::Error>
where
    D: Deserializer<'de>,
{
    let words = command(deserializer)?;
    match words.as_deref() {
        Some([first, ..]) if first.is_empty() => Err(de::Error::custom(BadValue::EmptyProgram)),
        _ => Ok(words),
    }
}

fn command<'de, D>(deserializer: D) -> Result<Option<Vec<String>>, D::Error>
where
    D: Deserializer<'de>,
{
    let words: Option<Vec<Argument>> = Option::deserialize(deserializer)?;
    Ok(words.map(|words| words.into_iter().map(|Argument(word)| word).collect()))
}

/// A word of a command, a value of a variable.
struct Argument(String);

impl<'de> Deserialize<'de> for Argument {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Text(text) = Text::deserialize(deserializer)?;
        argument(&text).map_err(de::Error::custom)?;
        Ok(Self(text))
    }
}

fn environment<'de, D>(deserializer: D) -> Result<BTreeMap<String, String>, D::Error>
where
    D: Deserializer<'de>,
{
    struct Variables;

    impl<'de> de::Visitor<'de> for Variables {
        type Value = BTreeMap<String, String>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("names and their values")
        }

        fn visit_map<A: de::MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut variables = BTreeMap::new();
            while let Some(name) = map.next_key::<String>()? {
                let value = map.next_value_seed(ValueOf(&name))?;
                variables.insert(name, value);
            }
            Ok(variables)
        }
    }

    deserializer.deserialize_map(Variables)
}

/// The value of the variable with this name, which is checked here because an error
/// about a value has a line.
struct ValueOf<'n>(&'n str);

impl<'de> de::DeserializeSeed<'de> for ValueOf<'_> {
    type Value = String;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<String, D::Error> {
        variable(self.0.as_bytes()).map_err(de::Error::custom)?;
        Argument::deserialize(deserializer).map(|Argument(value)| value)
    }
}

fn workdir<'de, D>(deserializer: D) -> Result<Option<String>, D::Error>
where
    D: Deserializer<'de>,
{
    let dir = Option::deserialize(deserializer)?.map(|Text(dir)| dir);
    dir.as_ref().map_or(Ok(()), |dir| absolute(dir.as_bytes())).map_err(de::Error::custom)?;
    Ok(dir)
}
