//! A manifest as it is written, before its values are checked.

use std::collections::BTreeMap;
use std::path::PathBuf;

use bundle::boot::{Boot, UpperSize, lenient};
use oci::{ImageRef, Platform};
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer};

use crate::patch::op::Op;

/// Reads a value whose key may be missing, but must not be there without a value: whoever
/// wrote the key asks for something.
pub(super) fn not_null<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    from: D,
) -> Result<Option<T>, D::Error> {
    T::deserialize(from).map(Some)
}

/// What an image becomes: which one, what is changed in it, how it boots.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Written {
    /// [docker://][HOST[:PORT]/]NAME[:TAG] of a registry, oci:DIR[:NAME],
    /// oci-archive:FILE[:NAME], docker-archive:FILE[:NAME], archive:FILE[:NAME]
    /// (either of them), dir:DIR or docker-daemon:NAME; @sha256:… behind it pins
    /// the digest.
    #[schemars(with = "String")]
    pub(super) image: ImageRef,
    /// Refuse the image, which is in a registry, unless it is signed.
    #[serde(default, rename = "verify-image", deserialize_with = "not_null")]
    #[schemars(with = "VerifyImage")]
    pub(super) verify_image: Option<VerifyImage>,
    /// OS/ARCHITECTURE[/VARIANT]. Default: linux and the host's architecture.
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    pub(super) platform: Option<Platform>,
    /// Values for ${NAME} anywhere else in the manifest and in what it includes.
    /// They may use each other; --set NAME=VALUE wins over them.
    #[serde(default, deserialize_with = "lenient::texts")]
    #[schemars(with = "BTreeMap<String, lenient::Text>")]
    #[expect(dead_code, reason = "they are read before the rest can be")]
    vars: Vec<(String, String)>,
    #[serde(default)]
    pub(super) upper: Upper,
    #[serde(default)]
    pub(super) boot: Boot,
    /// Changes, applied in order; a later one sees what earlier ones did.
    #[serde(default)]
    pub(super) patches: Vec<Op>,
}

/// Who must have signed an image.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct VerifyImage {
    /// A file with a public key (PEM: ECDSA on P-256, or Ed25519) of which cosign signed
    /// the image with the other half.
    pub cosign_key: PathBuf,
}

/// The writable upper.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Upper {
    /// Bytes of the file system (4GiB, 512MiB): whole blocks of 4096, 16 MiB to
    /// 16 TiB. Default: 4 GiB, or 3 GiB beyond what patches need, if that is more.
    pub size: Option<UpperSize>,
}
