//! The time of each phase of a start, for `--timings`.

use std::time::{Duration, Instant};

use crate::notice::notice;

/// Says how long each phase took, if that was asked for.
pub(super) struct Timings {
    on: bool,
    started: Instant,
    last: Instant,
}

impl Timings {
    /// The program started at `started`; phases are told if `on`.
    pub(crate) fn new(on: bool, started: Instant) -> Self {
        Self { on, started, last: started }
    }

    /// A phase of the host's side is over.
    pub(super) fn host(&mut self, what: &str) {
        let now = Instant::now();
        let took = now - self.last;
        self.last = now;
        self.line("host", now - self.started, Some(took), what);
    }

    /// The guest's kernel started `micros` ago.
    pub(super) fn entered(&mut self, micros: u64) {
        let now = Instant::now();
        // The guest may report any number.
        let entered = now.checked_sub(Duration::from_micros(micros)).unwrap_or(self.last);
        let took = entered.saturating_duration_since(self.last);
        self.line(
            "host",
            entered.saturating_duration_since(self.started),
            Some(took),
            "guest entered",
        );
        self.last = now;
    }

    /// The guest says what happened, `micros` after its kernel started.
    pub(super) fn guest(&self, micros: u64, what: &str) {
        self.line("guest", Duration::from_micros(micros), None, what);
    }

    fn line(&self, side: &str, at: Duration, took: Option<Duration>, what: &str) {
        if self.on {
            let millis = |d: Duration| d.as_secs_f64() * 1e3;
            let took = took.map_or_else(String::new, |t| format!("+{:.1}", millis(t)));
            notice(&format!("{side:<5} {:>8.1} ms {took:>8}  {what}", millis(at)));
        }
    }
}
