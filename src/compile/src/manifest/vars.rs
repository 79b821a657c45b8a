//! Variables: `${NAME}` in a manifest's values.

use std::collections::BTreeMap;

use anyhow::{Result, anyhow, bail, ensure};

/// Bytes of a text with its variables: more are only there to exhaust the memory.
const MAX_BYTES: usize = 16 << 20;

/// Names and values.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Vars(BTreeMap<String, String>);

/// A part of a text with variables.
enum Segment<'t> {
    Plain(&'t str),
    /// `${NAME}`
    Name(&'t str),
    /// `$$`, which stands for one of them.
    Dollar,
}

impl Vars {
    /// Variables that the user set, which win over those of a manifest.
    pub(super) fn new(set: &BTreeMap<String, String>) -> Self {
        Self(set.clone())
    }

    /// Defines `name` unless it is there.
    pub(super) fn define(&mut self, name: &str, value: &str) -> Result<()> {
        ensure!(is_name(name), bad_name(name));
        if !self.0.contains_key(name) {
            let value = self.expand(value)?;
            self.0.insert(name.to_owned(), value);
        }
        Ok(())
    }

    /// `text` with values in the place of `${NAME}`, and `$` of `$$`.
    pub(super) fn expand(&self, text: &str) -> Result<String> {
        let mut out = String::new();
        for segment in segments(text)? {
            match segment {
                _ if out.len() > MAX_BYTES => {
                    bail!("with its variables, it has more than {MAX_BYTES} bytes");
                }
                Segment::Plain(text) => out.push_str(text),
                Segment::Dollar => out.push('$'),
                Segment::Name(name) => out.push_str(self.0.get(name).ok_or_else(|| {
                    anyhow!(
                        "the variable {name} is not defined (in vars, or by --set {name}=…; \
                         write $${{{name}}} for the text itself)"
                    )
                })?),
            }
        }
        Ok(out)
    }
}

/// Letters, digits and underscores, no digit first.
pub(super) fn is_name(name: &str) -> bool {
    let word = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    word && name.bytes().next().is_some_and(|b| !b.is_ascii_digit())
}

/// What is wrong with a name.
pub(super) fn bad_name(name: &str) -> String {
    format!("{name:?} is not a name of a variable (letters, digits and _, no digit first)")
}

/// The variables that `text` uses, as far as it can be read.
pub(super) fn names(text: &str) -> Vec<String> {
    let segments = segments(text).unwrap_or_default().into_iter();
    let name =
        |segment| if let Segment::Name(name) = segment { Some(name.to_owned()) } else { None };
    segments.filter_map(name).collect()
}

fn segments(text: &str) -> Result<Vec<Segment<'_>>> {
    let mut out = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push(Segment::Plain(&rest[..at]));
        let behind = &rest[at + 1..];
        if let Some(behind) = behind.strip_prefix('$') {
            out.push(Segment::Dollar);
            rest = behind;
        } else if let Some(behind) = behind.strip_prefix('{') {
            let (name, behind) = behind.split_once('}').ok_or_else(|| {
                anyhow!("{text:?}: a ${{ without }} (write $${{ for the text itself)")
            })?;
            ensure!(is_name(name), "{} (write $${{ for the text itself)", bad_name(name));
            out.push(Segment::Name(name));
            rest = behind;
        } else {
            out.push(Segment::Plain("$"));
            rest = behind;
        }
    }
    out.push(Segment::Plain(rest));
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_braces_make_a_variable() {
        let mut vars = Vars::new(&BTreeMap::from([("SET".to_owned(), "won".to_owned())]));
        vars.define("A", "a$$").unwrap();
        vars.define("B", "<${A}>").unwrap();
        vars.define("SET", "lost").unwrap();
        let same = "^a$ $HOME $1 $";
        assert_eq!(vars.expand(same).unwrap(), same);
        assert_eq!(vars.expand("${A}${B} $${A} $$ ${SET}").unwrap(), "a$<a$> ${A} $ won");
        assert!(vars.expand("${NONE}").unwrap_err().to_string().contains("--set NONE="));
        assert!(vars.expand("${A").is_err() && vars.expand("${}").is_err());
        assert!(vars.define("1", "").is_err());
    }
}
