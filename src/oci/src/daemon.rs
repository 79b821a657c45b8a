//! Docker's own store: what `docker save` would write, from its socket.

use std::env;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use tokio::time::timeout;

use crate::compression::MAX_ARCHIVE;
use crate::pace::{self, Pace};
use crate::registry::access::Access;
use crate::store::{MAX_DOCUMENT, TarStore};
use crate::tls::choose_tls;

const SOCKET: &str = "/var/run/docker.sock";

/// For the first byte of an image: older versions of docker write all of it to a disk
/// before they send any.
const PREPARATION: Duration = Duration::from_secs(1200);

/// Asks for the image `name`. It is spooled, because its parts do not come in the
/// order in which they are wanted.
pub(crate) fn save(name: &str, access: &Access) -> Result<TarStore> {
    let spool = access.spool();
    let mut file = spool.file()?;
    let limit = spool.limit.unwrap_or(MAX_ARCHIVE);
    let mut left = limit;
    ask(&socket()?, name, "get", PREPARATION, access.pace(), &mut |chunk| {
        left = left.checked_sub(chunk.len() as u64).with_context(|| {
            format!("docker sends more than {limit} bytes (--max-archive-bytes allows more)")
        })?;
        Ok(file.write_all(chunk)?)
    })?;
    TarStore::of(&file)
}

/// What the image `name` is now, as docker tells images apart.
///
/// # Errors
/// When docker does not answer, has no such image or does not say its ID, or
/// `DOCKER_HOST` is not of the form `unix://PATH`.
pub fn image_id(name: &str) -> Result<String> {
    let mut bytes = Vec::new();
    ask(&socket()?, name, "json", pace::WINDOW, Access::default().pace(), &mut |chunk| {
        bytes.extend_from_slice(chunk);
        ensure!(bytes.len() as u64 <= MAX_DOCUMENT, "docker's description of an image has no end");
        Ok(())
    })?;
    let value: serde_json::Value = crate::foreign_json::from_slice(&bytes).unwrap_or_default();
    let id = value["Id"].as_str().context("docker does not say which image that is")?;
    Ok(id.to_owned())
}

/// Where docker listens.
fn socket() -> Result<PathBuf> {
    match env::var("DOCKER_HOST").ok().filter(|host| !host.is_empty()) {
        None => Ok(PathBuf::from(SOCKET)),
        Some(host) => match host.strip_prefix("unix://") {
            Some(path) => Ok(PathBuf::from(path)),
            None => bail!("DOCKER_HOST is {host:?}; only unix://PATH is known"),
        },
    }
}

/// Asks at `socket` for `what` of the image `name`; `take` gets the answer piece by piece.
/// That it begins is waited for as long as `patience` says.
fn ask(
    socket: &Path,
    name: &str,
    what: &str,
    patience: Duration,
    mut pace: Pace,
    take: &mut dyn FnMut(&[u8]) -> Result<()>,
) -> Result<()> {
    let shown = socket.display();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    choose_tls();
    let client = reqwest::Client::builder().unix_socket(socket.to_owned()).no_proxy().build()?;
    let failed = |error: reqwest::Error| {
        let mut cause: &dyn std::error::Error = &error;
        while let Some(next) = cause.source() {
            cause = next;
        }
        anyhow!("{shown}: {cause} (is docker running, and may you use it?)")
    };
    runtime.block_on(async {
        let mut url = reqwest::Url::parse("http://docker/images/").context("a fixed URL")?;
        url.path_segments_mut()
            .map_err(|()| anyhow!("a fixed URL"))?
            .pop_if_empty()
            .push(name)
            .push(what);
        let answer = timeout(patience, client.get(url).send()).await;
        let answer = answer.with_context(|| {
            let seconds = patience.as_secs();
            format!("{shown}: docker does not answer; it was given up after {seconds} s")
        })?;
        let mut response = answer.map_err(failed)?;
        match response.status().as_u16() {
            200 => {}
            404 => bail!("docker has no image {name}"),
            code => bail!("{shown}: docker answers {code}"),
        }
        loop {
            let began = Instant::now();
            let chunk = match timeout(pace::WINDOW, response.chunk()).await {
                Ok(chunk) => chunk.map_err(failed)?,
                Err(_) => Some(bytes::Bytes::new()),
            };
            let Some(chunk) = chunk else {
                return Ok(());
            };
            let slow = pace.came(chunk.len() as u64, began.elapsed());
            slow.with_context(|| format!("{shown}: docker"))?;
            take(&chunk)?;
        }
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn a_daemon_that_says_nothing_is_given_up() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("docker.sock");
        let _silent = UnixListener::bind(&socket).unwrap();
        let patience = Duration::from_millis(100);
        let asked = ask(&socket, "x", "json", patience, Pace::new(0), &mut |_| Ok(()));
        let error = format!("{:#}", asked.unwrap_err());
        assert!(error.contains("docker does not answer"), "{error}");
    }
}
