//! JSON Schemas, for editors that complete and check.

use schemars::schema_for;

use crate::manifest::written::Written;
use crate::patch::op::Op;

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
