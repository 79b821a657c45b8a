//! What drives requests: one thread, which is started here because tokio panics
//! where it cannot start its own.

use std::net::ToSocketAddrs as _;

use anyhow::{Context as _, Result};
use fsimage::io::threads;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

/// A runtime on a thread of its own, until it is dropped. Nobody waits then for what
/// is still on the wire.
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
                // The other end is dropped, and sends nothing.
                let _ = runtime.block_on(ended);
                runtime.shutdown_background();
            })?;
            Ok(Self { handle, _running: running })
        };
        start().context("starting the registry client")
    }

    /// Requests go on there.
    pub(super) fn handle(&self) -> &Handle {
        &self.handle
    }
}

/// The system's resolver, on a thread for each name.
pub(super) struct Resolver;

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            let (tell, told) = oneshot::channel();
            threads::spawn("resolver", move || {
                // The port is put in by whoever asks.
                let found = (name.as_str(), 0).to_socket_addrs();
                // Whoever asked may have gone.
                let _ = tell.send(found);
            })?;
            let addresses: Addrs = Box::new(told.await??);
            Ok(addresses)
        })
    }
}
