//! How a bundle boots by default: the manifest's `boot:`, which the bundle's index has as well.

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

/// Defaults of `rootfs-boot` for one bundle. For what is not set, the image's value counts, or
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
    /// Words in place of the image's entrypoint. The image's command is dropped.
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
    /// Directories in memory (tmpfs): PATH or PATH:SIZE. The word none leaves out those that
    /// a machine has by default.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tmpfs: Vec<Tmpfs>,
    /// The root file system is read-only: only tmpfs and volumes can be written.
    #[serde(skip_serializing_if = "std::ops::Not::not", deserialize_with = "lenient::flag")]
    #[cfg_attr(feature = "schema", schemars(with = "lenient::Flag"))]
    pub read_only: bool,
    /// Keep what is written in memory, without a copy of the upper.
    #[serde(skip_serializing_if = "std::ops::Not::not", deserialize_with = "lenient::flag")]
    #[cfg_attr(feature = "schema", schemars(with = "lenient::Flag"))]
    pub ephemeral: bool,
    /// The image needs a network. It gets one only if whoever starts the machine allows it.
    #[serde(skip_serializing_if = "std::ops::Not::not", deserialize_with = "lenient::flag")]
    #[cfg_attr(feature = "schema", schemars(with = "lenient::Flag"))]
    pub net: bool,
    /// TCP ports of the host that lead to the guest: HOST:GUEST, or PORT for the same on both.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub publish: Vec<Publish>,
    /// How long the machine may run: seconds, or a duration such as 1m30s.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Span>,
    /// The signal that asks the command to end, in place of the image's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_signal: Option<Signal>,
    /// How long the command may take to end after the stop signal: seconds, or a duration.
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

/// A word of a command, or the value of a variable: a text without a NUL.
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

/// Deserializes the value of the variable with this name. The name is checked here as well,
/// because errors of a value, unlike those of a key, have a line number.
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
