//! Who the user is to a registry: as docker and podman have stored it.

use std::env;
use std::fs::File;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Result, anyhow, bail};
use docker_credential::{CredentialRetrievalError, DockerCredential, get_credential_from_reader};
use oci_client::secrets::RegistryAuth;
use oci_spec::distribution::Reference;

/// The name under which docker stores what is for its own registry.
const DOCKER_IO: &str = "https://index.docker.io/v1/";

/// What is known of the user at the registry of `reference`; nobody, if nothing is.
pub fn find(reference: &Reference) -> Result<RegistryAuth> {
    for path in files() {
        let mut names = vec![];
        // podman tells users apart by what follows the host, the longest first.
        let mut name = format!("{}/{}", reference.registry(), reference.repository());
        loop {
            names.push(name.clone());
            match name.rfind('/') {
                Some(at) => name.truncate(at),
                None => break,
            }
        }
        if reference.registry() == "docker.io" {
            names.push(DOCKER_IO.into());
        }
        // What no key is called would only go to the helper for all, which may ask.
        let host = reference.registry();
        let known = keys(&path);
        names.retain(|name| name == host || name == DOCKER_IO || known.contains(name));
        for name in names {
            let file = match File::open(&path) {
                Ok(file) => file,
                Err(error) if error.kind() == ErrorKind::NotFound => break,
                Err(error) => return Err(anyhow!("{}: {error}", path.display())),
            };
            match get_credential_from_reader(file, &name) {
                Ok(DockerCredential::UsernamePassword(name, password)) => {
                    return Ok(RegistryAuth::Basic(name, password));
                }
                Ok(DockerCredential::IdentityToken(_)) => bail!(
                    "{} has an identity token for {name}, which is not known here; set \
                     ROOTFS_COMPILE_USERNAME and ROOTFS_COMPILE_PASSWORD",
                    path.display()
                ),
                Err(CredentialRetrievalError::NoCredentialConfigured) => {}
                // Helpers end so when they know nothing of a registry, and what
                // they say may hold what is secret.
                Err(CredentialRetrievalError::HelperFailure { .. }) => {}
                Err(CredentialRetrievalError::HelperCommunicationError) => bail!(
                    "{} names a credential helper that cannot be run (docker-credential-… in PATH)",
                    path.display()
                ),
                Err(_) => bail!("{}: the credentials for {name} cannot be read", path.display()),
            }
        }
    }
    Ok(RegistryAuth::Anonymous)
}

/// The keys of `auths` and `credHelpers`.
fn keys(path: &Path) -> Vec<String> {
    let bytes = std::fs::read(path).unwrap_or_default();
    let value: serde_json::Value = serde_json::from_slice(&bytes).unwrap_or_default();
    let of = |key: &str| value[key].as_object().into_iter().flat_map(|map| map.keys().cloned());
    of("auths").chain(of("credHelpers")).collect()
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
