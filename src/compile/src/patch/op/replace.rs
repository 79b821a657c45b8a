//! `replace`: what a regular expression matches becomes something else.

use anyhow::{Result, anyhow, ensure};
use bundle::boot::lenient::Int;
use regex::bytes::{Regex, RegexBuilder};
use schemars::JsonSchema;
use serde::Deserialize;

use super::operation::{Operation, guest_path};
use crate::patch::change::ChangeKind;
use crate::patch::edit::MAX_EDIT;
use crate::patch::work::Work;

/// Replaces what a regular expression matches in a file.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Replace {
    /// The file: a guest path.
    pub path: String,
    /// A regular expression over bytes; ^ and $ stand for the ends of a line.
    pub find: String,
    /// What stands there afterwards; $1 or ${name} (in a manifest: $${name}) is
    /// what a group matched.
    pub with: String,
    /// How many matches to replace, from the top; fewer are an error. Default:
    /// all, at least one.
    #[serde(default)]
    pub count: Option<Int<u32>>,
}

impl Operation for Replace {
    fn title(&self) -> (&'static str, String) {
        ("replace", self.path.clone())
    }

    fn check(&self) -> Result<()> {
        guest_path(&self.path)?;
        let find = regex(&self.find)?;
        ensure!(self.count != Some(Int(0)), "count is 0; leave it out to replace every match");
        groups(&find, &self.with)
    }

    fn apply(&self, work: &mut Work<'_>) -> Result<()> {
        let (found, id) = work.file(&self.path)?;
        let find = regex(&self.find)?;
        let text = work.text(id)?;
        let count = self.count.map(|Int(count)| count as usize);
        let least = count.unwrap_or(1);
        let matches = find.find_iter(&text).take(least).count();
        ensure!(matches > 0, "nothing matches {:?}", self.find);
        ensure!(matches >= least, "{:?} matches {matches} times, not {least}", self.find);
        let mut new = Vec::new();
        let mut done = 0;
        for captures in find.captures_iter(&text).take(count.unwrap_or(usize::MAX)) {
            let whole = captures.get_match();
            new.extend_from_slice(&text[done..whole.start()]);
            captures.expand(self.with.as_bytes(), &mut new);
            done = whole.end();
            ensure!(new.len() as u64 <= MAX_EDIT, "it would have more than {MAX_EDIT} bytes");
        }
        new.extend_from_slice(&text[done..]);
        ensure!(new.len() as u64 <= MAX_EDIT, "it would have more than {MAX_EDIT} bytes");
        if new != text {
            work.set_edited(id, new)?;
            work.note(ChangeKind::Changed, &found.path)?;
        }
        Ok(())
    }
}

/// A regular expression over bytes, in which ^ and $ are the ends of a line.
fn regex(pattern: &str) -> Result<Regex> {
    let built = RegexBuilder::new(pattern).multi_line(true).build();
    // The parser draws its errors, over lines that end in what is wrong.
    built.map_err(|error| {
        let text = error.to_string();
        let last = text.lines().last().unwrap_or_default().trim_start_matches("error: ");
        anyhow!("find is not a regular expression: {last}")
    })
}

/// Whether `find` has every group that `with` refers to.
fn groups(find: &Regex, with: &str) -> Result<()> {
    let word = |b: char| b.is_ascii_alphanumeric() || b == '_';
    let mut rest = with;
    while let Some(at) = rest.find('$') {
        rest = &rest[at + 1..];
        if let Some(behind) = rest.strip_prefix('$') {
            rest = behind;
            continue;
        }
        let braced = rest.strip_prefix('{').and_then(|rest| rest.split_once('}'));
        let name = match braced {
            Some((name, _)) => name,
            None => &rest[..rest.find(|c| !word(c)).unwrap_or(rest.len())],
        };
        if name.is_empty() {
            continue;
        }
        let known = match name.parse::<usize>() {
            Ok(number) => number < find.captures_len(),
            Err(_) => find.capture_names().flatten().any(|known| known == name),
        };
        ensure!(known, "{with:?} uses the group {name:?}, which {find} does not have");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_that_a_replacement_names_must_be_there() {
        let find = regex("^(a)(?P<word>b)").unwrap();
        for fine in ["", "$1", "${word}$2", "$$9", "cost: $", "$word ${1}x"] {
            assert!(groups(&find, fine).is_ok(), "{fine}");
        }
        for bad in ["$3", "$1x", "${none}"] {
            assert!(groups(&find, bad).is_err(), "{bad}");
        }
    }
}
