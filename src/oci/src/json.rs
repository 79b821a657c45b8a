//! Reads JSON as Go's decoder does, which the other tools of this field use: keys compare
//! without regard to case, and null is the same as an absent value.

use anyhow::{Result, bail};
use serde_json::{Map, Value};

/// The value of `name` in an object, whatever the case of its key.
///
/// # Errors
/// When the key is there in two spellings: programs differ in which of them they take, so
/// that the same bytes would have two meanings.
pub(crate) fn field<'v>(value: &'v Value, name: &str) -> Result<Option<&'v Value>> {
    let Some(object) = value.as_object() else {
        return Ok(None);
    };
    let mut spelled = object.iter().filter(|(key, _)| is_spelling(key, name));
    let Some((key, value)) = spelled.next() else {
        return Ok(None);
    };
    if let Some((other, _)) = spelled.next() {
        bail!("it has `{key}` and `{other}`, two spellings of one key");
    }
    Ok(Some(value).filter(|value| !value.is_null()))
}

/// Whether Go's decoder takes `key` for `name`. It compares by Unicode's simple case folding,
/// in which two letters beyond ASCII (U+017F, U+212A) equal letters of ASCII.
fn is_spelling(key: &str, name: &str) -> bool {
    let folded = |c: char| match c {
        '\u{17f}' => 's',
        '\u{212a}' => 'k',
        c => c.to_ascii_lowercase(),
    };
    key.len() >= name.len() && key.chars().map(folded).eq(name.chars().map(folded))
}

/// The text of the key `name`; `None` if it is absent.
pub(crate) fn text<'v>(value: &'v Value, name: &str) -> Result<Option<&'v str>> {
    match field(value, name)? {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(other) => bail!("{name} is {}, and not text", kind(other)),
    }
}

/// The list of the key `name`; an empty one if it is absent.
pub(crate) fn list<'v>(value: &'v Value, name: &str) -> Result<&'v [Value]> {
    match field(value, name)? {
        None => Ok(&[]),
        Some(Value::Array(list)) => Ok(list),
        Some(other) => bail!("{name} is {}, and not a list", kind(other)),
    }
}

/// The list of texts of the key `name`; null in it stands for an empty text.
pub(crate) fn texts(value: &Value, name: &str) -> Result<Vec<String>> {
    let text = |item: &Value| match item {
        Value::Null => Ok(String::new()),
        Value::String(text) => Ok(text.clone()),
        other => bail!("{name} holds {}, and not text", kind(other)),
    };
    list(value, name)?.iter().map(text).collect()
}

/// The object of the key `name`; `None` if it is absent.
pub(crate) fn object<'v>(value: &'v Value, name: &str) -> Result<Option<&'v Map<String, Value>>> {
    match field(value, name)? {
        None => Ok(None),
        Some(Value::Object(object)) => Ok(Some(object)),
        Some(other) => bail!("{name} is {}, and not an object", kind(other)),
    }
}

/// The type of a value, as a message names it.
pub(crate) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// Characters of the longest text that a message quotes.
const MAX_SHOWN: usize = 200;

/// A text of an image as a message may show it: shortened, and with control characters
/// escaped, on which a terminal might act.
pub(crate) fn shown(text: &str) -> String {
    let cut: String = text.chars().take(MAX_SHOWN).collect();
    let more = if cut.len() < text.len() { "…" } else { "" };
    format!("{}{more}", cut.escape_debug())
}

/// A list of `texts` for a message, which shows the first few and counts the others.
pub(crate) fn shown_list<T: AsRef<str>>(texts: &[T]) -> String {
    const FEW: usize = 20;
    let mut list: Vec<String> = texts.iter().take(FEW).map(|text| shown(text.as_ref())).collect();
    if texts.len() > FEW {
        list.push(format!("and {} more", texts.len() - FEW));
    }
    list.join(", ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn keys_count_in_any_case_and_null_is_absent() {
        let value = json!({ "CONFIG": "a", "repoTags": null, "LAYERS": ["x", null] });
        assert_eq!(text(&value, "config").unwrap(), Some("a"));
        assert_eq!(text(&value, "CONFIG").unwrap(), Some("a"));
        assert_eq!(texts(&value, "RepoTags").unwrap(), [""; 0]);
        assert_eq!(texts(&value, "Layers").unwrap(), ["x", ""]);
        let error = text(&value, "layers").unwrap_err().to_string();
        assert_eq!(error, "layers is a list, and not text");
    }

    #[test]
    fn two_spellings_of_a_key_are_refused() {
        let value =
            json!({ "config": null, "Config": "b", "K": 1, "k": 2, "other": 1, "Other": 2 });
        for name in ["config", "k"] {
            let error = text(&value, name).unwrap_err().to_string();
            assert!(error.contains("two spellings"), "{error}");
        }
        assert_eq!(text(&value, "absent").unwrap(), None);
    }

    #[test]
    fn messages_show_little_of_what_an_image_says() {
        assert_eq!(shown("a\u{1b}[2J\n"), "a\\u{1b}[2J\\n");
        assert!(shown(&"x".repeat(1 << 20)).len() < 210);
        assert!(shown_list(&vec!["y"; 1000]).ends_with("y, and 980 more"));
    }
}
