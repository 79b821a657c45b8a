//! The client, behind a face that blocks: requests, and which of them are worth
//! another try.

use std::error::Error as _;
use std::fmt::Write as _;
use std::future::Future;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use oci_client::RegistryOperation;
use oci_client::client::{
    BlobResponse, Certificate, CertificateEncoding, ClientConfig, ClientProtocol,
};
use oci_client::errors::{OciDistributionError, OciErrorCode};
use oci_client::manifest::OciDescriptor;
use oci_client::secrets::RegistryAuth;
use oci_spec::distribution::Reference;
use tokio::runtime::Runtime;

use super::{Access, credentials};
use crate::digest::Digest;

const MEDIA_TYPES: [&str; 4] = [
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.docker.distribution.manifest.v2+json",
];

/// Waits before another try: twice as long each time.
const FIRST_WAIT: Duration = Duration::from_millis(250);

/// Tries after the first.
pub const RETRIES: u32 = 5;

/// Tries after the first where there is no connection: what is not there will
/// hardly come.
const CONNECT_RETRIES: u32 = 2;

/// A registry, as one repository is asked for.
pub struct Client {
    runtime: Runtime,
    client: oci_client::Client,
    reference: Reference,
    auth: RegistryAuth,
}

/// A request that did not succeed.
#[derive(Debug)]
pub struct Failure {
    error: anyhow::Error,
    /// How often it is worth another try.
    pub retries: u32,
}

impl Failure {
    pub fn into_error(self) -> anyhow::Error {
        self.error
    }
}

impl Client {
    pub fn new(reference: &Reference, access: &Access) -> Result<Self> {
        // Of two builds of the library in one process, the first has said it.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut certificates = Vec::new();
        for path in &access.ca_certs {
            let data = std::fs::read(path).with_context(|| path.display().to_string())?;
            certificates.push(Certificate { encoding: CertificateEncoding::Pem, data });
        }
        let config = ClientConfig {
            protocol: ClientProtocol::HttpsExcept(access.insecure.clone()),
            extra_root_certificates: certificates,
            read_timeout: Some(Duration::from_secs(60)),
            connect_timeout: Some(Duration::from_secs(20)),
            user_agent: concat!("rootfs-compile/", env!("CARGO_PKG_VERSION")),
            ..ClientConfig::default()
        };
        let auth = match &access.credentials {
            Some((name, password)) => RegistryAuth::Basic(name.clone(), password.clone()),
            None => credentials::find(reference)?,
        };
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .context("starting the registry client")?;
        let client = oci_client::Client::try_from(config)
            .map_err(|error| anyhow!("the registry client: {error}"))?;
        Ok(Self { runtime, client, reference: reference.clone(), auth })
    }

    pub fn runtime(&self) -> &Runtime {
        &self.runtime
    }

    /// The bytes of the manifest or index that `reference` names.
    pub fn manifest(&self, reference: &Reference) -> Result<Vec<u8>> {
        let ask = || async {
            self.authorize().await?;
            let pulled = self.client.pull_manifest_raw(reference, &self.auth, &MEDIA_TYPES).await?;
            Ok(pulled.0.to_vec())
        };
        self.retry(ask)
    }

    async fn authorize(&self) -> Result<(), OciDistributionError> {
        self.client.auth(&self.reference, &self.auth, RegistryOperation::Pull).await.map(drop)
    }

    /// Asks for a blob from byte `offset` on.
    pub fn blob(&self, digest: Digest, offset: u64) -> Result<BlobResponse, Failure> {
        let descriptor = OciDescriptor { digest: digest.to_string(), ..OciDescriptor::default() };
        let ask = async {
            match offset {
                0 => {
                    let pulled = self.client.pull_blob_stream(&self.reference, &descriptor).await;
                    pulled.map(BlobResponse::Full)
                }
                _ => {
                    let from = self.client.pull_blob_stream_partial(
                        &self.reference,
                        &descriptor,
                        offset,
                        None,
                    );
                    from.await
                }
            }
        };
        self.runtime.block_on(ask).map_err(|error| self.failure(error))
    }

    fn retry<T, F>(&self, ask: impl Fn() -> F) -> Result<T>
    where
        F: Future<Output = Result<T, OciDistributionError>>,
    {
        let mut tries = 0;
        loop {
            match self.runtime.block_on(ask()).map_err(|error| self.failure(error)) {
                Ok(done) => return Ok(done),
                Err(failure) if tries >= failure.retries => return Err(failure.error),
                Err(_) => wait(tries),
            }
            tries += 1;
        }
    }

    /// What `error` means to people, and whether it may pass.
    fn failure(&self, error: OciDistributionError) -> Failure {
        let (registry, repository) = (self.reference.registry(), self.reference.repository());
        let denied = || match &self.auth {
            RegistryAuth::Anonymous => anyhow!(
                "{registry} refuses access to {repository} without a login: docker login or podman \
                 login stores one, ROOTFS_COMPILE_USERNAME and ROOTFS_COMPILE_PASSWORD give one"
            ),
            _ => anyhow!(
                "{registry} refuses access to {repository} with the login that it was given (by \
                 ROOTFS_COMPILE_USERNAME and ROOTFS_COMPILE_PASSWORD, else as docker or podman \
                 stored it)"
            ),
        };
        let unknown = || anyhow!("{registry} has no such tag or repository");
        let (error, retries) = match &error {
            OciDistributionError::UnauthorizedError { .. }
            | OciDistributionError::AuthenticationFailure(_) => (denied(), 0),
            OciDistributionError::RegistryError { envelope, .. } => {
                let codes: Vec<&OciErrorCode> = envelope.errors.iter().map(|e| &e.code).collect();
                let has = |wanted: &[OciErrorCode]| codes.iter().any(|code| wanted.contains(code));
                if has(&[OciErrorCode::Unauthorized, OciErrorCode::Denied]) {
                    (denied(), 0)
                } else if has(&[OciErrorCode::ManifestUnknown, OciErrorCode::NameUnknown]) {
                    (unknown(), 0)
                } else if has(&[OciErrorCode::Toomanyrequests]) {
                    (anyhow!("{registry} has had too many requests"), RETRIES)
                } else {
                    (anyhow!("{registry} answers: {envelope}"), 0)
                }
            }
            OciDistributionError::ServerError { code, .. } => match code {
                401 | 403 => (denied(), 0),
                404 => (unknown(), 0),
                408 | 429 | 500..=599 => (anyhow!("{registry} answers {code}"), RETRIES),
                _ => (anyhow!("{registry} answers {code}"), 0),
            },
            OciDistributionError::RequestError(error) => self.request(error),
            OciDistributionError::IoError(error) => (anyhow!("{registry}: {error}"), RETRIES),
            other => (anyhow!("{registry}: {other}"), 0),
        };
        Failure { error, retries }
    }

    /// A request to which there was no answer.
    fn request(&self, error: &reqwest::Error) -> (anyhow::Error, u32) {
        let registry = self.reference.registry();
        // The last cause says most; the first would show a URL, which may have
        // secrets in it.
        let mut causes = String::new();
        let mut cause = error.source();
        while let Some(error) = cause {
            cause = error.source();
            if cause.is_none() {
                let _ = write!(causes, ": {error}");
            }
        }
        let hint = if causes.contains("ertificate") || causes.contains("UnknownIssuer") {
            " (--ca-cert FILE trusts a private authority)"
        } else if causes.contains("corrupt message") || causes.contains("InvalidContentType") {
            " (if it speaks plain HTTP, --insecure-registry allows that)"
        } else {
            ""
        };
        let retries = match error.is_connect() {
            true if !hint.is_empty() => 0,
            true => CONNECT_RETRIES,
            false => RETRIES,
        };
        (anyhow!("no answer from {registry}{causes}{hint}"), retries)
    }
}

/// Waits before try number `tries` is made again.
pub fn wait(tries: u32) {
    std::thread::sleep(FIRST_WAIT * 2u32.saturating_pow(tries.min(RETRIES)));
}
