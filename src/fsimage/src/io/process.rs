//! What both programs do before anything else.

use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;

use rustix::io::Errno;
use rustix::process::Resource;
use signal_hook::consts::SIGXFSZ;

use crate::io::{mmap, system};

/// Runs `program`, whose messages begin with `prefix` and whose failures are `failed`,
/// an exit code. So is a panic, which must not look like another exit code; what it
/// says was said when it happened.
///
/// # Errors
/// When the machine lacks what libraries take for granted.
pub fn run(
    prefix: &'static str,
    failed: u8,
    program: impl FnOnce() -> u8,
) -> Result<u8, &'static str> {
    // Keys of hash tables are random, and a table cannot be made without.
    if !system::has_random_bytes() {
        return Err("the system gives no random numbers (getrandom, /dev/urandom)");
    }
    mmap::survive_truncation(prefix, failed);
    raise_open_files();
    // A file that would become too large is an error of the write then, which names it.
    let _ = signal_hook::flag::register(SIGXFSZ, Arc::default());
    Ok(panic::catch_unwind(AssertUnwindSafe(program)).unwrap_or(failed))
}

/// Allows this process as many open files as it may have: a bundle of many layers is
/// as many files, all of them open while a machine has them as its disk.
pub fn raise_open_files() {
    let mut limit = rustix::process::getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    // What there was is enough for most.
    let _ = rustix::process::setrlimit(Resource::Nofile, limit);
}

/// What to do about the error that `text` tells of, where that is a limit of this
/// process.
pub fn advice(text: &str) -> Option<String> {
    let is = |errno: Errno| text.contains(&format!("(os error {})", errno.raw_os_error()));
    if is(Errno::MFILE) {
        let limit = rustix::process::getrlimit(Resource::Nofile).current;
        let limit = limit.map_or_else(|| "any number of".to_owned(), |limit| limit.to_string());
        return Some(format!(
            "a process may have {limit} open files here (ulimit -Hn), and each layer is one"
        ));
    }
    if is(Errno::FBIG) {
        return Some("a file may not be that large here (ulimit -f, or its file system)".into());
    }
    None
}
