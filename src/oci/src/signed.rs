//! Whether somebody vouches for an image of a registry: signatures as cosign makes
//! them with a key of its user, in both of their forms.
//!
//! - **Simple signing**: the tag `sha256-<hex>.sig` of the same repository leads to a
//!   manifest, each layer of which is a JSON that names the image's digest; an
//!   annotation has the signature over its bytes.
//! - **Sigstore's bundle**: a manifest that refers to the image (OCI's referrers, or the
//!   tag that stands for them) has one layer, a JSON with a DSSE envelope, in which is a
//!   statement of in-toto about the image's digest.
//!
//! No certificate and no transparency log is looked at: who names a key trusts whoever
//! has its other half, for as long as they name it. What a registry says beside is only
//! a way to find what is signed.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use anyhow::{Context as _, Result, bail, ensure};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use fsimage::digest::Digest;
use ring::signature::{ECDSA_P256_SHA256_ASN1, ED25519, UnparsedPublicKey, VerificationAlgorithm};
use rustls::pki_types::SubjectPublicKeyInfoDer;
use rustls::pki_types::pem::PemObject as _;
use serde_json::Value;

use crate::registry::RegistryStore;

const SIMPLE_TYPE: &str = "application/vnd.dev.cosign.simplesigning.v1+json";
const SIMPLE_SIGNATURE: &str = "dev.cosignproject.cosign/signature";
const SIMPLE_KIND: &str = "cosign container image signature";
const BUNDLE_TYPE: &str = "application/vnd.dev.sigstore.bundle.";
const STATEMENT_TYPE: &str = "application/vnd.in-toto+json";
/// What says of an image that it is signed, and not something else about it.
const SIGNED: &str = "https://sigstore.dev/cosign/sign/v1";

/// Bytes of a file with a key.
const MAX_KEY: u64 = 16 << 10;
/// Signatures of one image that are looked at.
const MAX_SIGNATURES: usize = 64;
/// Manifests that refer to an image and are asked for, each a request.
const MAX_REFERRERS: usize = 256;

/// All of a public key's DER before its point (RFC 5480, RFC 8410): the kinds of keys
/// that are known here each have one form.
const P256: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a,
    0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];
const EDWARDS: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// A public key of cosign.
pub struct ImageKey {
    algorithm: &'static dyn VerificationAlgorithm,
    point: Vec<u8>,
    /// Of its DER.
    pub digest: Digest,
}

impl ImageKey {
    /// Reads the file `path`, as `cosign generate-key-pair` writes it.
    pub fn load(path: &Path) -> Result<Self> {
        let read = || -> Result<Self> {
            let mut pem = Vec::new();
            File::open(path)?.take(MAX_KEY).read_to_end(&mut pem)?;
            Self::parse(&pem)
        };
        read().with_context(|| format!("the key {}", path.display()))
    }

    fn parse(pem: &[u8]) -> Result<Self> {
        let der = SubjectPublicKeyInfoDer::from_pem_slice(pem);
        let der = der.ok().context("there is no public key (PEM) in it")?;
        let kinds: [(&[u8], usize, &'static dyn VerificationAlgorithm); 2] =
            [(&P256, 65, &ECDSA_P256_SHA256_ASN1), (&EDWARDS, 32, &ED25519)];
        for (head, len, algorithm) in kinds {
            if let Some(point) = der.strip_prefix(head)
                && point.len() == len
            {
                return Ok(Self { algorithm, point: point.to_vec(), digest: Digest::of(&der) });
            }
        }
        bail!("it is neither an ECDSA key on P-256 nor one of Ed25519")
    }

    fn signed(&self, message: &[u8], signature: &str) -> bool {
        let Ok(signature) = BASE64_STANDARD.decode(signature) else {
            return false;
        };
        UnparsedPublicKey::new(self.algorithm, &self.point).verify(message, &signature).is_ok()
    }
}

/// Finds a signature by `key` of one of `digests` in the repository of `store`, and
/// returns the digest that is signed.
pub fn check(store: &RegistryStore, digests: &[Digest], key: &ImageKey) -> Result<Digest> {
    let mut met = 0;
    for digest in digests {
        let simple = simple_signatures(store, *digest)?;
        met += simple.len();
        if simple.iter().any(|found| found.vouches(*digest, key)) {
            return Ok(*digest);
        }
        let envelopes = envelopes(store, *digest)?;
        met += envelopes.len();
        if envelopes.iter().any(|envelope| vouches(envelope, *digest, key)) {
            return Ok(*digest);
        }
    }
    let digests: Vec<String> = digests.iter().map(Digest::to_string).collect();
    let digests = digests.join(" and ");
    match met {
        0 => bail!("it is not signed: the registry has no signature of {digests}"),
        _ => bail!("it is not signed by that key: {met} signatures of {digests} are by others"),
    }
}

/// One layer of a manifest of simple signing.
struct Simple {
    payload: Vec<u8>,
    signature: String,
}

fn simple_signatures(store: &RegistryStore, digest: Digest) -> Result<Vec<Simple>> {
    let tag = format!("sha256-{}.sig", digest.hex());
    let Some(manifest) = store.tagged(&tag)? else {
        return Ok(Vec::new());
    };
    let manifest: Value = serde_json::from_slice(&manifest).unwrap_or_default();
    let mut found = Vec::new();
    for layer in list(&manifest["layers"]).iter().filter(|layer| layer["mediaType"] == SIMPLE_TYPE)
    {
        let signature = layer["annotations"][SIMPLE_SIGNATURE].as_str();
        let (Some(signature), Some(blob)) = (signature, digest_of(layer)) else { continue };
        ensure!(found.len() < MAX_SIGNATURES, "{tag} has more than {MAX_SIGNATURES} signatures");
        let payload = store.by_digest(blob).with_context(|| tag.clone())?;
        found.push(Simple { payload, signature: signature.to_owned() });
    }
    Ok(found)
}

impl Simple {
    fn vouches(&self, digest: Digest, key: &ImageKey) -> bool {
        if !key.signed(&self.payload, &self.signature) {
            return false;
        }
        let payload: Value = serde_json::from_slice(&self.payload).unwrap_or_default();
        let critical = &payload["critical"];
        critical["type"] == SIMPLE_KIND
            && critical["image"]["docker-manifest-digest"] == *digest.to_string()
    }
}

/// The envelopes of the bundles that refer to `digest`.
fn envelopes(store: &RegistryStore, digest: Digest) -> Result<Vec<Value>> {
    let Some(index) = store.referrers(digest)? else {
        return Ok(Vec::new());
    };
    let index: Value = serde_json::from_slice(&index).unwrap_or_default();
    let is_bundle = |value: &Value| value.as_str().is_some_and(|t| t.starts_with(BUNDLE_TYPE));
    let mut found = Vec::new();
    let mut looked = 0;
    for entry in list(&index["manifests"]) {
        // Not every registry says there what a manifest is.
        let is_other = entry["artifactType"].is_string() && !is_bundle(&entry["artifactType"]);
        let Some(manifest) = digest_of(entry).filter(|_| !is_other) else { continue };
        looked += 1;
        ensure!(
            looked <= MAX_REFERRERS,
            "more than {MAX_REFERRERS} manifests that may be signatures refer to {digest}"
        );
        let manifest = store.by_digest(manifest)?;
        let manifest: Value = serde_json::from_slice(&manifest).unwrap_or_default();
        if manifest["subject"]["digest"] != *digest.to_string() {
            continue;
        }
        for layer in list(&manifest["layers"]).iter().filter(|l| is_bundle(&l["mediaType"])) {
            let Some(blob) = digest_of(layer) else { continue };
            ensure!(found.len() < MAX_SIGNATURES, "more than {MAX_SIGNATURES} bundles refer to it");
            let mut bundle: Value =
                serde_json::from_slice(&store.by_digest(blob)?).unwrap_or_default();
            let envelope = bundle["dsseEnvelope"].take();
            if envelope.is_object() {
                found.push(envelope);
            }
        }
    }
    Ok(found)
}

/// Whether `envelope` has a statement that `digest` is signed, and that is by `key`.
fn vouches(envelope: &Value, digest: Digest, key: &ImageKey) -> bool {
    let payload = envelope["payload"].as_str().and_then(|text| BASE64_STANDARD.decode(text).ok());
    let Some(payload) = payload.filter(|_| envelope["payloadType"] == STATEMENT_TYPE) else {
        return false;
    };
    // What DSSE signs: type and payload, each behind its length.
    let mut message =
        format!("DSSEv1 {} {STATEMENT_TYPE} {} ", STATEMENT_TYPE.len(), payload.len()).into_bytes();
    message.extend_from_slice(&payload);
    let signatures = list(&envelope["signatures"]).iter().take(MAX_SIGNATURES);
    let mut signatures = signatures.filter_map(|signature| signature["sig"].as_str());
    if !signatures.any(|signature| key.signed(&message, signature)) {
        return false;
    }
    let statement: Value = serde_json::from_slice(&payload).unwrap_or_default();
    statement["predicateType"] == SIGNED
        && list(&statement["subject"]).iter().any(|s| s["digest"]["sha256"] == *digest.hex())
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn digest_of(descriptor: &Value) -> Option<Digest> {
    descriptor["digest"].as_str()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Keys that openssl made.
    #[test]
    fn keys_are_of_two_kinds() {
        let p256 = "-----BEGIN PUBLIC KEY-----\n\
            MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEUh98CDhyTYQuMO8ij8U1l1HEtlPc\n\
            kWKoHeaQBqiGnUEcrJGwZ4cXSVxCL0Fai4pCSMzExRKCCSzsfGdIXKoYFw==\n\
            -----END PUBLIC KEY-----\n";
        let edwards = "-----BEGIN PUBLIC KEY-----\n\
            MCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n\
            -----END PUBLIC KEY-----\n";
        assert_eq!(ImageKey::parse(p256.as_bytes()).unwrap().point.len(), 65);
        assert_eq!(ImageKey::parse(edwards.as_bytes()).unwrap().point.len(), 32);
        for bad in ["", "x", &p256[..60], &p256.replace("BEGIN PUBLIC", "BEGIN PRIVATE")] {
            assert!(ImageKey::parse(bad.as_bytes()).is_err(), "{bad}");
        }
        assert!(ImageKey::parse(p256.replace("MFkw", "MFow").as_bytes()).is_err());
    }
}
