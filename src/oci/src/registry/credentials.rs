//! The logins that docker and podman have stored.

use std::env;
use std::io::ErrorKind;
use std::path::PathBuf;

use anyhow::{Result, anyhow, bail};
use docker_credential::{CredentialRetrievalError, DockerCredential, get_credential_from_reader};
use fsimage::io::regular;

use super::login::Login;
use crate::distribution::Reference;
use crate::store::MAX_DOCUMENT;

/// The key under which docker stores the login for Docker Hub.
const DOCKER_IO: &str = "https://index.docker.io/v1/";

/// The stored login for the registry of `reference`; anonymous if there is none.
pub(super) fn find(reference: &Reference) -> Result<Login> {
    for (path, is_named) in files() {
        let shown = path.display();
        let read = || match is_named {
            true => regular::read_named(&path, MAX_DOCUMENT),
            false => regular::bytes(&regular::open_followed(&path)?, MAX_DOCUMENT),
        };
        let bytes = match read().map_err(|error| (error.kind(), error)) {
            Ok(bytes) => without_blanks(bytes),
            Err((ErrorKind::NotFound | ErrorKind::NotADirectory, _)) => continue,
            // A default place may be unreadable, such as another user's home.
            Err((ErrorKind::PermissionDenied, _)) if !is_named => continue,
            Err((_, error)) => return Err(anyhow!("{shown}: {error}")),
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
                // Helpers fail when they have no login for a registry, too. What they print
                // is not shown, because it may hold a secret.
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

/// The keys under which the file `bytes` may have a login for the repository of `reference`,
/// the best first.
fn names(reference: &Reference, bytes: &[u8]) -> Vec<String> {
    let host = reference.registry();
    let mut names = vec![];
    // podman's keys may hold a part of the repository's name; the longest one counts.
    let mut name = format!("{host}/{}", reference.repository());
    loop {
        names.push(name.clone());
        match name.rfind('/') {
            Some(at) => name.truncate(at),
            None => break,
        }
    }
    if host == "docker.io" {
        // Before the host alone, which also matches keys of docker's that are not logins.
        names.insert(names.len() - 1, DOCKER_IO.into());
    }
    let value: serde_json::Value = serde_json::from_slice(bytes).unwrap_or_default();
    let known = |name: &str| ["auths", "credHelpers"].iter().any(|key| !value[key][name].is_null());
    // A name without a key would only go to the default helper, which may prompt the user.
    names.retain(|name| name == host || name == DOCKER_IO || known(name));
    names
}

/// The file without its empty logins, which docker writes where a helper has the login.
fn without_blanks(bytes: Vec<u8>) -> Vec<u8> {
    let Ok(mut value) = serde_json::from_slice::<serde_json::Value>(&bytes) else {
        return bytes;
    };
    // Indexing a value that is not an object would panic.
    let entries = value.get_mut("auths").and_then(|all| all.as_object_mut());
    for entry in entries.into_iter().flat_map(|all| all.values_mut()) {
        if let Some(entry) = entry.as_object_mut() {
            entry.retain(|key, value| key != "auth" || value != "");
        }
    }
    value.to_string().into_bytes()
}

/// The files that may hold logins, each with whether the user named it. The first one that
/// has a login counts.
fn files() -> Vec<(PathBuf, bool)> {
    let dir = |name: &str| env::var_os(name).filter(|dir| !dir.is_empty()).map(PathBuf::from);
    let home = dir("HOME");
    let config = dir("XDG_CONFIG_HOME").or_else(|| Some(home.as_ref()?.join(".config")));
    let docker = dir("DOCKER_CONFIG").or_else(|| Some(home.as_ref()?.join(".docker")));
    let podman = "containers/auth.json";
    let docker_is_named = dir("DOCKER_CONFIG").is_some();
    [
        (dir("REGISTRY_AUTH_FILE"), true),
        (dir("XDG_RUNTIME_DIR").map(|dir| dir.join(podman)), false),
        (config.map(|dir| dir.join(podman)), false),
        (docker.map(|dir| dir.join("config.json")), docker_is_named),
    ]
    .into_iter()
    .filter_map(|(path, is_named)| Some((path?, is_named)))
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_another_form_is_left_as_it_is() {
        for bytes in ["[]", "7", "null", "{}", "{\"auths\":[]}", "no JSON"] {
            assert_eq!(without_blanks(bytes.into()), bytes.as_bytes(), "{bytes}");
        }
        let file = r#"{"auths":{"a":{"auth":""},"b":{"auth":"eA=="}}}"#;
        let without = r#"{"auths":{"a":{},"b":{"auth":"eA=="}}}"#;
        assert_eq!(without_blanks(file.into()), without.as_bytes());
    }
}
