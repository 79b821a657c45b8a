//! Symbolic links on the way to a name.

use crate::tree::name::{BadName, Name};

/// Symbolic links followed in one path, as many as Linux follows.
pub const MAX_LINKS: usize = 40;

/// One step of a path that may leave a directory again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Into this entry.
    Into(Name),
    /// `..`
    Up,
}

/// The steps of a symbolic link's target, the last one first: a stack to
/// follow. Whether they begin at the root, its first byte says.
///
/// # Errors
/// When a component cannot be a name: it has more than 255 bytes or holds a NUL.
pub fn steps(target: &[u8]) -> Result<Vec<Step>, BadName> {
    let parts = target.split(|b| *b == b'/').rev();
    let parts = parts.filter(|part| !part.is_empty() && *part != b".");
    parts
        .map(|part| if part == b".." { Ok(Step::Up) } else { Name::new(part).map(Step::Into) })
        .collect()
}
