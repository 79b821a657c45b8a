//! What rootfs-boot itself says to a person.

use std::io::{IsTerminal as _, Write as _};

use fsimage::io::printable;

/// Says something to the person at the terminal; with nobody there, nothing is lost.
pub fn notice(text: &str) {
    let text = printable::text(text);
    let mut stderr = std::io::stderr();
    // A terminal that is raw for the guest's sake begins no line by itself.
    let end = if stderr.is_terminal() { "\r\n" } else { "\n" };
    let _ = write!(stderr, "rootfs-boot: {text}{end}");
}
