//! The one error that callers tell from all others.

/// A registry does not have what was asked for; the text says what. Layouts, archives and the
/// daemon report what they lack by other errors.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct NotThere(pub String);
