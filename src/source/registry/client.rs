//! The client, behind a face that blocks: requests, and which of them are worth
//! another try.
//!
//! Logins and what is written go through the library. What is read is asked for
//! here, because whether another try helps depends on the status, on Retry-After
//! and on Content-Range, which the library keeps to itself.

use std::error::Error as _;
use std::future::Future;
use std::sync::Mutex;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, anyhow, ensure};
use oci_client::RegistryOperation;
use oci_client::client::{Certificate, CertificateEncoding, ClientConfig, ClientProtocol};
use oci_client::errors::{OciDistributionError, OciErrorCode};
use oci_client::secrets::RegistryAuth;
use oci_spec::distribution::Reference;
use reqwest::header::{
    ACCEPT, CONTENT_RANGE, HeaderMap, HeaderValue, RANGE, RETRY_AFTER, WWW_AUTHENTICATE,
};
use reqwest::redirect::Policy;
use reqwest::{Response, StatusCode};
use tokio::runtime::Runtime;

use super::{Access, credentials};
use crate::digest::Digest;
use crate::source::choose_tls;

const MEDIA_TYPES: [&str; 4] = [
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.docker.distribution.manifest.v2+json",
];

const USER_AGENT: &str = concat!("rootfs-compile/", env!("CARGO_PKG_VERSION"));
const READ_TIMEOUT: Duration = Duration::from_secs(60);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);

/// Waits before another try: twice as long each time.
const FIRST_WAIT: Duration = Duration::from_millis(250);
/// No server's wish to wait is met for longer.
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// Tries after the first.
pub const RETRIES: u32 = 5;

/// Tries after the first where there is no connection: what is not there will
/// hardly come.
const CONNECT_RETRIES: u32 = 2;

/// Bytes of a manifest, as registries limit them, and more.
const MAX_MANIFEST: usize = 16 << 20;

/// A registry, as one repository is asked for.
pub struct Client {
    /// Always there, until the client is dropped.
    runtime: Option<Runtime>,
    /// For what is written, and for logins.
    pub(super) client: oci_client::Client,
    /// For what is read.
    http: reqwest::Client,
    pub(super) reference: Reference,
    insecure: bool,
    auth: RegistryAuth,
    /// What the registry wants to see, once it has asked for it.
    login: Mutex<RegistryAuth>,
}

/// What is asked for is not there.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct NotThere(String);

/// A request that did not succeed.
#[derive(Debug)]
pub struct Failure {
    pub error: anyhow::Error,
    /// How often it is worth another try.
    pub retries: u32,
    /// How long the server wants to be left alone.
    after: Option<Duration>,
}

impl Failure {
    pub fn new(error: anyhow::Error, retries: u32) -> Self {
        Self { error, retries, after: None }
    }

    /// Waits before try number `tries` is made again.
    pub fn wait(&self, tries: u32) {
        let usual = FIRST_WAIT * 2u32.saturating_pow(tries.min(RETRIES));
        std::thread::sleep(self.after.unwrap_or_default().min(LONGEST_WAIT).max(usual));
    }
}

/// What is asked for.
#[derive(Clone, Copy)]
enum Wanted {
    Manifest,
    Blob,
}

impl Drop for Client {
    fn drop(&mut self) {
        // Nobody waits any more for what is still on the wire.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Client {
    pub fn new(reference: &Reference, access: &Access) -> Result<Self> {
        choose_tls();
        let mut certificates = Vec::new();
        let mut http = reqwest::Client::builder()
            .user_agent(USER_AGENT)
            .redirect(redirects())
            .read_timeout(READ_TIMEOUT)
            .connect_timeout(CONNECT_TIMEOUT);
        for path in &access.ca_certs {
            let shown = || path.display().to_string();
            let data = std::fs::read(path).with_context(shown)?;
            let parsed = reqwest::Certificate::from_pem_bundle(&data).with_context(shown)?;
            ensure!(!parsed.is_empty(), "{}: there is no certificate (PEM) in it", shown());
            for certificate in parsed {
                http = http.add_root_certificate(certificate);
            }
            certificates.push(Certificate { encoding: CertificateEncoding::Pem, data });
        }
        let config = ClientConfig {
            protocol: ClientProtocol::HttpsExcept(access.insecure.clone()),
            extra_root_certificates: certificates,
            read_timeout: Some(READ_TIMEOUT),
            connect_timeout: Some(CONNECT_TIMEOUT),
            user_agent: USER_AGENT,
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
        Ok(Self {
            runtime: Some(runtime),
            client,
            http: http.build().context("the registry client")?,
            reference: reference.clone(),
            insecure: access.insecure.iter().any(|host| host == reference.resolve_registry()),
            auth,
            login: Mutex::new(RegistryAuth::Anonymous),
        })
    }

    pub fn runtime(&self) -> &Runtime {
        self.runtime.as_ref().expect("only dropping takes it")
    }

    /// The bytes of the manifest or index that `reference` names.
    pub fn manifest(&self, reference: &Reference) -> Result<Vec<u8>> {
        let name = reference.digest().or(reference.tag()).unwrap_or("latest");
        let path = format!("manifests/{name}");
        self.tried(|| {
            self.runtime().block_on(async {
                let mut response = self.get(&path, Wanted::Manifest, 0).await?;
                let told = response.headers().get("docker-content-digest");
                let told = told.and_then(|value| value.to_str().ok());
                let told = told.filter(|told| told.starts_with("sha256:")).map(str::to_owned);
                let mut bytes = Vec::new();
                while let Some(chunk) =
                    response.chunk().await.map_err(|error| self.request(&error))?
                {
                    bytes.extend_from_slice(&chunk);
                    if bytes.len() > MAX_MANIFEST {
                        return Err(Failure::new(self.says("a manifest without an end"), 0));
                    }
                }
                let value = serde_json::from_slice::<serde_json::Value>(&bytes).unwrap_or_default();
                if !value["schemaVersion"].is_number() {
                    let what = "its answer is no manifest (is it a registry?)";
                    return Err(Failure::new(self.says(what), 0));
                }
                let is = Digest::of(&bytes).to_string();
                let mut expected = told.iter().map(|told| &**told).chain(reference.digest());
                if let Some(other) = expected.find(|digest| *digest != is) {
                    let what =
                        format!("the manifest has the digest {is}, not {other}: it is damaged");
                    return Err(Failure::new(self.says(&what), 0));
                }
                Ok(bytes)
            })
        })
    }

    /// Asks for a blob from byte `offset` on. The answer may begin at the start
    /// all the same: then it has the status 200.
    pub fn blob(&self, digest: Digest, offset: u64) -> Result<Response, Failure> {
        self.runtime().block_on(self.get(&format!("blobs/{digest}"), Wanted::Blob, offset))
    }

    async fn get(&self, path: &str, wanted: Wanted, offset: u64) -> Result<Response, Failure> {
        let scheme = if self.insecure { "http" } else { "https" };
        let (host, repository) = (self.reference.resolve_registry(), self.reference.repository());
        let url = format!("{scheme}://{host}/v2/{repository}/{path}");
        let mut asked = false;
        loop {
            let mut request = self.http.get(&url);
            if let Wanted::Manifest = wanted {
                request = request.header(ACCEPT, MEDIA_TYPES.join(", "));
            }
            if offset > 0 {
                request = request.header(RANGE, format!("bytes={offset}-"));
            }
            let login = self.login.lock().expect("no holder panics").clone();
            request = match login {
                RegistryAuth::Anonymous => request,
                RegistryAuth::Basic(name, password) => request.basic_auth(name, Some(password)),
                RegistryAuth::Bearer(token) => request.bearer_auth(token),
            };
            let response = request.send().await.map_err(|error| self.request(&error))?;
            // A token may also have become too old.
            if response.status() == StatusCode::UNAUTHORIZED && !asked {
                self.log_in().await?;
                asked = true;
                continue;
            }
            return self.answer(response, wanted, offset).await;
        }
    }

    /// Gets what the registry wants to see.
    async fn log_in(&self) -> Result<(), Failure> {
        let token = self.authorize(RegistryOperation::Pull).await;
        let login = match token.map_err(|error| self.failure(error))? {
            Some(token) => RegistryAuth::Bearer(token),
            None => self.auth.clone(),
        };
        *self.login.lock().expect("no holder panics") = login;
        Ok(())
    }

    /// The response, if it is what was asked for.
    async fn answer(
        &self,
        response: Response,
        wanted: Wanted,
        offset: u64,
    ) -> Result<Response, Failure> {
        let status = response.status();
        if status == StatusCode::PARTIAL_CONTENT {
            let range = response.headers().get(CONTENT_RANGE).and_then(|v| v.to_str().ok());
            let wanted = format!("bytes {offset}-");
            if !range.is_some_and(|range| range.starts_with(&wanted)) {
                return Err(Failure::new(self.says("it sends another range"), RETRIES));
            }
            return Ok(response);
        }
        if status.is_success() {
            return Ok(response);
        }
        let after = retry_after(response.headers());
        let text = beginning(response).await;
        let value = serde_json::from_slice::<serde_json::Value>(&text).unwrap_or_default();
        let message = value["errors"][0]["message"].as_str().unwrap_or_default().to_owned();
        let mut failure = match (status.as_u16(), wanted) {
            (404, wanted) => {
                let what = match wanted {
                    Wanted::Blob => "it has no such blob",
                    Wanted::Manifest => "there is no such tag or repository",
                };
                return Err(Failure::new(NotThere(self.says(what).to_string()).into(), 0));
            }
            (400, _) if text.windows(12).any(|part| part == b"HTTPS server") => {
                let what = "it speaks TLS: leave --insecure-registry away";
                Failure::new(self.says(what), 0)
            }
            (code, _) => self.status(code),
        };
        if !message.is_empty() {
            failure.error = anyhow!("{} ({})", failure.error, message.escape_debug());
        }
        failure.after = after;
        Err(failure)
    }

    /// Logs in, and returns the token if that is what the registry wants.
    pub(super) async fn authorize(
        &self,
        operation: RegistryOperation,
    ) -> Result<Option<String>, OciDistributionError> {
        let refuse = |text: &str| OciDistributionError::GenericError(Some(text.to_owned()));
        if !self.insecure && self.auth != RegistryAuth::Anonymous {
            // The library would give name and password to whatever realm is named.
            let url = format!("https://{}/v2/", self.reference.resolve_registry());
            let asked = self.http.get(url).send().await?;
            let header = asked.headers().get(WWW_AUTHENTICATE);
            let text = header.and_then(|value| value.to_str().ok()).unwrap_or_default();
            if text.to_ascii_lowercase().contains("realm=\"http://") {
                return Err(refuse("it wants the login to be sent without TLS"));
            }
        }
        let token = self.client.auth(&self.reference, &self.auth, operation).await?;
        if token.as_ref().is_some_and(|token| HeaderValue::from_str(token).is_err()) {
            return Err(refuse("its token is none"));
        }
        Ok(token)
    }

    /// Asks the library, and asks again as long as the failure may pass.
    pub(super) fn retry<T, F>(&self, ask: impl Fn() -> F) -> Result<T>
    where
        F: Future<Output = Result<T, OciDistributionError>>,
    {
        self.tried(|| self.runtime().block_on(ask()).map_err(|error| self.failure(error)))
    }

    fn tried<T>(&self, ask: impl Fn() -> Result<T, Failure>) -> Result<T> {
        let mut tries = 0;
        loop {
            match ask() {
                Ok(done) => return Ok(done),
                Err(failure) if tries >= failure.retries => return Err(failure.error),
                Err(failure) => failure.wait(tries),
            }
            tries += 1;
        }
    }

    /// An error that names the repository.
    pub fn says(&self, what: &str) -> anyhow::Error {
        anyhow!("{}/{}: {what}", self.reference.registry(), self.reference.repository())
    }

    /// What an HTTP status means to people, and whether it may pass.
    fn status(&self, code: u16) -> Failure {
        match code {
            401 | 403 => Failure::new(self.denied(), 0),
            404 => Failure::new(self.says("there is no such tag or repository"), 0),
            408 | 429 | 500..=599 => {
                Failure::new(self.says(&format!("it answers {code}")), RETRIES)
            }
            _ => Failure::new(self.says(&format!("it answers {code}")), 0),
        }
    }

    fn denied(&self) -> anyhow::Error {
        self.says(match &self.auth {
            RegistryAuth::Anonymous => {
                "access is refused without a login: docker login or podman login stores one, \
                 ROOTFS_COMPILE_USERNAME and ROOTFS_COMPILE_PASSWORD give one"
            }
            _ => {
                "access is refused with the login that was given (by ROOTFS_COMPILE_USERNAME and \
                 ROOTFS_COMPILE_PASSWORD, else as docker or podman stored it)"
            }
        })
    }

    /// What an error of the library means to people, and whether it may pass.
    fn failure(&self, error: OciDistributionError) -> Failure {
        match &error {
            OciDistributionError::UnauthorizedError { .. }
            | OciDistributionError::AuthenticationFailure(_) => Failure::new(self.denied(), 0),
            OciDistributionError::RegistryError { envelope, .. } => {
                let has = |code| envelope.errors.iter().any(|error| error.code == code);
                if has(OciErrorCode::Unauthorized) || has(OciErrorCode::Denied) {
                    Failure::new(self.denied(), 0)
                } else if has(OciErrorCode::Toomanyrequests) {
                    self.status(429)
                } else {
                    Failure::new(self.says(&format!("it answers: {envelope}")), 0)
                }
            }
            OciDistributionError::ServerError { code, .. } => self.status(*code),
            OciDistributionError::RequestError(error) => match error.status() {
                Some(code) => self.status(code.as_u16()),
                None => self.request(error),
            },
            OciDistributionError::IoError(error) => {
                Failure::new(self.says(&error.to_string()), RETRIES)
            }
            OciDistributionError::GenericError(Some(text)) => Failure::new(self.says(text), 0),
            other => Failure::new(self.says(&other.to_string()), 0),
        }
    }

    /// A request to which there was no answer.
    pub fn request(&self, error: &reqwest::Error) -> Failure {
        // The last cause says most; the first would show a URL, which may have
        // secrets in it.
        let mut last = error.source();
        while let Some(next) = last.and_then(|error| error.source()) {
            last = Some(next);
        }
        let cause = match last {
            Some(cause) => format!(": {cause}"),
            None if error.is_timeout() => ": it takes too long".to_owned(),
            None => String::new(),
        };
        let hint = if cause.contains("ertificate") || cause.contains("UnknownIssuer") {
            " (--ca-cert FILE trusts a private authority)"
        } else if cause.contains("corrupt message") || cause.contains("InvalidContentType") {
            " (if it speaks plain HTTP, --insecure-registry allows that)"
        } else {
            ""
        };
        let retries = match error.is_connect() {
            _ if error.is_redirect() || error.is_builder() => 0,
            true if !hint.is_empty() => 0,
            true => CONNECT_RETRIES,
            false => RETRIES,
        };
        Failure::new(self.says(&format!("there is no answer{cause}{hint}")), retries)
    }
}

/// As much of a body as an error's text may need.
async fn beginning(mut response: Response) -> Vec<u8> {
    let mut text = Vec::new();
    while text.len() < 64 << 10
        && let Ok(Some(chunk)) = response.chunk().await
    {
        text.extend_from_slice(&chunk);
    }
    text
}

/// Follows redirects, but none that leaves TLS.
fn redirects() -> Policy {
    Policy::custom(|attempt| {
        let was_secure = attempt.previous().last().is_some_and(|url| url.scheme() == "https");
        if attempt.previous().len() > 10 {
            attempt.error("it redirects too often")
        } else if was_secure && attempt.url().scheme() != "https" {
            attempt.error("it redirects from TLS to plain HTTP")
        } else {
            attempt.follow()
        }
    })
}

/// How long the server wants to be left alone: seconds, or until a time.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let text = format!("{}+0000", text.strip_suffix("GMT")?);
    let at = jiff::Timestamp::strptime("%a, %d %b %Y %H:%M:%S %z", text).ok()?.as_second();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?.as_secs();
    Some(Duration::from_secs(u64::try_from(at).ok()?.saturating_sub(now)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_say_in_two_ways_how_long_to_wait() {
        let of =
            |text: &str| retry_after(&HeaderMap::from_iter([(RETRY_AFTER, text.parse().unwrap())]));
        assert_eq!(of("7"), Some(Duration::from_secs(7)));
        assert_eq!(of("Wed, 21 Oct 2015 07:28:00 GMT"), Some(Duration::ZERO));
        assert!(of("Tue, 31 Dec 2199 23:59:59 GMT") > Some(Duration::from_secs(1 << 30)));
        assert_eq!((of("soon"), of("-1")), (None, None));
    }
}
