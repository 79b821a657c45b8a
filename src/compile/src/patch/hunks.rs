//! Applies the hunks of a diff. Facts: how GNU patch finds the place of a hunk.

use anyhow::{Result, anyhow, ensure};

use super::unified::Hunk;

/// `text` after all `hunks`, in order. A hunk may have moved; its old lines must
/// all be there.
///
/// No list of the lines is kept: a file that is all line ends has as many as bytes.
pub(super) fn apply(text: &[u8], hunks: &[Hunk]) -> Result<Vec<u8>> {
    let text = Text::new(text);
    let mut new = Vec::new();
    // Whether the last line of `new` lacks its end.
    let mut open = false;
    let mut push = |bytes: &[u8]| {
        ensure!(!open, "a hunk that is of a file's end does not fit: there are lines behind it");
        open = !bytes.ends_with(b"\n");
        new.extend_from_slice(bytes);
        Ok(())
    };
    // Up to where the old text is done, and how far the last hunk was from where it said.
    let (mut done, mut offset) = (At::default(), 0isize);
    for (i, hunk) in hunks.iter().enumerate() {
        let guess = hunk.first().saturating_add_signed(offset);
        let at = hunk.place(&text, done, guess).ok_or_else(|| {
            anyhow!(
                "hunk {} (line {} of the diff) does not fit: its lines are not at line {}, nor elsewhere",
                i + 1,
                hunk.at,
                hunk.old_start
            )
        })?;
        offset = at.line.cast_signed() - hunk.first().cast_signed();
        if done.byte < at.byte {
            push(&text.bytes[done.byte..at.byte])?;
        }
        hunk.new.iter().try_for_each(|line| push(line))?;
        let old: usize = hunk.old.iter().map(Vec::len).sum();
        done = At { line: at.line + hunk.old.len(), byte: at.byte + old };
    }
    if done.byte < text.bytes.len() {
        push(&text.bytes[done.byte..])?;
    }
    Ok(new)
}

/// A file whose lines are found as they are needed.
struct Text<'t> {
    bytes: &'t [u8],
    /// How many lines it has; the last may lack its end.
    lines: usize,
}

/// Where a line begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct At {
    /// How many lines are before it.
    line: usize,
    byte: usize,
}

impl<'t> Text<'t> {
    fn new(bytes: &'t [u8]) -> Self {
        let ends = bytes.iter().filter(|b| **b == b'\n').count();
        let open = bytes.last().is_some_and(|last| *last != b'\n');
        Self { bytes, lines: ends + usize::from(open) }
    }

    fn end(&self) -> At {
        At { line: self.lines, byte: self.bytes.len() }
    }

    /// The line behind the one at `at`.
    fn next(&self, at: At) -> Option<At> {
        let rest = self.bytes.get(at.byte..).filter(|rest| !rest.is_empty())?;
        let len = rest.iter().position(|b| *b == b'\n').map_or(rest.len(), |end| end + 1);
        Some(At { line: at.line + 1, byte: at.byte + len })
    }

    /// The line before the one at `at`.
    fn before(&self, at: At) -> Option<At> {
        let line = at.line.checked_sub(1)?;
        let inner = &self.bytes[..at.byte.checked_sub(1)?];
        let start = inner.iter().rposition(|b| *b == b'\n').map_or(0, |end| end + 1);
        Some(At { line, byte: start })
    }

    /// The line `line`, which is `at` or behind it.
    fn forward(&self, mut at: At, line: usize) -> Option<At> {
        while at.line < line {
            at = self.next(at)?;
        }
        Some(at)
    }
}

impl Hunk {
    /// Index of the first old line in the file that the diff was made of.
    fn first(&self) -> usize {
        if self.old.is_empty() { self.old_start } else { self.old_start.saturating_sub(1) }
    }

    /// Whether the old lines stand at `at`.
    fn fits(&self, text: &Text<'_>, at: At) -> bool {
        let mut rest = &text.bytes[at.byte..];
        for line in &self.old {
            match rest.strip_prefix(&line[..]) {
                // A line without its end is the file's last.
                Some(behind) if line.ends_with(b"\n") || behind.is_empty() => rest = behind,
                _ => return false,
            }
        }
        true
    }

    /// The line of `text` at which the old lines stand, `done` or one behind it: the
    /// nearest to line `guess`. A hunk with less context at one end than at the other
    /// was made at the file's start or end, and fits nowhere else.
    fn place(&self, text: &Text<'_>, done: At, guess: usize) -> Option<At> {
        let last = text.lines.checked_sub(self.old.len()).filter(|last| *last >= done.line)?;
        if self.old.is_empty() {
            let guess = Some(guess).filter(|guess| (done.line..=last).contains(guess))?;
            return text.forward(done, guess);
        }
        let fits = |at: &At| self.fits(text, *at);
        if self.prefix < self.suffix && self.old_start <= 1 {
            return Some(At::default()).filter(|at| at.line >= done.line && fits(at));
        }
        if self.suffix < self.prefix {
            let mut at = text.end();
            for _ in &self.old {
                at = text.before(at)?;
            }
            return Some(at).filter(fits);
        }
        let guess = text.forward(done, guess.clamp(done.line, last))?;
        if fits(&guess) {
            return Some(guess);
        }
        let (mut up, mut down) = (Some(guess), Some(guess));
        while up.is_some() || down.is_some() {
            up = up.and_then(|at| text.next(at)).filter(|at| at.line <= last);
            down = down.and_then(|at| text.before(at)).filter(|at| at.line >= done.line);
            if let Some(at) = up.filter(fits).or_else(|| down.filter(fits)) {
                return Some(at);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hunks_are_placed_as_by_a_list_of_lines() {
        // All files of up to six lines that are one of two, with and without the last
        // line's end, and all hunks of one change between two lines of context.
        for bits in 0..64usize {
            for count in 0..=6 {
                let mut lines: Vec<&str> =
                    (0..count).map(|i| if bits >> i & 1 == 0 { "a\n" } else { "b\n" }).collect();
                for open in [false, true] {
                    if let Some(last) = lines.last_mut().filter(|_| open) {
                        *last = &last[..1];
                    }
                    for start in 1..=7 {
                        each_hunk(&lines, start);
                    }
                }
            }
        }
    }

    /// Applies hunks that begin at line `start`; each result must be what a search in
    /// `lines` says.
    fn each_hunk(lines: &[&str], start: usize) {
        for old in [&["a\n"][..], &["a\n", "b\n"], &["b\n", "a\n", "a\n"], &["b\n", "a"]] {
            let old: Vec<Vec<u8>> = old.iter().map(|line| line.as_bytes().to_vec()).collect();
            let new = vec![b"new\n".to_vec()];
            let hunk = Hunk { at: 1, old_start: start, old, new, prefix: 1, suffix: 1 };
            let fits = |at: &usize| {
                let there = lines.get(*at..*at + hunk.old.len());
                there.is_some_and(|there| {
                    there.iter().zip(&hunk.old).all(|(a, b)| a.as_bytes() == b)
                })
            };
            let last = lines.len().saturating_sub(hunk.old.len());
            let guess = (start - 1).min(last);
            // Of two that are as near, the one behind.
            let places = (0..=last).filter(fits);
            let wanted = places.min_by_key(|at| (at.abs_diff(guess), *at < guess));
            let found = apply(lines.concat().as_bytes(), std::slice::from_ref(&hunk)).ok();
            let wanted = wanted.map(|at| {
                let behind = lines[at + hunk.old.len()..].concat();
                [lines[..at].concat(), "new\n".to_owned(), behind].concat().into_bytes()
            });
            assert_eq!(found, wanted, "{lines:?} {hunk:?}");
        }
    }
}
