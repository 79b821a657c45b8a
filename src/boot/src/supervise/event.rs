//! What the supervisor waits for.

use std::process::ExitStatus;

/// What the supervisor waits for.
pub(crate) enum Event {
    /// The guest's init said something.
    Said(Word),
    Signal(i32),
    /// Bytes arrived at one of this program's streams. There is one of these at a time.
    Delivered,
    /// The guest's init will say no more: all lines came before this.
    ControlEnded,
    EngineEnded(ExitStatus),
}

/// A word of the guest's init, with the microseconds since its kernel started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Word {
    /// It runs itself.
    Hello(u64),
    /// The command is about to run.
    Runs(u64),
    Last(Status),
}

/// The last word of the guest's init.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    /// With the microseconds until then, and the bytes that stdout, stderr and the
    /// terminal were sent.
    Ended {
        code: u8,
        micros: u64,
        sent: [u64; 3],
    },
    Failed {
        code: u8,
        why: String,
    },
}
