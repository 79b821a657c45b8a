//! JSON Schemas of values that a manifest may spell in more than one way.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use super::lenient::{Flag, Int, Text};
use super::signal::Signal;
use super::size::UpperSize;
use super::value::{Dns, HostEntry, Hostname, Memory, Publish, Span, Tmpfs, User};

macro_rules! inline_schemas {
    ($json:expr, $($name:ty),*) => { $(
        impl JsonSchema for $name {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                $json
            }
        }
    )* };
}

inline_schemas!(
    json_schema!({ "type": ["boolean", "string"], "pattern": r"^(true|false)$|\$\{" }),
    Flag
);
inline_schemas!(
    json_schema!({ "type": ["string", "integer", "boolean"] }),
    Text,
    Hostname,
    Memory,
    Publish,
    Signal,
    Span,
    UpperSize,
    User
);
inline_schemas!(json_schema!({ "type": "string" }), Dns, HostEntry, Tmpfs);

impl<T> JsonSchema for Int<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Int".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": ["integer", "string"], "minimum": 0, "pattern": r"^[0-9]+$|\$\{" })
    }
}
