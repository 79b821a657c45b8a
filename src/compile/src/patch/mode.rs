//! Permissions as chmod takes them.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;

/// Permission bits, or how they follow from those that are there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mode {
    /// `0o0000..=0o7777`.
    Octal(u16),
    /// One change behind the other.
    Symbolic(Vec<Clause>),
}

/// A step of a symbolic mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clause {
    /// The bits that it may touch.
    who: u16,
    operator: Operator,
    operand: Operand,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operator {
    Add,
    Remove,
    Set,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operand {
    Bits {
        bits: u16,
        /// `X`: and execution, of a directory or of what somebody may execute.
        conditional: bool,
    },
    /// What this class has of read, write and execute.
    CopyOf(u16),
}

/// A text that is no mode.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a mode; write octal digits (\"0644\") or chmod's letters (\"u=rwX,go=rX\")")]
pub struct BadMode(String);

const ALL: u16 = 0o7777;
const EXECUTE: u16 = 0o111;
const SET_IDS: u16 = 0o6000;

impl Mode {
    /// The mode of what had `old`.
    pub fn apply(&self, old: u16, directory: bool) -> u16 {
        match self {
            Self::Octal(mode) => *mode,
            Self::Symbolic(clauses) => {
                clauses.iter().fold(old & ALL, |mode, clause| clause.apply(mode, directory))
            }
        }
    }
}

impl Clause {
    /// As GNU chmod does it, under a umask of 0.
    fn apply(self, mode: u16, directory: bool) -> u16 {
        let (mut bits, named) = match self.operand {
            Operand::Bits { bits, conditional } => {
                let execute = conditional && (directory || mode & EXECUTE != 0);
                (if execute { bits | EXECUTE } else { bits }, bits)
            }
            Operand::CopyOf(class) => {
                let has = mode & class;
                let of = |bit: u16| if has & bit != 0 { bit } else { 0 };
                (of(0o444) | of(0o222) | of(0o111), 0)
            }
        };
        // A directory keeps setuid and setgid where they are not spoken of.
        let kept = if directory { SET_IDS & !named } else { 0 };
        bits &= self.who & !kept;
        match self.operator {
            Operator::Add => mode | bits,
            Operator::Remove => mode & !bits,
            Operator::Set => mode & (!self.who | kept) | bits,
        }
    }
}

fn class(letter: u8) -> Option<u16> {
    match letter {
        b'u' => Some(0o4700),
        b'g' => Some(0o2070),
        b'o' => Some(0o1007),
        b'a' => Some(ALL),
        _ => None,
    }
}

fn clause(text: &str, clauses: &mut Vec<Clause>) -> Option<()> {
    let mut letters = text.bytes().peekable();
    let mut who = 0;
    while let Some(bits) = letters.peek().copied().and_then(class) {
        who |= bits;
        letters.next();
    }
    let who = if who == 0 { ALL } else { who };
    letters.peek()?;
    while let Some(sign) = letters.next() {
        let operator = match sign {
            b'+' => Operator::Add,
            b'-' => Operator::Remove,
            b'=' => Operator::Set,
            _ => return None,
        };
        if let Some(from) = letters.peek().copied().filter(|l| *l != b'a').and_then(class) {
            letters.next();
            clauses.push(Clause { who, operator, operand: Operand::CopyOf(from & 0o777) });
            continue;
        }
        let (mut bits, mut conditional) = (0, false);
        while let Some(letter) = letters.next_if(|l| !matches!(l, b'+' | b'-' | b'=')) {
            match letter {
                b'r' => bits |= 0o444,
                b'w' => bits |= 0o222,
                b'x' => bits |= 0o111,
                b's' => bits |= SET_IDS,
                b't' => bits |= 0o1000,
                b'X' => conditional = true,
                _ => return None,
            }
        }
        clauses.push(Clause { who, operator, operand: Operand::Bits { bits, conditional } });
    }
    Some(())
}

impl FromStr for Mode {
    type Err = BadMode;

    fn from_str(text: &str) -> Result<Self, BadMode> {
        let bad = || BadMode(text.to_owned());
        if text.bytes().all(|b| b.is_ascii_digit()) {
            let octal = u16::from_str_radix(text, 8).ok().filter(|mode| *mode <= ALL);
            return octal.filter(|_| text.len() <= 4).map(Self::Octal).ok_or_else(bad);
        }
        let mut clauses = Vec::new();
        for part in text.split(',') {
            clause(part, &mut clauses).ok_or_else(bad)?;
        }
        Ok(Self::Symbolic(clauses))
    }
}

impl<'de> Deserialize<'de> for Mode {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;

        impl serde::de::Visitor<'_> for Visitor {
            type Value = Mode;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                // YAML has read 0o644 and 644 to numbers that no longer tell which it was.
                f.write_str("a mode in quotes, as \"0644\" or \"u=rwX,go=rX\"")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Mode, E> {
                text.parse().map_err(E::custom)
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

impl JsonSchema for Mode {
    fn schema_name() -> Cow<'static, str> {
        "Mode".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "Octal digits, or chmod's letters (u=rwX,go=rX); in quotes.",
            "type": "string",
            "pattern": r"^[0-7]{1,4}$|^[ugoa]*[-+=]|\$\{",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn symbolic_modes_do_what_chmod_does() {
        // Each result was read from GNU chmod 9.1 under umask 0: mode before, file or
        // directory, mode after.
        for (text, old, directory, new) in [
            ("u=rwX,go=rX", 0o600, false, 0o644),
            ("u=rwX,go=rX", 0o711, false, 0o755),
            ("u=rwX,go=rX", 0o2700, true, 0o2755),
            ("u-s", 0o4755, false, 0o755),
            ("a-s", 0o6755, true, 0o755),
            ("+t", 0o755, true, 0o1755),
            ("g=u", 0o640, false, 0o660),
            ("g=u-w", 0o640, false, 0o640),
            ("o=", 0o1757, true, 0o750),
            ("=", 0o6777, true, 0o6000),
            ("=", 0o7777, false, 0),
            ("a=rx", 0o6777, false, 0o555),
            ("u+s,g+s", 0o755, false, 0o6755),
            ("u=rws", 0o755, false, 0o4655),
            ("ug+x,o-r", 0o644, false, 0o750),
            ("+X", 0o644, false, 0o644),
            ("+X", 0o654, false, 0o755),
            ("-x+X", 0o755, true, 0o755),
        ] {
            let mode: Mode = text.parse().unwrap();
            let found = mode.apply(old, directory);
            assert_eq!(found, new, "{text} of {old:o}: {found:o}, not {new:o}");
        }
    }

    #[test]
    fn octal_modes_are_exact() {
        assert_eq!("4755".parse(), Ok(Mode::Octal(0o4755)));
        assert_eq!("0".parse(), Ok(Mode::Octal(0)));
        for bad in ["", "8", "10000", "07777", "u", "z+r", "u+q", "rwx", "u=r,", "+r,,", "0o644"] {
            assert!(bad.parse::<Mode>().is_err(), "{bad}");
        }
    }
}
