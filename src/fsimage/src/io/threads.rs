//! Threads that may not start: a user has so many processes, a container so many
//! tasks, a machine so much memory. That is an error, and no panic.

use std::io;
use std::sync::OnceLock;
use std::thread::{Builder, JoinHandle, Scope, ScopedJoinHandle};

/// Starts a thread called `name`.
///
/// # Errors
/// When the system starts no more threads.
pub fn spawn<T: Send + 'static>(
    name: &str,
    run: impl FnOnce() -> T + Send + 'static,
) -> io::Result<JoinHandle<T>> {
    Builder::new().name(name.to_owned()).spawn(run).map_err(not_started)
}

/// Starts a thread called `name` that ends with `scope`.
///
/// # Errors
/// When the system starts no more threads.
pub fn spawn_scoped<'scope, T: Send + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    name: &str,
    run: impl FnOnce() -> T + Send + 'scope,
) -> io::Result<ScopedJoinHandle<'scope, T>> {
    Builder::new().name(name.to_owned()).spawn_scoped(scope, run).map_err(not_started)
}

/// Starts rayon's global pool if it is not running. Rayon would start it with the first use, and
/// panic if it cannot; so this is called before each use.
///
/// # Errors
/// When the pool's threads could not be started, at this call or at an earlier one.
pub fn pool() -> io::Result<()> {
    static POOL: OnceLock<Result<(), String>> = OnceLock::new();
    // Inside another pool, that one is used.
    if rayon::current_thread_index().is_some() {
        return Ok(());
    }
    let made = POOL.get_or_init(|| {
        let pool = rayon::ThreadPoolBuilder::new();
        pool.thread_name(|i| format!("pool-{i}")).build_global().map_err(|e| e.to_string())
    });
    made.clone().map_err(|error| not_started(io::Error::other(error)))
}

/// A pool of `count` threads; 0 is one for each processor.
///
/// # Errors
/// When the system does not start that many threads.
pub fn own_pool(count: usize) -> io::Result<rayon::ThreadPool> {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(count).build();
    pool.map_err(|error| not_started(io::Error::other(error.to_string())))
}

fn not_started(error: io::Error) -> io::Error {
    let text = format!("a thread cannot be started: {error} (is there a limit of processes?)");
    io::Error::new(error.kind(), text)
}
