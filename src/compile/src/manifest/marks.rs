//! Where the values of a YAML document stand, and whether it is one that can be read
//! at no great cost.

use std::collections::{BTreeMap, HashMap};

use saphyr_parser::{Event, Parser};

use crate::manifest::step::Step;

/// Depth of values in each other. The time that parsers take grows with its square.
const MAX_DEPTH: usize = 64;

/// Opening brackets that a document may have if this reading cannot follow it.
const MAX_UNREAD: usize = 1000;

/// Bytes of memory that the values and places of a document may take, each alias
/// counted as a copy of what it stands for. A manifest that says much has 1 MiB.
const MAX_WEIGHT: usize = 128 << 20;

/// Bytes of a value, or of a step of its place, beyond its text.
const VALUE: usize = 160;
const STEP: usize = 32;

/// Line and column, from 1, of the keys and elements of a document.
#[derive(Default)]
pub(super) struct Marks(BTreeMap<Vec<Step>, (usize, usize)>);

/// A document that is made to exhaust the machine.
#[derive(Debug)]
pub(super) struct TooMuch {
    pub what: &'static str,
    pub line: usize,
    pub column: usize,
}

/// A list or a mapping whose end was not read yet.
enum Node {
    /// With the number of the element that comes next.
    Sequence(usize),
    /// Whether a key comes next.
    Mapping(bool),
}

/// What a document takes of the memory.
#[derive(Default)]
struct Weight {
    sum: usize,
    /// Of each anchor's value, by the anchor's number.
    anchored: HashMap<usize, usize>,
    /// Of what is open: its anchor, and the sum before it.
    open: Vec<(usize, usize)>,
}

impl Weight {
    /// Adds `event`, whose place has these steps.
    fn add(&mut self, event: &Event<'_>, steps: &[Step]) {
        let place = steps.iter().map(|step| match step {
            Step::Key(key) => STEP + key.len(),
            Step::Index(_) => STEP,
        });
        let place = VALUE + place.sum::<usize>();
        match event {
            Event::Scalar(text, _, anchor, _) => {
                self.anchored.insert(*anchor, VALUE + text.len());
                self.sum = self.sum.saturating_add(place + text.len());
            }
            Event::SequenceStart(anchor, _) | Event::MappingStart(anchor, _) => {
                self.open.push((*anchor, self.sum));
                self.sum = self.sum.saturating_add(place);
            }
            Event::SequenceEnd | Event::MappingEnd => {
                let (anchor, before) = self.open.pop().unwrap_or_default();
                self.anchored.insert(anchor, self.sum.saturating_sub(before));
            }
            Event::Alias(anchor) => {
                let of = self.anchored.get(anchor).copied().unwrap_or_default();
                self.sum = self.sum.saturating_add(place).saturating_add(of);
            }
            _ => {}
        }
    }
}

impl Marks {
    /// The place of `steps`, or of the nearest value around it that has one.
    pub(super) fn get(&self, steps: &[Step]) -> Option<(usize, usize)> {
        (0..=steps.len()).rev().find_map(|len| self.0.get(&steps[..len]).copied())
    }

    /// Lets `steps` lead to the key or value that begins with `event`.
    fn enter(event: &Event<'_>, open: &mut [Node], steps: &mut Vec<Step>) {
        let depth = open.len().saturating_sub(1);
        match open.last_mut() {
            Some(Node::Sequence(next)) => {
                steps.truncate(depth);
                steps.push(Step::Index(*next));
                *next += 1;
            }
            Some(Node::Mapping(is_key)) if *is_key => {
                *is_key = false;
                steps.truncate(depth);
                // A key that is no scalar is an error of the other reading.
                let key = if let Event::Scalar(text, ..) = event { text.as_ref() } else { "" };
                steps.push(Step::Key(key.to_owned()));
            }
            Some(Node::Mapping(is_key)) => *is_key = true,
            None => {}
        }
    }

    /// Reads `text` for the places alone. What this reading cannot follow has no
    /// place; what it means, another reading says.
    ///
    /// # Errors
    /// Where it becomes too deep, or too much.
    pub(super) fn of(text: &str) -> Result<Self, TooMuch> {
        let mut marks = Self::default();
        let mut weight = Weight::default();
        let mut open: Vec<Node> = Vec::new();
        let mut steps: Vec<Step> = Vec::new();
        for event in Parser::new_from_str(text) {
            let (event, span) = match event {
                Ok(event) => event,
                // It is for the other reading to say what is wrong, unless that could
                // take it long: it looks for the end of each list that is begun.
                Err(error) if text.matches(['[', '{']).count() > MAX_UNREAD => {
                    let (line, column) = (error.marker().line(), error.marker().col() + 1);
                    let what = "this is not YAML, or nested too deep";
                    return Err(TooMuch { what, line, column });
                }
                Err(_) => break,
            };
            let at = (span.start.line(), span.start.col() + 1);
            let too = |what| TooMuch { what, line: at.0, column: at.1 };
            match &event {
                Event::SequenceEnd | Event::MappingEnd => {
                    open.pop();
                    steps.truncate(open.len().saturating_sub(1));
                }
                Event::Scalar(..)
                | Event::SequenceStart(..)
                | Event::MappingStart(..)
                | Event::Alias(_) => {
                    let is_value = matches!(open.last(), Some(Node::Mapping(false)));
                    Self::enter(&event, &mut open, &mut steps);
                    // A value stands where its key does.
                    if !is_value {
                        marks.0.insert(steps.clone(), at);
                    }
                }
                _ => continue,
            }
            weight.add(&event, &steps);
            if weight.sum > MAX_WEIGHT {
                return Err(too("there are too many values, or aliases that stand for many"));
            }
            match event {
                Event::SequenceStart(..) => open.push(Node::Sequence(0)),
                Event::MappingStart(..) => open.push(Node::Mapping(true)),
                _ => {}
            }
            if open.len() > MAX_DEPTH {
                return Err(too("more than 64 values are nested in each other"));
            }
        }
        Ok(marks)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> TooMuch {
        Marks::of(text).err().unwrap_or_else(|| panic!("{} bytes are taken", text.len()))
    }

    #[test]
    fn values_nested_too_deep_are_refused_where_that_begins() {
        let texts = [
            "[".repeat(32_000),
            "{a: ".repeat(100_000),
            "- ".repeat(100_000),
            "? ".repeat(100_000),
            "[? ".repeat(100_000),
            "{? ".repeat(100_000),
            "a:\n".to_owned() + &(1..5000).map(|n| " ".repeat(n) + "a:\n").collect::<String>(),
        ];
        for text in texts {
            let refused = refused(&text);
            assert!(refused.what.contains("nested"), "{refused:?}");
            assert!(refused.line + refused.column < 2000, "{refused:?}");
        }
        let deep = "[".repeat(64) + &"]".repeat(64);
        assert!(Marks::of(&deep).is_ok());
        // What is no YAML at its beginning is none further on.
        refused(&format!("a: \"\\q\"\nb: {}", "[".repeat(32_000)));
        // Text is no nesting, whatever is in it.
        let block = format!("a: |\n  {}\n", "[".repeat(1000));
        assert!(Marks::of(&block).is_ok());
    }

    #[test]
    fn what_aliases_stand_for_counts_each_time() {
        let mut laughs = "a0: &a0 [x]\n".to_owned();
        for i in 1..40 {
            let before = i - 1;
            laughs += &format!("a{i}: &a{i} [*a{before}, *a{before}]\n");
        }
        assert!(refused(&laughs).line < 30);
        let text = "x".repeat(1 << 20);
        let aliases = format!("a: &a {text}\nb: [{}]\n", "*a, ".repeat(1000));
        assert!(refused(&aliases).what.contains("aliases"));
        assert!(Marks::of(&format!("a: {text}\nb: [{}]\n", "c, ".repeat(1000))).is_ok());
        refused(&"- a\n".repeat(4 << 20));
        // A long key counts for the place of each value below it.
        refused(&format!("? {text}\n: [{}]\n", "c, ".repeat(1000)));
    }
}
