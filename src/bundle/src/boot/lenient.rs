//! Numbers and booleans that may be written as text in YAML, because a value that comes from a
//! variable is text.

use std::fmt;
use std::str::FromStr;

use serde::de::{self, Deserializer};
use serde::{Deserialize, Serialize};

/// A number that may have been written as text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Int<T>(pub T);

/// A boolean that may have been written as text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Flag(pub bool);

/// Text that may have been written as an integer or a boolean. A number with a decimal point
/// is refused unless it is in quotes, because its spelling is lost.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Text(pub String);

struct Visitor<T> {
    what: &'static str,
    parse: fn(&str) -> Option<T>,
}

impl<T> de::Visitor<'_> for Visitor<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.what)
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<T, E> {
        let text = if value { "true" } else { "false" };
        (self.parse)(text).ok_or_else(|| E::invalid_type(de::Unexpected::Bool(value), &self))
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<T, E> {
        let parsed = (self.parse)(&value.to_string());
        parsed.ok_or_else(|| E::invalid_value(de::Unexpected::Signed(value), &self))
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<T, E> {
        let parsed = (self.parse)(&value.to_string());
        parsed.ok_or_else(|| E::invalid_value(de::Unexpected::Unsigned(value), &self))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<T, E> {
        // The parser does not keep the spelling: `1.10` is the same number as `1.1`.
        let number = de::Unexpected::Float(value);
        Err(E::custom(format!("invalid type: {number}, expected {}; put it in quotes", self.what)))
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<T, E> {
        (self.parse)(value).ok_or_else(|| E::invalid_value(de::Unexpected::Str(value), &self))
    }
}

impl<'de, T: FromStr> Deserialize<'de> for Int<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let what = "a number that is in range";
        let parse = |text: &str| text.parse().ok().map(Self);
        deserializer.deserialize_any(Visitor { what, parse })
    }
}

impl<'de> Deserialize<'de> for Flag {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let parse = |text: &str| text.parse().ok().map(Self);
        deserializer.deserialize_any(Visitor { what: "true or false", parse })
    }
}

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let parse = |text: &str| Some(Self(text.to_owned()));
        deserializer.deserialize_any(Visitor { what: "text", parse })
    }
}

/// [`Flag`] for a field that is a plain `bool`.
///
/// # Errors
/// When the value is neither a boolean nor one of the texts `true` and `false`.
pub fn flag<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    Flag::deserialize(deserializer).map(|Flag(value)| value)
}

/// Deserializes a map whose values are [`Text`], in the order of its keys in the file.
///
/// # Errors
/// When it is not a map, or one of its values is not a [`Text`].
pub fn texts<'de, D>(deserializer: D) -> Result<Vec<(String, String)>, D::Error>
where
    D: Deserializer<'de>,
{
    struct Pairs;

    impl<'de> de::Visitor<'de> for Pairs {
        type Value = Vec<(String, String)>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("names and their values")
        }

        fn visit_map<A: de::MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut pairs = Vec::new();
            while let Some((name, Text(value))) = map.next_entry()? {
                pairs.push((name, value));
            }
            Ok(pairs)
        }
    }

    deserializer.deserialize_map(Pairs)
}
