//! Docker's own store: what `docker save` would write, from its socket.

use std::env;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, anyhow, bail};

use super::choose_tls;
use super::store::TarStore;

const SOCKET: &str = "/var/run/docker.sock";

/// Asks for the image `name`. It is kept in a file of `dir` without a name: its
/// parts do not come in the order in which they are wanted.
pub fn save(name: &Path, dir: &Path) -> Result<TarStore> {
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
    fs::create_dir_all(dir)?;
    let mut file = tempfile::tempfile_in(dir)?;
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
            .push("get");
        let mut response = client.get(url).send().await.map_err(failed)?;
        match response.status().as_u16() {
            200 => {}
            404 => bail!("docker has no image {name}"),
            code => bail!("{shown}: docker answers {code}"),
        }
        while let Some(chunk) = response.chunk().await.map_err(failed)? {
            file.write_all(&chunk)?;
        }
        Ok(())
    })?;
    TarStore::of(&file)
}
