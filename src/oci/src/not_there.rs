//! The one failure that callers tell from others.

/// A registry does not have what was asked for; the text says what. What a layout, an archive
/// or a daemon lacks is another error.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct NotThere(pub String);
