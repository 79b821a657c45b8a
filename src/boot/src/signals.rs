//! Signals, from the first file that is made until the last machine has ended.

use std::sync::mpsc::{Receiver, Sender};
use std::sync::{Arc, Mutex, MutexGuard};

use anyhow::Result;
use fsimage::io::{ending, threads};
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGWINCH};
use signal_hook::iterator::Signals as Iterator;

use super::supervise::event::Event;

/// Where signals go: to the supervisor of a machine, or with none they end this program,
/// which first removes what is unfinished.
#[derive(Clone)]
pub(crate) struct Signals(Arc<Mutex<Option<Sender<Event>>>>);

impl Signals {
    /// Hears signals from now on.
    pub(crate) fn start() -> Result<Self> {
        let signals = Self(Arc::default());
        let ignored = ignored();
        let wanted = [SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGWINCH];
        let mut heard = Iterator::new(wanted.into_iter().filter(|n| ignored >> (n - 1) & 1 == 0))?;
        let lead = signals.clone();
        threads::spawn("signals", move || {
            for signal in heard.forever() {
                lead.handle(signal);
            }
        })?;
        Ok(signals)
    }

    /// Sends signals to a supervisor from now on.
    pub(crate) fn lead_to(&self, supervisor: Sender<Event>) {
        *self.lock() = Some(supervisor);
    }

    /// Handles signals as before the first supervisor: they end this program. A signal that
    /// came for the last supervisor and still lies in `received` ends it now, so that none
    /// is lost while a machine is given up for another.
    pub(crate) fn take_back(&self, received: &Receiver<Event>) {
        let mut supervisor = self.lock();
        *supervisor = None;
        for event in received.try_iter() {
            if let Event::Signal(signal) = event {
                end(signal);
            }
        }
    }

    fn handle(&self, signal: i32) {
        // Held until it is handled, so that no supervisor begins meanwhile.
        match &*self.lock() {
            // A supervisor that is gone has ended its machine, whose exit code counts.
            Some(supervisor) => drop(supervisor.send(Event::Signal(signal))),
            None => end(signal),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Sender<Event>>> {
        self.0.lock().expect("no holder panics")
    }
}

fn end(signal: i32) {
    // There is no guest yet whose window could change.
    if signal != SIGWINCH {
        ending::end_by(signal);
    }
}

/// Signals that whoever started this program told it to ignore, as `nohup` does:
/// bit N-1 is signal N. The handlers that are set now count as none.
fn ignored() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}
