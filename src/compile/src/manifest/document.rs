//! YAML with variables: text to values, and where each value stands.

use std::collections::BTreeSet;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::marks::{Marks, TooMuch};
use super::vars::Vars;
use crate::manifest::error::ManifestError;
use crate::manifest::step::Step;

/// Bytes of a file of YAML: a list of a byte for each element takes a hundred times
/// as many to read.
pub(super) const MAX_BYTES: u64 = 4 << 20;

/// A file of YAML.
pub(super) struct Document {
    pub path: PathBuf,
    pub value: Value,
    marks: Marks,
}

impl Document {
    /// Reads YAML from `from`, which errors call `path`.
    pub(super) fn read(from: impl Read, path: &Path) -> Result<Self, ManifestError> {
        let io = |source| ManifestError::Io { path: path.to_owned(), source };
        let mut text = String::new();
        from.take(MAX_BYTES + 1).read_to_string(&mut text).map_err(io)?;
        if text.len() as u64 > MAX_BYTES {
            let what = format!("more than {MAX_BYTES} bytes");
            return Err(ManifestError::Value { path: path.to_owned(), place: String::new(), what });
        }
        let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
        // First, because it bounds what the other reading costs.
        let marks = Marks::of(text).map_err(|TooMuch { what, line, column }| {
            let place = format!(":{line}:{column}");
            ManifestError::Value { path: path.to_owned(), place, what: what.to_owned() }
        })?;
        let yaml = |source| ManifestError::Yaml { path: path.to_owned(), source };
        let mut value: serde_yaml::Value = serde_yaml::from_str(text).map_err(yaml)?;
        value.apply_merge().map_err(yaml)?;
        let value = serde_json::to_value(value).map_err(|error| ManifestError::Value {
            path: path.to_owned(),
            place: String::new(),
            what: format!("{error}: keys are text"),
        })?;
        Ok(Self { path: path.to_owned(), value, marks })
    }

    /// Puts values in the place of variables, everywhere below `at` and not
    /// below the keys `except` of the document itself.
    pub(super) fn expand(&mut self, vars: &Vars, except: &[&str]) -> Result<(), ManifestError> {
        let mut steps = Vec::new();
        let mut value = std::mem::take(&mut self.value);
        let result = expand(&mut value, vars, except, &mut steps);
        self.value = value;
        result.map_err(|error| self.error(&steps, error.to_string()))
    }

    /// The typed form of the document's value.
    pub(super) fn parse<T: DeserializeOwned>(&self) -> Result<T, ManifestError> {
        serde_path_to_error::deserialize(&self.value).map_err(|error| {
            let steps: Vec<Step> = error.path().iter().filter_map(step).collect();
            self.error(&steps, error.into_inner().to_string())
        })
    }

    /// Line of the value at `steps`, from 1; 0 if it is not known.
    pub(super) fn line(&self, steps: &[Step]) -> usize {
        self.marks.get(steps).map_or(0, |(line, _)| line)
    }

    /// An error about the value at `steps`.
    pub(super) fn error(&self, steps: &[Step], what: String) -> ManifestError {
        let place = self.marks.get(steps);
        let place = place.map_or_else(String::new, |(line, column)| format!(":{line}:{column}"));
        ManifestError::Value { path: self.path.clone(), place, what }
    }
}

pub(super) fn step(segment: &serde_path_to_error::Segment) -> Option<Step> {
    use serde_path_to_error::Segment;
    match segment {
        Segment::Seq { index } => Some(Step::Index(*index)),
        Segment::Map { key } => Some(Step::Key(key.clone())),
        Segment::Enum { variant } => Some(Step::Key(variant.clone())),
        Segment::Unknown => None,
    }
}

/// On an error, `steps` lead to the value that it is about.
pub(super) fn expand(
    value: &mut Value,
    vars: &Vars,
    except: &[&str],
    steps: &mut Vec<Step>,
) -> anyhow::Result<()> {
    match value {
        Value::String(text) => *text = vars.expand(text)?,
        Value::Array(values) => {
            for (i, element) in values.iter_mut().enumerate() {
                steps.push(Step::Index(i));
                expand(element, vars, &[], steps)?;
                steps.pop();
            }
        }
        Value::Object(values) => {
            for (key, member) in values.iter_mut().filter(|(key, _)| !except.contains(&&***key)) {
                steps.push(Step::Key(key.clone()));
                expand(member, vars, &[], steps)?;
                steps.pop();
            }
        }
        _ => {}
    }
    Ok(())
}

/// Names of variables that a document uses.
pub(super) fn used(value: &Value, names: &mut BTreeSet<String>) {
    match value {
        Value::String(text) => names.extend(super::vars::names(text)),
        Value::Array(values) => values.iter().for_each(|element| used(element, names)),
        Value::Object(values) => values.values().for_each(|member| used(member, names)),
        _ => {}
    }
}
