//! The one failure that callers tell from others.

/// A registry, layout or archive does not have what was asked for; the text says what.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct NotThere(pub String);
