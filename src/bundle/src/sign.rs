//! Makes secret keys, and signs bundles with them.
//!
//! Keys and signatures have the form of minisign's. Signing is deterministic, as in RFC 8032:
//! the same key and the same bundle give the same bytes.

use std::fmt;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use blake2::{Blake2b512, Digest as _};
use fsimage::digest::Digest;
use fsimage::io::atomic_file;
use fsimage::io::temporary::{self, Temporary};
use minisign::{KeyPair, SecretKeyBox};
use ring::signature::Ed25519KeyPair;

use super::signature::{Key, check, read_small};
use super::sound::Depth;
use crate::names::{INDEX, SIGNATURE};
use crate::open::OpenBundle;
use crate::opened::Place;

/// The environment variable with the password of a secret key.
pub const PASSWORD: &str = "ROOTFS_COMPILE_KEY_PASSWORD";

/// A secret key of minisign: its key ID and its Ed25519 key pair.
pub struct SecretKey {
    number: [u8; 8],
    pair: Ed25519KeyPair,
}

/// Makes a key pair: the secret key at `path`, the public one beside it with `.pub` at its
/// end. Returns the path of the public one. `password` protects the secret one.
///
/// # Errors
/// When one of the two files exists already or cannot be written, or the key cannot be made.
pub fn generate(path: &Path, password: Option<&str>) -> Result<PathBuf> {
    let mut public = path.as_os_str().to_owned();
    public.push(".pub");
    let public = PathBuf::from(public);
    let pair = match password {
        Some(password) => KeyPair::generate_encrypted_keypair(Some(password.to_owned())),
        None => KeyPair::generate_unencrypted_keypair(),
    };
    let pair = pair.context("making a key")?;
    let secret = pair.sk.to_box(Some("rootfs-compile secret key")).context("making a key")?;
    let shown = |path: &Path| path.display().to_string();
    create(path, 0o600, &secret.to_bytes()).with_context(|| shown(path))?;
    let text = pair.pk.to_box().context("making a key")?;
    let made = create(&public, 0o644, &text.to_bytes()).with_context(|| shown(&public));
    if made.is_err() {
        // A secret key without its public one is not left behind.
        let _ = std::fs::remove_file(path);
    }
    made.map(|()| public)
}

/// Creates a file atomically. A file that exists is never replaced, because a key that is
/// lost cannot be restored.
fn create(path: &Path, mode: u32, bytes: &[u8]) -> Result<()> {
    let temporary = Temporary::create(path.parent().unwrap_or(Path::new("")), mode)?;
    temporary.file().write_all(bytes)?;
    temporary.file().sync_all()?;
    match temporary.persist_new(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            bail!("it is there already; it stays as it is")
        }
        made => Ok(made.map(drop)?),
    }
}

/// Without the key.
impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SecretKey").field("number", &self.number).finish_non_exhaustive()
    }
}

impl SecretKey {
    /// Reads the file `path`, as minisign writes it. `password` is needed if the key has one.
    ///
    /// # Errors
    /// When the file cannot be read, is not a secret key of minisign, or needs another
    /// password than the one given.
    pub fn load(path: &Path, password: Option<String>) -> Result<Self> {
        let read = || -> Result<Self> {
            let text = read_small(path)?;
            let line = text.lines().nth(1).unwrap_or_default();
            let record = BASE64_STANDARD.decode(line.trim()).unwrap_or_default();
            ensure!(record.starts_with(b"Ed"), "it is not a secret key of minisign");
            // Behind the signature algorithm are two bytes for the key derivation: zeros in a
            // key without a password.
            if record.get(2..4) == Some(&[0, 0]) {
                return Self::parse(&record);
            }
            let password =
                password.with_context(|| format!("it needs a password: set {PASSWORD}"))?;
            let key = SecretKeyBox::from(text).into_secret_key(Some(password))?;
            Self::parse(&key.to_bytes())
        };
        read().with_context(|| format!("the key {}", path.display()))
    }

    /// Parses the record of a secret key, which its file has in base64: algorithms and
    /// parameters in 54 bytes, the key ID, the seed, the public key.
    fn parse(record: &[u8]) -> Result<Self> {
        const HEAD: usize = 54;
        let number = record.get(HEAD..).and_then(|rest| rest.first_chunk::<8>());
        let seed = record.get(HEAD + 8..HEAD + 40);
        let public = record.get(HEAD + 40..HEAD + 72);
        let (Some(number), Some(seed), Some(public)) = (number, seed, public) else {
            bail!("it is too short");
        };
        let pair = Ed25519KeyPair::from_seed_and_public_key(seed, public);
        let pair = pair.map_err(|error| {
            anyhow::anyhow!("its secret and public parts do not match: {error}")
        })?;
        Ok(Self { number: *number, pair })
    }

    /// The signature of `json`, in the form of the file [`SIGNATURE`].
    pub fn sign(&self, json: &[u8]) -> String {
        // "ED" means that the hash is signed, and not the bytes themselves.
        let signature = self.pair.sign(&Blake2b512::digest(json));
        let record = [b"ED", &self.number[..], signature.as_ref()].concat();
        let comment = format!("rootfs-compile {INDEX} {}", Digest::of(json));
        let global = self.pair.sign(&[signature.as_ref(), comment.as_bytes()].concat());
        format!(
            "untrusted comment: signature of a bundle, for minisign -V\n{}\ntrusted comment: {comment}\n{}\n",
            BASE64_STANDARD.encode(record),
            BASE64_STANDARD.encode(global.as_ref()),
        )
    }

    /// The public key.
    fn public(&self) -> Result<Key> {
        use ring::signature::KeyPair as _;
        let record = [b"Ed", &self.number[..], self.pair.public_key().as_ref()].concat();
        Key::parse(&BASE64_STANDARD.encode(record), "the key that signed it")
    }
}

/// Signs the bundle at `place`, all of whose files are checked before.
///
/// # Errors
/// When the bundle is not sound or changes meanwhile, the key does not fit together, or
/// the signature cannot be written.
pub fn sign(place: Place, key: &SecretKey) -> Result<()> {
    let bundle = OpenBundle::open_found(place, Depth::Full)?;
    let text = key.sign(&bundle.json);
    // Invariant: every signature that is written is accepted by `check`.
    check(&bundle.json, Some(text.as_bytes()), &[key.public()?])?;
    bundle.unchanged()?;
    // Removes temporary files of runs that were killed here. If that fails, so does writing.
    let _ = temporary::remove_left_in(&bundle.at);
    let path = bundle.dir.join(SIGNATURE);
    let write = atomic_file::write_in(&bundle.at, SIGNATURE, &mut text.as_bytes());
    write.with_context(|| path.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_signs_the_same_way_twice_and_nothing_else_fits() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        let public = generate(&path, None).unwrap();
        assert!(generate(&path, None).is_err());
        let secret = SecretKey::load(&path, None).unwrap();
        let text = secret.sign(b"{}");
        assert_eq!(text, SecretKey::load(&path, None).unwrap().sign(b"{}"));
        let key = Key::load(&public).unwrap();
        check(b"{}", Some(text.as_bytes()), std::slice::from_ref(&key)).unwrap();
        assert!(check(b"{ }", Some(text.as_bytes()), std::slice::from_ref(&key)).is_err());
        let other = generate(&dir.path().join("other"), None).unwrap();
        let other = Key::load(&other).unwrap();
        assert!(check(b"{}", Some(text.as_bytes()), std::slice::from_ref(&other)).is_err());
        check(b"{}", Some(text.as_bytes()), &[other, key]).unwrap();
    }

    #[test]
    fn two_keys_may_have_one_number() {
        let dir = tempfile::tempdir().unwrap();
        let make = |name: &str| {
            let path = dir.path().join(name);
            let public = generate(&path, None).unwrap();
            (SecretKey::load(&path, None).unwrap(), public)
        };
        let ((secret, public), (mut other, _)) = (make("one"), make("two"));
        let key = Key::load(&public).unwrap();
        other.number = secret.number;
        let keys = [other.public().unwrap(), key];
        check(b"{}", Some(secret.sign(b"{}").as_bytes()), &keys).unwrap();
        let error = check(b"{ }", Some(secret.sign(b"{}").as_bytes()), &keys).unwrap_err();
        assert!(error.to_string().contains("not a signature of this index"), "{error}");
    }

    #[test]
    fn a_key_may_stand_alone_in_its_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key.pub");
        let key = "RWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3";
        for text in [
            key.to_owned(),
            format!("{key}\n"),
            format!("{key}\n\n"),
            format!("{key}\r\n\r\n"),
            format!("untrusted comment: x\n{key}\n"),
        ] {
            std::fs::write(&path, &text).unwrap();
            assert!(Key::load(&path).is_ok(), "{text:?}");
        }
    }

    #[test]
    fn a_key_that_cannot_be_written_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        std::fs::create_dir(dir.path().join("key.pub")).unwrap();
        assert!(generate(&path, None).is_err());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
