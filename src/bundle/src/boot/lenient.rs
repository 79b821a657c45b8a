//! Numbers and yes or no, as YAML has them or as text: what a variable gave is text.

use std::fmt;
use std::str::FromStr;

use serde::de::{self, Deserializer};

#[cfg(feature = "schema")]
pub use self::schema::{Flag, Int, Text};

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
        // How many zeros it was written with is not known any more.
        let number = de::Unexpected::Float(value);
        Err(E::custom(format!("invalid type: {number}, expected {}; put it in quotes", self.what)))
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<T, E> {
        (self.parse)(value).ok_or_else(|| E::invalid_value(de::Unexpected::Str(value), &self))
    }
}

/// A number that `T` holds.
///
/// # Errors
/// When the value is not a number, or one that `T` does not hold.
pub fn number<'de, D: Deserializer<'de>, T: FromStr>(deserializer: D) -> Result<T, D::Error> {
    let what = "a number that is in range";
    deserializer.deserialize_any(Visitor { what, parse: |text| text.parse().ok() })
}

/// A number, or null for none.
///
/// # Errors
/// When the value is neither null nor a number that `T` holds.
pub fn optional_number<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: FromStr,
{
    #[derive(serde::Deserialize)]
    #[serde(bound = "T: FromStr")]
    struct Number<T>(#[serde(deserialize_with = "number")] T);

    let number: Option<Number<T>> = serde::Deserialize::deserialize(deserializer)?;
    Ok(number.map(|Number(number)| number))
}

/// Yes or no.
///
/// # Errors
/// When the value is neither a boolean nor one of the texts `true` and `false`.
pub fn flag<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    deserializer.deserialize_any(Visitor { what: "true or false", parse: |text| text.parse().ok() })
}

/// Text that may have been written as a number.
///
/// # Errors
/// When the value is null, a list or a map, or a number with a point, which loses its
/// spelling unless it is in quotes.
pub fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    deserializer.deserialize_any(Visitor { what: "text", parse: |text| Some(text.to_owned()) })
}

#[derive(serde::Deserialize)]
struct Value(#[serde(deserialize_with = "text")] String);

/// Text, or null for none.
///
/// # Errors
/// When the value is neither null nor what [`text`] takes.
pub fn optional_text<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<String>, D::Error> {
    let text: Option<Value> = serde::Deserialize::deserialize(deserializer)?;
    Ok(text.map(|Value(text)| text))
}

/// Values by name, as text.
///
/// # Errors
/// When it is not a map, or one of its values is not what [`text`] takes.
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
            while let Some((name, Value(value))) = map.next_entry()? {
                pairs.push((name, value));
            }
            Ok(pairs)
        }
    }

    deserializer.deserialize_map(Pairs)
}

#[cfg(feature = "schema")]
pub(super) mod schema {
    use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

    /// How a schema shows a number.
    pub struct Int;

    /// How a schema shows yes or no.
    pub struct Flag;

    /// How a schema shows what is text, or a number that is meant as one.
    pub struct Text;

    macro_rules! schemas {
        ($($name:ident: $json:tt),* $(,)?) => { $(
            impl JsonSchema for $name {
                fn inline_schema() -> bool {
                    true
                }

                fn schema_name() -> std::borrow::Cow<'static, str> {
                    stringify!($name).into()
                }

                fn json_schema(_: &mut SchemaGenerator) -> Schema {
                    json_schema!($json)
                }
            }
        )* };
    }

    schemas! {
        Int: { "type": ["integer", "string"], "minimum": 0, "pattern": r"^[0-9]+$|\$\{" },
        Flag: { "type": ["boolean", "string"], "pattern": r"^(true|false)$|\$\{" },
        Text: { "type": ["string", "integer", "boolean"] },
    }
}
