//! The client of a registry, with a blocking interface: sends requests with the login that
//! the registry asks for, and reads manifests.

use std::fmt;
use std::sync::Mutex;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, ensure};
use fsimage::digest::Digest;
use fsimage::io::regular;
use reqwest::header::{
    ACCEPT, AUTHORIZATION, CONTENT_RANGE, HeaderMap, HeaderValue, LOCATION, RANGE,
};
use reqwest::redirect::Policy;
use reqwest::{ClientBuilder, Method, Request, Response, StatusCode, Url};
use tokio::runtime::Handle;
use tokio::time::timeout;

use super::access::Access;
use super::failure::{Answer, Failure, RETRIES, tried};
use super::login::{Challenge, Login, Refusal};
use super::runtime::{Resolver, Runtime};
use super::{credentials, plain};
use crate::distribution::Reference;
use crate::json;
use crate::media_type::{DOCKER_LIST, DOCKER_MANIFEST, INDEX, MANIFEST};
use crate::not_there::NotThere;
use crate::store::MAX_DOCUMENT;
use crate::tls::choose_tls;

const MEDIA_TYPES: [&str; 4] = [INDEX, MANIFEST, DOCKER_LIST, DOCKER_MANIFEST];

const USER_AGENT: &str = concat!("rootfs-compile/", env!("CARGO_PKG_VERSION"));
const READ_TIMEOUT: Duration = Duration::from_secs(60);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);

/// How long all of a manifest, or all of a login, may take.
const SHORT_ANSWER: Duration = Duration::from_secs(120);

/// The most bytes of a manifest. Registries allow 4 MiB.
const MAX_MANIFEST: usize = 16 << 20;

/// What a client is made for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    Read,
    Write,
}

/// A client for one repository of a registry.
pub(super) struct Client {
    runtime: Runtime,
    http: reqwest::Client,
    /// For uploads, which may take long: it has no read timeout, and whoever sends watches
    /// for stalls.
    slow: reqwest::Client,
    /// For requests that hold the secret of a login: it does not follow redirects.
    logins: reqwest::Client,
    pub(super) reference: Reference,
    purpose: Purpose,
    /// The URL of the repository, with a slash at the end.
    base: Url,
    /// Registries that the user wants to be spoken to without TLS.
    insecure: Vec<String>,
    login: Login,
    /// The value of `Authorization`, once the registry has asked for it.
    shown: Mutex<Option<HeaderValue>>,
}

/// What a request asks for, on which the meaning of its status depends.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Wanted {
    Manifest,
    Blob,
    /// To write a manifest, or to begin an upload.
    Write,
    /// To go on with an upload.
    Rest,
}

/// Without the login.
impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("reference", &self.reference).finish_non_exhaustive()
    }
}

impl Client {
    pub(super) fn new(reference: &Reference, access: &Access, purpose: Purpose) -> Result<Self> {
        choose_tls();
        let mut certificates = Vec::new();
        for path in &access.ca_certs {
            let shown = || path.display().to_string();
            let data = regular::read_named(path, MAX_DOCUMENT).with_context(shown)?;
            let parsed = reqwest::Certificate::from_pem_bundle(&data).with_context(shown)?;
            ensure!(!parsed.is_empty(), "{}: there is no certificate (PEM) in it", shown());
            certificates.extend(parsed);
        }
        let host = reference.host();
        let connection = plain::connection(host, &access.insecure)?;
        let base = format!("{}://{host}/v2/{}/", connection.scheme, reference.repository());
        let base: Url = base.parse().with_context(|| format!("{host} is not a host and port"))?;
        let builder = || -> ClientBuilder {
            let mut builder = reqwest::Client::builder()
                .user_agent(USER_AGENT)
                .redirect(redirects())
                .dns_resolver(Resolver)
                // The URL of an upload may hold a secret that lets others write.
                .referer(false)
                .connect_timeout(CONNECT_TIMEOUT);
            if let (Some(only), Some(name)) = (&connection.only, base.host_str()) {
                builder = builder.no_proxy().resolve_to_addrs(name, only);
            }
            certificates.iter().cloned().fold(builder, ClientBuilder::add_root_certificate)
        };
        let login = match &access.credentials {
            Some(given) if given.is_for(reference.registry()) => {
                Login::Password { name: given.name.clone(), password: given.password.clone() }
            }
            _ => credentials::find(reference)?,
        };
        Ok(Self {
            runtime: Runtime::start()?,
            http: builder().read_timeout(READ_TIMEOUT).build().context("the registry client")?,
            slow: builder().build().context("the registry client")?,
            logins: builder()
                .redirect(Policy::none())
                .read_timeout(READ_TIMEOUT)
                .build()
                .context("the registry client")?,
            reference: reference.clone(),
            purpose,
            base,
            insecure: access.insecure.clone(),
            login,
            shown: Mutex::new(None),
        })
    }

    pub(super) fn runtime(&self) -> &Handle {
        self.runtime.handle()
    }

    /// Repeats `ask` until it succeeds, or no further try helps.
    pub(super) fn tried<T>(&self, ask: impl AsyncFn() -> Result<T, Failure>) -> Result<T> {
        tried(|| self.runtime().block_on(ask()))
    }

    /// The bytes of the manifest or index that `reference` names.
    pub(super) fn manifest(&self, reference: &Reference) -> Result<Vec<u8>> {
        let pin = reference.digest().map(|digest| digest.to_string());
        let name = pin.as_deref().or(reference.tag()).unwrap_or("latest");
        self.tried(async || {
            let short = timeout(SHORT_ANSWER, self.manifest_once(name)).await;
            let (bytes, told) = short
                .map_err(|_| Failure::new(self.says("the manifest takes too long to come"), 1))??;
            let value =
                crate::foreign_json::from_slice::<serde_json::Value>(&bytes).unwrap_or_default();
            let version = json::field(&value, "schemaVersion").ok().flatten();
            if !version.is_some_and(serde_json::Value::is_number) {
                let what = "its answer is not a manifest (is it a registry?)";
                return Err(Failure::fatal(self.says(what)));
            }
            let is = Digest::of(&bytes).to_string();
            let mut expected = told.iter().map(|told| &**told).chain(pin.as_deref());
            if let Some(other) = expected.find(|digest| *digest != is) {
                let what = format!("the manifest has the digest {is}, not {other}: it is damaged");
                return Err(Failure::fatal(self.says(&what)));
            }
            Ok(bytes)
        })
    }

    /// A manifest, and the digest that the registry gives it.
    async fn manifest_once(&self, name: &str) -> Result<(Vec<u8>, Option<String>), Failure> {
        self.manifest_at(&format!("manifests/{name}")).await
    }

    /// As [`Client::manifest_once`], of what is at `path` of the repository.
    async fn manifest_at(&self, path: &str) -> Result<(Vec<u8>, Option<String>), Failure> {
        let headers = HeaderMap::from_iter([(ACCEPT, header(&MEDIA_TYPES.join(", "))?)]);
        let url = self.url(path)?;
        let mut response = self.ask(Method::GET, &url, headers, Wanted::Manifest).await?;
        let told = response.headers().get("docker-content-digest");
        let told = told.and_then(|value| value.to_str().ok());
        let told = told.filter(|told| told.starts_with("sha256:")).map(str::to_owned);
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| self.silence(&error))? {
            bytes.extend_from_slice(&chunk);
            if bytes.len() > MAX_MANIFEST {
                let what = format!("the manifest has more than {MAX_MANIFEST} bytes");
                return Err(Failure::fatal(self.says(&what)));
            }
        }
        Ok((bytes, told))
    }

    /// The index of what refers to `digest`; `None` if the registry does not have this API.
    pub(super) fn referrers(&self, digest: Digest) -> Result<Option<Vec<u8>>> {
        let asked = self.tried(async || {
            let path = format!("referrers/{digest}");
            let short = timeout(SHORT_ANSWER, self.manifest_at(&path));
            let takes_long = |_| Failure::new(self.says("the referrers take too long to come"), 1);
            Ok(short.await.map_err(takes_long)??.0)
        });
        match asked {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.is::<NotThere>() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Whether the repository has the blob.
    pub(super) fn has_blob(&self, digest: Digest) -> Result<bool> {
        let asked = self.tried(async || {
            let url = self.url(&format!("blobs/{digest}"))?;
            self.ask(Method::HEAD, &url, HeaderMap::new(), Wanted::Blob).await
        });
        match asked {
            Ok(_) => Ok(true),
            Err(error) if error.is::<NotThere>() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Asks for a blob from byte `offset` on. The answer may begin at the start
    /// all the same: then it has the status 200.
    pub(super) fn blob(&self, digest: Digest, offset: u64) -> Result<Response, Failure> {
        let mut headers = HeaderMap::new();
        if offset > 0 {
            headers.insert(RANGE, header(&format!("bytes={offset}-"))?);
        }
        let url = self.url(&format!("blobs/{digest}"))?;
        let asked = self.ask(Method::GET, &url, headers, Wanted::Blob);
        let response = self.runtime().block_on(asked)?;
        if response.status() == StatusCode::PARTIAL_CONTENT {
            let range = response.headers().get(CONTENT_RANGE).and_then(|v| v.to_str().ok());
            let wanted = format!("bytes {offset}-");
            if !range.is_some_and(|range| range.starts_with(&wanted)) {
                return Err(Failure::new(self.says("it sends another range"), RETRIES));
            }
        }
        Ok(response)
    }

    /// Sends a request without a body.
    pub(super) async fn ask(
        &self,
        method: Method,
        url: &Url,
        headers: HeaderMap,
        wanted: Wanted,
    ) -> Result<Response, Failure> {
        let make = || {
            let mut request = Request::new(method.clone(), url.clone());
            *request.headers_mut() = headers.clone();
            request
        };
        self.send(&self.http, make, wanted).await
    }

    /// Sends a request whose body may take long.
    pub(super) async fn upload(
        &self,
        make: impl Fn() -> Request,
        wanted: Wanted,
    ) -> Result<Response, Failure> {
        self.send(&self.slow, make, wanted).await
    }

    /// Sends the request that `make` gives, and once more with a login if the registry asks
    /// for one.
    async fn send(
        &self,
        http: &reqwest::Client,
        make: impl Fn() -> Request,
        wanted: Wanted,
    ) -> Result<Response, Failure> {
        let mut asked = false;
        loop {
            let mut request = make();
            // An upload may go on at another host, which must not get the login.
            let is_own = request.url().origin() == self.base.origin();
            let shown = self.shown.lock().expect("no holder panics").clone();
            if let Some(shown) = shown.filter(|_| is_own) {
                request.headers_mut().insert(AUTHORIZATION, shown);
            }
            let response = http.execute(request).await.map_err(|error| self.silence(&error))?;
            let status = response.status();
            // A host that a redirect led to must not get the login, either.
            let is_here = response.url().origin() == self.base.origin();
            // This may be the first request, or the token has expired.
            if status == StatusCode::UNAUTHORIZED && is_here && !asked {
                self.log_in(response.headers()).await?;
                asked = true;
                continue;
            }
            if status.is_success() {
                return Ok(response);
            }
            let answer = Answer::read(response).await;
            return Err(match answer.code {
                401 | 403 if !is_here => {
                    let what = format!("it leads to another host, which answers {}", answer.code);
                    Failure::fatal(self.says(&what))
                }
                _ => self.failure(&answer, wanted),
            });
        }
    }

    /// Logs in as `headers`, those of an answer with the status 401, ask for.
    async fn log_in(&self, headers: &HeaderMap) -> Result<(), Failure> {
        let denied = || Failure::fatal(self.denied());
        let challenge = Challenge::of(headers).ok_or_else(denied)?;
        if let Some(realm) = self.login.exposed_by(&challenge)
            && (self.base.scheme() == "https"
                || !plain::may_have_login(realm, &self.base, &self.insecure))
        {
            let what = format!(
                "it wants the login to be sent without TLS, to {}",
                realm.host_str().unwrap_or_default()
            );
            return Err(Failure::fatal(self.says(&what)));
        }
        let actions = match self.purpose {
            Purpose::Read => "pull",
            Purpose::Write => "pull,push",
        };
        let scope = format!("repository:{}:{actions}", self.reference.repository());
        let who = self.reference.registry();
        let is_secret = self.login != Login::Anonymous;
        let http = if is_secret { &self.logins } else { &self.http };
        let answer = self.login.answer(&challenge, &scope, who, http);
        let slow = |_| Failure::new(self.says("the login takes too long"), 1);
        let shown = match timeout(SHORT_ANSWER, answer).await.map_err(slow)? {
            Ok(shown) => shown,
            Err(Refusal::Denied) => return Err(denied()),
            Err(Refusal::Failed(failure)) => return Err(failure),
        };
        *self.shown.lock().expect("no holder panics") = Some(shown);
        Ok(())
    }

    /// The failure that an `answer` without success means.
    fn failure(&self, answer: &Answer, wanted: Wanted) -> Failure {
        let failure = match (answer.code, wanted) {
            (404, Wanted::Blob | Wanted::Manifest) => {
                let what = match wanted {
                    Wanted::Blob => "it has no such blob",
                    _ => "there is no such tag or repository",
                };
                return Failure::fatal(NotThere(self.says(what).to_string()).into());
            }
            (404, Wanted::Write) => Failure::fatal(self.says("there is no such repository")),
            (404, Wanted::Rest) => Failure::new(self.says("it has forgotten the upload"), RETRIES),
            (401 | 403, _) => Failure::fatal(self.denied()),
            (400, _) if answer.text.windows(12).any(|part| part == b"HTTPS server") => {
                let what = "it speaks TLS: leave out --insecure-registry";
                Failure::fatal(self.says(what))
            }
            _ => Failure::answer(&self.who(), answer),
        };
        failure.quoting(answer)
    }

    /// The URL of `path` in the repository.
    pub(super) fn url(&self, path: &str) -> Result<Url, Failure> {
        let what = || self.says(&format!("{path} is not a path of a URL"));
        self.base.join(path).map_err(|_| Failure::fatal(what()))
    }

    /// The URL at which `response` says that an upload goes on.
    pub(super) fn location(&self, response: &Response) -> Result<Url, Failure> {
        let url = response.url();
        let location = response.headers().get(LOCATION).and_then(|value| value.to_str().ok());
        let next = location.and_then(|location| url.join(location).ok());
        let what = || Failure::fatal(self.says("it does not say where to send a blob"));
        let next = next.ok_or_else(what)?;
        if url.scheme() == "https" && next.scheme() != "https" {
            return Err(Failure::fatal(self.says("it wants a blob to be sent without TLS")));
        }
        Ok(next)
    }

    fn who(&self) -> String {
        format!("{}/{}", self.reference.registry(), self.reference.repository())
    }

    /// An error that names the repository.
    pub(super) fn says(&self, what: &str) -> anyhow::Error {
        anyhow!("{}: {what}", self.who())
    }

    /// The failure of a request that got no answer.
    pub(super) fn silence(&self, error: &reqwest::Error) -> Failure {
        Failure::silence(&self.who(), error)
    }

    fn denied(&self) -> anyhow::Error {
        self.says(match &self.login {
            Login::Anonymous => {
                "access is refused without a login: docker login or podman login stores one; \
                 ROOTFS_COMPILE_USERNAME and ROOTFS_COMPILE_PASSWORD give one to the registry that \
                 ROOTFS_COMPILE_REGISTRY names, or that the image is in"
            }
            _ => {
                "access is refused with the login that was given (by ROOTFS_COMPILE_USERNAME and \
                 ROOTFS_COMPILE_PASSWORD, else as docker or podman stored it)"
            }
        })
    }
}

fn header(text: &str) -> Result<HeaderValue, Failure> {
    HeaderValue::from_str(text).map_err(|error| Failure::fatal(error.into()))
}

/// Follows redirects, except those from TLS to plain HTTP.
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
