//! Images in Docker's own store, which its socket gives as `docker save` would write them.

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

/// How long the first byte of an image may take: older versions of docker write all of the
/// image to a disk before they send anything.
const PREPARATION: Duration = Duration::from_secs(1200);

/// Gets the image `name`. It is spooled to a file, because its parts do not come in the
/// order in which they are read.
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

/// The ID of the image that docker has under `name` now.
///
/// # Errors
/// When docker does not answer, has no such image or does not say its ID, or
/// `DOCKER_HOST` is not of the form `unix://PATH`.
pub fn image_id(name: &str) -> Result<String> {
    let mut bytes = Vec::new();
    ask(&socket()?, name, "json", pace::WINDOW, Access::default().pace(), &mut |chunk| {
        bytes.extend_from_slice(chunk);
        let len = bytes.len() as u64;
        ensure!(len <= MAX_DOCUMENT, "docker's answer has more than {MAX_DOCUMENT} bytes");
        Ok(())
    })?;
    let value: serde_json::Value = crate::foreign_json::from_slice(&bytes).unwrap_or_default();
    let id = value["Id"].as_str().context("docker's answer has no image ID")?;
    Ok(id.to_owned())
}

/// The path of docker's socket.
fn socket() -> Result<PathBuf> {
    match env::var("DOCKER_HOST").ok().filter(|host| !host.is_empty()) {
        None => Ok(PathBuf::from(SOCKET)),
        Some(host) => match host.strip_prefix("unix://") {
            Some(path) => Ok(PathBuf::from(path)),
            None => bail!("DOCKER_HOST is {host:?}; only unix://PATH is known"),
        },
    }
}

/// Asks docker at `socket` for `what` of the image `name`, and passes the answer to `take`
/// in chunks. The answer must begin within `patience`.
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
            format!("{shown}: docker did not answer within {seconds} s")
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
        assert!(error.contains("docker did not answer"), "{error}");
    }
}
