//! JSON Schemas, for editors that complete and check.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema, schema_for};

use super::patch::Op;
use crate::manifest::mode::Mode;
use crate::manifest::owner::Owner;
use crate::manifest::written::Written;

/// The schema of a manifest.
pub fn manifest_schema() -> serde_json::Value {
    let mut schema = schema_for!(Written);
    schema.insert("title".into(), "Manifest of rootfs-compile".into());
    schema.to_value()
}

/// The schema of a file that a manifest includes.
pub fn patches_schema() -> serde_json::Value {
    let mut schema = schema_for!(Vec<Op>);
    schema.insert("title".into(), "Patches of a rootfs-compile manifest".into());
    schema.to_value()
}

impl JsonSchema for Mode {
    fn schema_name() -> Cow<'static, str> {
        "Mode".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "Octal digits, or chmod's letters (u=rwX,go=rX); in quotes.",
            "type": "string",
            "pattern": r"^[0-7]{1,4}$|^[ugoa]*[-+=]|\$\{",
        })
    }
}

impl JsonSchema for Owner {
    fn schema_name() -> Cow<'static, str> {
        "Owner".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "USER, USER:GROUP, USER: (its login group) or :GROUP; names of the image or numbers.",
            "type": ["string", "integer"],
            "minimum": 0,
        })
    }
}
