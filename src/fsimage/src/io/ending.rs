//! What is undone when a signal ends the process: files that are not whole yet are
//! removed, a terminal is left tidy, and the process dies by that signal, so that
//! whoever started it sees why.
//!
//! Nothing here runs in a signal handler: a thread of its own waits for signals.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::{io, thread};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use crate::io::signals::Signals;
use crate::io::threads;

type Action = Box<dyn FnOnce() + Send>;

static ACTIONS: Mutex<Vec<(u64, Action)>> = Mutex::new(Vec::new());
/// Nothing that panics is done while these are locked.
fn actions() -> MutexGuard<'static, Vec<(u64, Action)>> {
    ACTIONS.lock().expect("no holder panics")
}

static NEXT: AtomicU64 = AtomicU64::new(0);
static ENDING: AtomicBool = AtomicBool::new(false);

/// An action that is taken when a signal ends the process; dropping it takes the
/// action back.
#[derive(Debug)]
#[must_use]
pub struct Undo(u64);

/// Takes `action` when a signal ends the process. Other threads go on meanwhile.
pub fn undo(action: impl FnOnce() + Send + 'static) -> Undo {
    let id = NEXT.fetch_add(1, Ordering::Relaxed);
    actions().push((id, Box::new(action)));
    Undo(id)
}

/// Makes something that `action` undoes when a signal ends the process. No signal comes
/// between the two; after one, nothing is made any more. `make` must make or drop no
/// other [`Undo`].
///
/// # Errors
/// Those of `make`, and no action is kept then.
pub fn undo_what<T, E, A: FnOnce() + Send + 'static>(
    make: impl FnOnce() -> Result<T, E>,
    action: impl FnOnce(&T) -> A,
) -> Result<(T, Undo), E> {
    let mut actions = self::actions();
    if ENDING.load(Ordering::SeqCst) {
        drop(actions);
        wait_if_ending();
        unreachable!("the process ends");
    }
    let made = make()?;
    let id = NEXT.fetch_add(1, Ordering::Relaxed);
    actions.push((id, Box::new(action(&made))));
    Ok((made, Undo(id)))
}

impl Drop for Undo {
    fn drop(&mut self) {
        let mut actions = self::actions();
        let own = actions.iter().position(|(id, _)| *id == self.0);
        let own = own.map(|own| actions.swap_remove(own));
        // What an action holds may be an `Undo` itself.
        drop(actions);
        drop(own);
    }
}

/// From now on, SIGINT, SIGTERM and SIGHUP undo what is unfinished before they end
/// the process. One that is ignored already, as by nohup, stays ignored.
///
/// # Errors
/// When the signals cannot be caught, or the thread that waits for them cannot be started.
pub fn watch() -> io::Result<()> {
    let mut signals = Signals::catch(&[SIGINT, SIGTERM, SIGHUP])?;
    let wait = move || end_by(signals.wait());
    threads::spawn("signals", wait).map(drop)
}

/// Undoes what is unfinished and ends the process by `signal`. It is for whoever waits
/// for signals in place of [`watch`].
pub fn end_by(signal: i32) {
    ENDING.store(true, Ordering::SeqCst);
    let actions = std::mem::take(&mut *self::actions());
    // The youngest first: a file before the directory that it is in.
    for (_, action) in actions.into_iter().rev() {
        action();
    }
    let _ = signal_hook::low_level::emulate_default_handler(signal);
}

/// Does not return if a signal is ending the process: what went wrong since then is
/// no news.
pub fn wait_if_ending() {
    while ENDING.load(Ordering::SeqCst) {
        thread::park();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_action_is_kept_as_long_as_its_guard() {
        let count = || ACTIONS.lock().unwrap().len();
        let first = undo(|| ());
        let outer = undo(move || drop(first));
        assert!(count() >= 2);
        drop(outer);
        let ids = |id| ACTIONS.lock().unwrap().iter().any(|(other, _)| *other == id);
        assert!(!ids(0));
    }
}
