//! What cargo does not hold: the order inside each crate, and how files are written.
//!
//! These tests read the sources of all crates with a real parser. The guest's init is
//! left out: it is a program of its own, without crates.

mod arrows;
mod manner;
mod rust_version;
mod source;
