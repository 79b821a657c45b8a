//! Signals, from the first file that is made until the last machine has ended.

use std::sync::mpsc::{Receiver, Sender};
use std::sync::{Arc, Mutex, MutexGuard};

use anyhow::Result;
use fsimage::io::signals::Signals as Heard;
use fsimage::io::{ending, threads};
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGWINCH};

use super::supervise::event::Event;

/// Where signals go: to the supervisor of a machine, or with none they end this program,
/// which first removes what is unfinished.
#[derive(Clone)]
pub(crate) struct Signals(Arc<Mutex<Option<Sender<Event>>>>);

impl Signals {
    /// Hears signals from now on.
    pub(crate) fn start() -> Result<Self> {
        let signals = Self(Arc::default());
        let wanted = [SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGWINCH];
        let mut heard = Heard::catch(&wanted)?;
        let lead = signals.clone();
        threads::spawn("signals", move || {
            loop {
                lead.handle(heard.wait());
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
