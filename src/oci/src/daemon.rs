//! Docker's own store: what `docker save` would write, from its socket.

use std::env;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use tokio::time::timeout;

use crate::compression::MAX_ARCHIVE;
use crate::pace::{self, Pace};
use crate::registry::Access;
use crate::store::{MAX_DOCUMENT, TarStore};
use crate::tls::choose_tls;

const SOCKET: &str = "/var/run/docker.sock";

/// Asks for the image `name`. It is spooled, because its parts do not come in the
/// order in which they are wanted.
pub fn save(name: &Path, access: &Access) -> Result<TarStore> {
    let spool = access.spool();
    let mut file = spool.file()?;
    let limit = spool.limit.unwrap_or(MAX_ARCHIVE);
    let mut left = limit;
    ask(name, "get", access.pace(), &mut |chunk| {
        left = left.checked_sub(chunk.len() as u64).with_context(|| {
            format!("docker sends more than {limit} bytes (--max-archive-bytes allows more)")
        })?;
        Ok(file.write_all(chunk)?)
    })?;
    TarStore::of(&file)
}

/// What the image `name` is now, as docker tells images apart.
pub fn image_id(name: &Path) -> Result<String> {
    let mut bytes = Vec::new();
    ask(name, "json", Access::default().pace(), &mut |chunk| {
        bytes.extend_from_slice(chunk);
        ensure!(bytes.len() as u64 <= MAX_DOCUMENT, "docker's description of an image has no end");
        Ok(())
    })?;
    let value: serde_json::Value = crate::foreign_json::from_slice(&bytes).unwrap_or_default();
    let id = value["Id"].as_str().context("docker does not say which image that is")?;
    Ok(id.to_owned())
}

/// Asks for `what` of the image `name`; `take` gets the answer piece by piece.
fn ask(
    name: &Path,
    what: &str,
    mut pace: Pace,
    take: &mut dyn FnMut(&[u8]) -> Result<()>,
) -> Result<()> {
    let name = name.to_str().context("the name is no text")?;
    let socket = match env::var("DOCKER_HOST").ok().filter(|host| !host.is_empty()) {
        None => PathBuf::from(SOCKET),
        Some(host) => match host.strip_prefix("unix://") {
            Some(path) => PathBuf::from(path),
            None => bail!("DOCKER_HOST is {host:?}; only unix://PATH is known"),
        },
    };
    let shown = socket.display();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    choose_tls();
    let client = reqwest::Client::builder().unix_socket(socket.clone()).no_proxy().build()?;
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
        let mut response = client.get(url).send().await.map_err(failed)?;
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
