//! Text for terminals.
//!
//! Names, configs, bundles and answers of servers may hold escape sequences, by
//! which a terminal renames its window, types into its shell or overwrites what it
//! showed. Invariant: whatever this project prints for people or as JSON comes
//! through here, at the place where it is printed, so that no place that only
//! composes a message has to think of it. (What a command in a machine prints is
//! its own.)

use std::borrow::Cow;
use std::fmt::Write as _;
use std::io::{self, Write};

/// How the lines of a text begin behind its first one.
pub const INDENT: &str = "    ";

/// `text`, whose lines behind the first are indented ([`INDENT`]), with everything escaped
/// that a terminal obeys instead of showing it. Any other line break is escaped as well:
/// it could begin a message that nobody wrote.
pub fn text(text: &str) -> Cow<'_, str> {
    if !text.contains('\n') {
        return line(text);
    }
    let mut lines = text.split('\n');
    let mut out = line(lines.next().unwrap_or_default()).into_owned();
    for next in lines {
        out += if next.starts_with(INDENT) { "\n" } else { "\\n" };
        out += &line(next);
    }
    Cow::Owned(out)
}

/// As [`text`], but one line.
pub fn line(text: &str) -> Cow<'_, str> {
    escaped(text, is_obeyed)
}

/// `value` as indented JSON that is safe to look at.
///
/// # Errors
/// When `value` does not let itself be serialized, or has a map with keys that JSON cannot
/// have.
pub fn json(value: &impl serde::Serialize) -> serde_json::Result<String> {
    Ok(json_escaped(&serde_json::to_string_pretty(value)?))
}

/// Writes `value` as [`json`] has it, and keeps none of it: it may be much.
///
/// # Errors
/// When `out` cannot be written, or `value` cannot be serialized.
pub fn write_json(out: impl Write, value: &impl serde::Serialize) -> io::Result<()> {
    serde_json::to_writer_pretty(Escaping(out), value).map_err(io::Error::from)
}

/// JSON on its way, in pieces that are whole characters.
struct Escaping<W>(W);

impl<W: Write> Write for Escaping<W> {
    fn write(&mut self, piece: &[u8]) -> io::Result<usize> {
        let text = std::str::from_utf8(piece);
        let text = text.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        if text.contains(|c| c != '\n' && is_obeyed(c)) {
            self.0.write_all(json_escaped(text).as_bytes())?;
        } else {
            self.0.write_all(piece)?;
        }
        Ok(piece.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// `value` as JSON on one line.
///
/// # Errors
/// When `value` does not let itself be serialized, or has a map with keys that JSON cannot
/// have.
pub fn json_line(value: &impl serde::Serialize) -> serde_json::Result<String> {
    Ok(json_escaped(&serde_json::to_string(value)?))
}

/// serde escapes what JSON says it must, which are the control characters of ASCII
/// but DEL. What else is obeyed can only stand in strings, where an escape means the
/// same.
fn json_escaped(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    for c in json.chars() {
        match c {
            '\n' => out.push(c),
            c if is_obeyed(c) => write!(out, "\\u{:04x}", u32::from(c)).expect("a String"),
            c => out.push(c),
        }
    }
    out
}

fn escaped(text: &str, unsafe_char: impl Fn(char) -> bool) -> Cow<'_, str> {
    if !text.contains(&unsafe_char) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if unsafe_char(c) {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
    Cow::Owned(out)
}

/// Control characters, of ASCII and of ISO 6429 (C1, of which U+009B begins a
/// sequence as ESC [ does); what turns the direction of text (Unicode's TR 9), which
/// shows names as others; line and paragraph separators.
fn is_obeyed(c: char) -> bool {
    let directions = ['\u{61c}', '\u{200e}', '\u{200f}'];
    c.is_control()
        || matches!(c, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
        || directions.contains(&c)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terminals_get_nothing_to_obey() {
        let evil = "a\u{1b}[31mb\u{9b}2J\r\u{7f}\u{202e}c\td\né";
        assert_eq!(text(evil), line(evil));
        assert_eq!(text("a\n    b\r\n    c\nd\n"), "a\n    b\\r\n    c\\nd\\n");
        assert_eq!(line(evil), "a\\u{1b}[31mb\\u{9b}2J\\r\\u{7f}\\u{202e}c\\td\\né");
        assert!(matches!(line("plain: é/ü"), Cow::Borrowed(_)));
    }

    #[test]
    fn json_stays_what_it_is() {
        let evil = "a\u{1b}[31mb\u{9b}2J\r\u{7f}\u{202e}c\td\né";
        let mut written = Vec::new();
        write_json(&mut written, &evil).unwrap();
        let written = String::from_utf8(written).unwrap();
        for json in [json(&evil).unwrap(), json_line(&evil).unwrap(), written] {
            assert!(!json.chars().any(is_obeyed), "{json:?}");
            assert_eq!(serde_json::from_str::<String>(&json).unwrap(), evil);
        }
    }
}
