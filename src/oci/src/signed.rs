//! Checks signatures of images in registries, as cosign makes them with a key pair, in both
//! of their forms.
//!
//! - **Simple signing**: the tag `sha256-<hex>.sig` of the same repository leads to a
//!   manifest, each layer of which is a JSON that names the image's digest; an
//!   annotation has the signature over its bytes.
//! - **Sigstore's bundle**: a manifest that refers to the image (OCI's referrers, or the
//!   tag that stands for them) has one layer, a JSON with a DSSE envelope, in which is a
//!   statement of in-toto about the image's digest.
//!
//! Certificates and transparency logs are not checked: whoever names a public key trusts the
//! holder of its secret key. Nothing that a registry says is trusted but what is signed;
//! tags, annotations and referrers only serve to find signatures.

use std::collections::HashSet;
use std::fmt;
use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use anyhow::{Context as _, Result, bail, ensure};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use fsimage::budget::Budget;
use fsimage::digest::Digest;
use ring::signature::{ECDSA_P256_SHA256_ASN1, ED25519, UnparsedPublicKey, VerificationAlgorithm};
use rustls::pki_types::SubjectPublicKeyInfoDer;
use rustls::pki_types::pem::PemObject as _;
use serde_json::Value;

use crate::media_type::IN_TOTO;
use crate::registry::store::RegistryStore;
use crate::store::{RAISE, count};

const SIMPLE_TYPE: &str = "application/vnd.dev.cosign.simplesigning.v1+json";
const SIMPLE_SIGNATURE: &str = "dev.cosignproject.cosign/signature";
const SIMPLE_KIND: &str = "cosign container image signature";
const BUNDLE_TYPE: &str = "application/vnd.dev.sigstore.bundle.";
/// The predicate type of a statement that signs an image, and does not attest something else.
const SIGNED: &str = "https://sigstore.dev/cosign/sign/v1";

/// The most bytes that are read of a file with a key.
const MAX_KEY: u64 = 16 << 10;
/// The most documents that are read as possible signatures of one image.
const MAX_SIGNATURES: usize = 256;
/// The most signatures of one envelope that are checked: each check hashes the whole payload.
const MAX_IN_ENVELOPE: usize = 16;
/// The most manifests that are fetched because they refer to an image, each by a request.
const MAX_REFERRERS: usize = 256;

/// The DER of a public key up to its point (RFC 5480, RFC 8410). Each of the two supported
/// kinds of keys has only one such prefix.
const P256: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a,
    0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];
const EDWARDS: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// A public key, by which signatures of images are checked.
pub struct ImageKey {
    algorithm: &'static dyn VerificationAlgorithm,
    point: Vec<u8>,
    /// Digest of the key's DER.
    pub digest: Digest,
}

impl fmt::Debug for ImageKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ImageKey").field("digest", &self.digest).finish_non_exhaustive()
    }
}

impl ImageKey {
    /// Reads the file `path`, as `cosign generate-key-pair` writes it.
    ///
    /// # Errors
    /// When the file cannot be read, or holds no public key in PEM that is an ECDSA key
    /// on P-256 or one of Ed25519.
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

/// Finds a signature by `key` of one of `digests` in the repository of `store`, and returns
/// the digest that is signed. At most `document_bytes` are read for that.
pub(crate) fn check(
    store: &RegistryStore,
    digests: &[Digest],
    key: &ImageKey,
    document_bytes: u64,
) -> Result<Digest> {
    let documents = Budget::new(document_bytes);
    let mut search = Search { store, key, documents, looked: 0, met: 0 };
    for digest in digests {
        if search.simple(*digest)? || search.bundles(*digest)? {
            return Ok(*digest);
        }
    }
    let digests: Vec<String> = digests.iter().map(Digest::to_string).collect();
    let digests = digests.join(" and ");
    match search.met {
        0 => bail!("it is not signed: the registry has no signature of {digests}"),
        met => bail!("it is not signed by that key: {met} signatures of {digests} are by others"),
    }
}

/// The search for a signature, in which each one is checked as it comes. Invariant: only what
/// the next step needs is kept of a document, and never its parsed values; a registry may
/// send hundreds of documents, of 16 MiB each.
struct Search<'s> {
    store: &'s RegistryStore,
    key: &'s ImageKey,
    /// The bytes of documents that may be read.
    documents: Budget<'static>,
    /// The number of documents that were read as possible signatures.
    looked: usize,
    /// The number of signatures that were checked.
    met: usize,
}

impl Search<'_> {
    /// Takes the bytes of a document from the budget.
    fn counted(&self, bytes: Vec<u8>) -> Result<Vec<u8>> {
        count(&self.documents, bytes.len(), RAISE)?;
        Ok(bytes)
    }

    /// Reads the blob `digest`, which may be a signature.
    fn look_at(&mut self, digest: Digest) -> Result<Vec<u8>> {
        self.looked += 1;
        ensure!(
            self.looked <= MAX_SIGNATURES,
            "more than {MAX_SIGNATURES} documents may be signatures of it, and none of the first \
             {MAX_SIGNATURES} is one by that key"
        );
        self.counted(self.store.by_digest(digest)?)
    }

    /// Looks for a signature of `digest` as simple signing has them.
    fn simple(&mut self, digest: Digest) -> Result<bool> {
        let tag = format!("sha256-{}.sig", digest.hex());
        let Some(manifest) = self.store.tagged(&tag)? else {
            return Ok(false);
        };
        for (blob, signature) in simple_signatures(&self.counted(manifest)?) {
            let payload = self.look_at(blob).with_context(|| tag.clone())?;
            self.met += 1;
            if self.key.signed(&payload, &signature) && names(&payload, digest) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Looks for a signature of `digest` in the bundles that refer to it.
    fn bundles(&mut self, digest: Digest) -> Result<bool> {
        let Some(index) = self.store.referrers(digest)? else {
            return Ok(false);
        };
        let mut seen = HashSet::new();
        for (i, manifest) in referrers(&self.counted(index)?).into_iter().enumerate() {
            ensure!(
                i < MAX_REFERRERS,
                "more than {MAX_REFERRERS} manifests that may be signatures refer to {digest}"
            );
            let manifest = self.counted(self.store.by_digest(manifest)?)?;
            for blob in bundles_about(&manifest, digest) {
                if !seen.insert(blob) {
                    continue;
                }
                let Some(envelope) = Envelope::of(&self.look_at(blob)?) else { continue };
                self.met += 1;
                if envelope.vouches(digest, self.key) {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }
}

/// The document `bytes` as JSON; null if it is not JSON.
fn values(bytes: &[u8]) -> Value {
    crate::foreign_json::from_slice(bytes).unwrap_or_default()
}

/// The payloads that a manifest of simple signing lists, each with a signature. A payload is
/// there more than once if several keys signed it.
fn simple_signatures(manifest: &[u8]) -> Vec<(Digest, String)> {
    let manifest = values(manifest);
    let layers = list(&manifest["layers"]).iter().filter(|l| l["mediaType"] == SIMPLE_TYPE);
    let signed = layers.filter_map(|layer| {
        let signature = layer["annotations"][SIMPLE_SIGNATURE].as_str()?;
        Some((digest_of(layer)?, signature))
    });
    let mut seen = HashSet::new();
    let signed = signed.filter(|signed| seen.insert(*signed)).take(MAX_SIGNATURES + 1);
    signed.map(|(digest, signature)| (digest, signature.to_owned())).collect()
}

/// Whether `payload` of simple signing says that `digest` is signed.
fn names(payload: &[u8], digest: Digest) -> bool {
    let payload = values(payload);
    let critical = &payload["critical"];
    critical["type"] == SIMPLE_KIND
        && critical["image"]["docker-manifest-digest"] == *digest.to_string()
}

fn is_bundle(media_type: &Value) -> bool {
    media_type.as_str().is_some_and(|text| text.starts_with(BUNDLE_TYPE))
}

/// The manifests of an index of referrers that may be signatures.
fn referrers(index: &[u8]) -> Vec<Digest> {
    let index = values(index);
    // Not every registry gives the artifact type of a referrer: one without it may be a
    // signature.
    let is_other =
        |entry: &Value| entry["artifactType"].is_string() && !is_bundle(&entry["artifactType"]);
    let entries = list(&index["manifests"]).iter().filter(|entry| !is_other(entry));
    let mut seen = HashSet::new();
    let digests = entries.filter_map(digest_of).filter(|digest| seen.insert(*digest));
    digests.take(MAX_REFERRERS + 1).collect()
}

/// The bundles that `manifest` lists, if it refers to `digest`.
fn bundles_about(manifest: &[u8], digest: Digest) -> Vec<Digest> {
    let manifest = values(manifest);
    if manifest["subject"]["digest"] != *digest.to_string() {
        return Vec::new();
    }
    let layers = list(&manifest["layers"]).iter().filter(|layer| is_bundle(&layer["mediaType"]));
    layers.filter_map(digest_of).collect()
}

/// A DSSE envelope: a statement and its signatures.
struct Envelope {
    payload: Vec<u8>,
    signatures: Vec<String>,
}

impl Envelope {
    /// The envelope in the bundle `bytes`; an empty one if its payload is not a statement of
    /// in-toto.
    fn of(bytes: &[u8]) -> Option<Self> {
        let bundle = values(bytes);
        let envelope = bundle.get("dsseEnvelope").filter(|envelope| envelope.is_object())?;
        let text = envelope["payload"].as_str();
        let payload = text.filter(|_| envelope["payloadType"] == IN_TOTO);
        let payload = payload.and_then(|text| BASE64_STANDARD.decode(text).ok());
        let Some(payload) = payload else {
            return Some(Self { payload: Vec::new(), signatures: Vec::new() });
        };
        let signatures = list(&envelope["signatures"]).iter().take(MAX_IN_ENVELOPE);
        let signatures = signatures.filter_map(|signature| signature["sig"].as_str());
        Some(Self { payload, signatures: signatures.map(str::to_owned).collect() })
    }

    /// Whether `key` signed it, and its statement says that `digest` is signed.
    fn vouches(&self, digest: Digest, key: &ImageKey) -> bool {
        let payload = &self.payload;
        // DSSE signs the pre-authentication encoding: type and payload, each behind its length.
        let head = format!("DSSEv1 {} {IN_TOTO} {} ", IN_TOTO.len(), payload.len());
        let message = [head.as_bytes(), payload].concat();
        if !self.signatures.iter().any(|signature| key.signed(&message, signature)) {
            return false;
        }
        let statement = values(payload);
        statement["predicateType"] == SIGNED
            && list(&statement["subject"]).iter().any(|s| s["digest"]["sha256"] == *digest.hex())
    }
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

    #[test]
    fn a_bundle_of_any_form_is_an_envelope_or_none() {
        for bytes in ["[]", "7", "\"dsseEnvelope\"", "", "{}", r#"{"dsseEnvelope":[]}"#] {
            assert!(Envelope::of(bytes.as_bytes()).is_none(), "{bytes}");
        }
        // A document whose values would take a hundred times its bytes is not parsed.
        let many = format!(r#"{{"dsseEnvelope":{{"x":[{}0]}}}}"#, r#"{"":0},"#.repeat(1 << 20));
        assert!(Envelope::of(many.as_bytes()).is_none());
        let other = br#"{"dsseEnvelope":{"payloadType":"other","payload":"eA==","signatures":[{"sig":"eA=="}]}}"#;
        assert!(Envelope::of(other).unwrap().signatures.is_empty());
    }

    #[test]
    fn what_is_listed_twice_is_looked_at_once() {
        let digest = Digest::of(b"x");
        let layer = |signature: &str| {
            format!(
                r#"{{"mediaType":"{SIMPLE_TYPE}","digest":"{digest}","annotations":{{"{SIMPLE_SIGNATURE}":"{signature}"}}}}"#
            )
        };
        let layers = [layer("a"), layer("b"), layer("a")].join(",");
        let found = simple_signatures(format!(r#"{{"layers":[{layers}]}}"#).as_bytes());
        assert_eq!(found, [(digest, "a".to_owned()), (digest, "b".to_owned())]);
        let entries = vec![format!(r#"{{"digest":"{digest}"}}"#); 3].join(",");
        let found = referrers(format!(r#"{{"manifests":[{entries}]}}"#).as_bytes());
        assert_eq!(found, [digest]);
    }

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
