//! The async runtime that drives requests. Its threads are started here, because tokio
//! panics where it cannot start one.

use std::net::ToSocketAddrs as _;

use anyhow::{Context as _, Result};
use fsimage::io::threads;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

/// A runtime on a thread of its own. Dropping it does not wait for requests that still run.
pub(super) struct Runtime {
    handle: Handle,
    /// Dropped to end the thread.
    _running: oneshot::Sender<()>,
}

impl Runtime {
    /// Starts the thread.
    pub(super) fn start() -> Result<Self> {
        let start = || -> Result<Self> {
            let runtime = Builder::new_current_thread().enable_all().build()?;
            let handle = runtime.handle().clone();
            let (running, ended) = oneshot::channel();
            threads::spawn("registry", move || {
                // Returns when the sender is dropped; nothing is ever sent.
                let _ = runtime.block_on(ended);
                runtime.shutdown_background();
            })?;
            Ok(Self { handle, _running: running })
        };
        start().context("starting the registry client")
    }

    /// The handle by which requests are run.
    pub(super) fn handle(&self) -> &Handle {
        &self.handle
    }
}

/// The system's resolver, which blocks: each name gets a thread.
pub(super) struct Resolver;

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            let (tell, told) = oneshot::channel();
            threads::spawn("resolver", move || {
                // The caller puts in the port.
                let found = (name.as_str(), 0).to_socket_addrs();
                // The caller may have given up.
                let _ = tell.send(found);
            })?;
            let addresses: Addrs = Box::new(told.await??);
            Ok(addresses)
        })
    }
}
