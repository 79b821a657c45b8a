//! A bundle as a running machine.
//!
//! ```text
//! bundle ─► open, checked ─┐
//! options + image config ──┼─► Launch: three disks, ports, one command line ─► engine process (libkrun or qemu)
//! bundle's upper, cloned ──┘                                                        │
//!                         supervise: terminal, streams, signals, exit code ◄────────┘
//! ```
//!
//! The engine is a process of its own, this program started again, which
//! becomes the machine; whatever happens to it, the supervisor restores the
//! terminal and tells an exit code. Disks reach it as open descriptors.

#![warn(
    missing_debug_implementations,
    missing_docs,
    clippy::missing_errors_doc,
    clippy::shadow_unrelated
)]

pub mod args;
mod choose;
mod command;
mod disk;
pub mod engine;
#[cfg(feature = "libkrun")]
mod krun;
pub mod krunfw;
mod kvm_finding;
mod launch;
mod liveness;
mod machine;
mod notice;
mod options;
mod policy;
mod qemu;
mod run;
mod signals;
mod spec;
mod streams;
mod supervise;
mod system;
mod terminal;
mod timings;
mod upper;
pub mod wire;

pub use self::engine::Engine;
pub use self::machine::enter as enter_machine;
pub use self::notice::notice;
pub use self::options::{Options, Volume};
pub use self::run::{dry_run, run};
pub use self::spec::ARGUMENT as MACHINE_ARGUMENT;
pub use self::wire::code::{MACHINE_FAILED, TIMED_OUT};
