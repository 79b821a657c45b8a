//! Signals as people name them.

use std::fmt;
use std::str::FromStr;

use serde::Serialize;

use crate::boot::bad_value::BadValue;

/// The names of signals 1 to 31 on Linux.
const NAMES: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2",
    "PIPE", "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG",
    "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
];

/// Other names of some of them.
const ALIASES: [(&str, i32); 3] = [("IOT", 6), ("CLD", 17), ("POLL", 29)];

/// The first real-time signal that the C library leaves to programs, and the last one.
const RTMIN: i32 = 34;
const RTMAX: i32 = 64;

/// A signal, written as `SIGINT`, `INT`, `RTMIN+3` or `2`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(into = "String")]
pub struct Signal(i32);

impl Signal {
    /// SIGTERM, which asks a process to end by default.
    pub const TERM: Self = Self(15);

    /// The signal's number, 1 to 64.
    pub fn number(self) -> i32 {
        self.0
    }
}

impl FromStr for Signal {
    type Err = BadValue;

    fn from_str(text: &str) -> Result<Self, BadValue> {
        let name = text.trim().to_ascii_uppercase();
        let name = name.strip_prefix("SIG").unwrap_or(&name);
        let real_time = || {
            let (base, offset) = match name.strip_prefix("RTMIN") {
                Some(offset) => (RTMIN, offset),
                None => (RTMAX, name.strip_prefix("RTMAX")?),
            };
            match offset.split_at_checked(1) {
                Some(("+", n)) => base.checked_add(digits(n)?),
                Some(("-", n)) => base.checked_sub(digits(n)?),
                None => Some(base),
                Some(_) => None,
            }
            .filter(|n| (RTMIN..=RTMAX).contains(n))
        };
        let known = NAMES.iter().position(|known| *known == name).map(|i| i as i32 + 1);
        let alias = || ALIASES.iter().find(|(alias, _)| *alias == name).map(|(_, n)| *n);
        let number = known.or_else(alias).or_else(|| digits(name)).or_else(real_time);
        let number = number.filter(|n| (1..=RTMAX).contains(n));
        number.map(Self).ok_or_else(|| BadValue::Signal(text.to_owned()))
    }
}

/// Parses a number without a sign.
fn digits(text: &str) -> Option<i32> {
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok())?
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match NAMES.get(self.0 as usize - 1) {
            Some(name) => write!(f, "SIG{name}"),
            None => write!(f, "{}", self.0),
        }
    }
}

impl From<Signal> for String {
    fn from(signal: Signal) -> Self {
        signal.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The names are those of moby/sys/signal's map, the numbers those of signal(7).
    #[test]
    fn signals_are_names_or_numbers() {
        for (text, number) in [
            ("SIGINT", 2),
            ("int", 2),
            ("15", 15),
            ("SIGRTMIN+3", 37),
            ("RTMIN", 34),
            ("RTMAX-14", 50),
            ("SIGRTMAX", 64),
            ("SIGSYS", 31),
            ("CLD", 17),
            ("SIGPOLL", 29),
            ("IOT", 6),
        ] {
            assert_eq!(text.parse::<Signal>().unwrap().number(), number, "{text}");
        }
        for bad in [
            "",
            "SIG",
            "0",
            "65",
            "-9",
            "+9",
            "SIGFOO",
            "RTMIN-1",
            "SIGRTMIN+99",
            "RTMAX+1",
            "RTMIN+-1",
        ] {
            assert!(bad.parse::<Signal>().is_err(), "{bad}");
        }
        for text in ["SIGTERM", "SIGPWR", "37"] {
            assert_eq!(text.parse::<Signal>().unwrap().to_string(), text);
        }
    }
}
