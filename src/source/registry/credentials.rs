//! Who the user is to a registry: as docker and podman have stored it.

use std::env;
use std::fs;
use std::io::ErrorKind;
use std::path::PathBuf;

use anyhow::{Result, anyhow, bail};
use docker_credential::{CredentialRetrievalError, DockerCredential, get_credential_from_reader};
use oci_spec::distribution::Reference;

use super::login::Login;

/// The name under which docker stores what is for its own registry.
const DOCKER_IO: &str = "https://index.docker.io/v1/";

/// What is known of the user at the registry of `reference`; nobody, if nothing is.
pub fn find(reference: &Reference) -> Result<Login> {
    for path in files() {
        let shown = path.display();
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            Err(error) => return Err(anyhow!("{shown}: {error}")),
        };
        for name in names(reference, &bytes) {
            match get_credential_from_reader(&bytes[..], &name) {
                Ok(DockerCredential::UsernamePassword(name, password)) => {
                    return Ok(Login::Password { name, password });
                }
                Ok(DockerCredential::IdentityToken(token)) => {
                    return Ok(Login::IdentityToken(token));
                }
                Err(CredentialRetrievalError::NoCredentialConfigured) => {}
                // Helpers end so when they know nothing of a registry, and what
                // they say may hold what is secret.
                Err(CredentialRetrievalError::HelperFailure { .. }) => {}
                Err(CredentialRetrievalError::HelperCommunicationError) => bail!(
                    "{shown} names a credential helper that cannot be run (docker-credential-… in PATH)"
                ),
                Err(_) => bail!("{shown}: the credentials for {name} cannot be read"),
            }
        }
    }
    Ok(Login::Anonymous)
}

/// What the user at the registry of `reference` may be stored under in the file
/// `bytes`, the best first.
fn names(reference: &Reference, bytes: &[u8]) -> Vec<String> {
    let host = reference.registry();
    let mut names = vec![];
    // podman tells users apart by what follows the host, the longest first.
    let mut name = format!("{host}/{}", reference.repository());
    loop {
        names.push(name.clone());
        match name.rfind('/') {
            Some(at) => name.truncate(at),
            None => break,
        }
    }
    if host == "docker.io" {
        names.push(DOCKER_IO.into());
    }
    let value: serde_json::Value = serde_json::from_slice(bytes).unwrap_or_default();
    let known = |name: &str| ["auths", "credHelpers"].iter().any(|key| !value[key][name].is_null());
    // What no key is called would only go to the helper for all, which may ask.
    names.retain(|name| name == host || name == DOCKER_IO || known(name));
    names
}

/// Where credentials may be stored, the first that has some counts.
fn files() -> Vec<PathBuf> {
    let dir = |name: &str| env::var_os(name).filter(|dir| !dir.is_empty()).map(PathBuf::from);
    let home = dir("HOME");
    let config = dir("XDG_CONFIG_HOME").or_else(|| Some(home.as_ref()?.join(".config")));
    let docker = dir("DOCKER_CONFIG").or_else(|| Some(home.as_ref()?.join(".docker")));
    let podman = "containers/auth.json";
    [
        dir("REGISTRY_AUTH_FILE"),
        dir("XDG_RUNTIME_DIR").map(|dir| dir.join(podman)),
        config.map(|dir| dir.join(podman)),
        docker.map(|dir| dir.join("config.json")),
    ]
    .into_iter()
    .flatten()
    .collect()
}
