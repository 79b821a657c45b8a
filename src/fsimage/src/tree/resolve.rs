//! From a path to what it names, symbolic links followed inside the root.

use crate::budget::{Steps, TooManySteps};
use crate::tree::arena::DirId;
use crate::tree::name::{BadName, GuestPath, Name};

/// Symbolic links followed in one path, as many as Linux follows.
pub const MAX_LINKS: usize = 40;

/// Why a symbolic link cannot be followed.
#[derive(Debug, thiserror::Error)]
pub enum Stuck {
    /// More than [`MAX_LINKS`] are on the way.
    #[error("symbolic links lead in a circle")]
    Loop,
    /// A component of the target has more than 255 bytes or holds a NUL.
    #[error(transparent)]
    Target(#[from] BadName),
    /// The paths of a build take more steps than are allowed.
    #[error(transparent)]
    Steps(#[from] TooManySteps),
}

enum Step {
    Into(Name),
    /// `..`, which leads from the root to the root.
    Up,
}

/// Where the resolution of a path stands.
///
/// The caller looks up each name that [`Resolver::next_name`] returns, and tells what it found
/// there: a directory ([`Resolver::enter`]) or a link ([`Resolver::follow`]). What to do about
/// anything else is the caller's policy.
///
/// Terminates because each name consumes a component, and only links add some, of which there
/// are at most [`MAX_LINKS`]. All that it costs is in proportion to the steps, of which a build
/// has so many: forty links can have eighty thousand.
pub struct Resolver<'s> {
    /// The directories on the way, without the root, each with its name.
    stack: Vec<(DirId, Name)>,
    /// What is left of the path, the next component last.
    left: Vec<Step>,
    followed: usize,
    steps: &'s Steps,
}

impl<'s> Resolver<'s> {
    /// Stands at the root, with all of `path` to go.
    ///
    /// # Errors
    /// When `steps` has less than there are components.
    pub fn new(path: &[Name], steps: &'s Steps) -> Result<Self, TooManySteps> {
        steps.take(path.len())?;
        let left = path.iter().rev().cloned().map(Step::Into).collect();
        Ok(Self { stack: Vec::new(), left, followed: 0, steps })
    }

    /// As [`Resolver::new`], with a path that may have `..`.
    ///
    /// # Errors
    /// When a component is not a name, or `steps` has less than there are components.
    pub fn parse(path: &[u8], steps: &'s Steps) -> Result<Self, Stuck> {
        let mut resolver = Self { stack: Vec::new(), left: Vec::new(), followed: 0, steps };
        resolver.add(path)?;
        Ok(resolver)
    }

    /// The directory to look in and the name to look for; `None` at the path's end.
    pub fn next_name(&mut self) -> Option<(DirId, Name)> {
        loop {
            match self.left.pop()? {
                Step::Into(name) => return Some((self.dir(), name)),
                Step::Up => drop(self.stack.pop()),
            }
        }
    }

    /// Whether nothing is left behind the name that came last.
    pub fn is_last(&self) -> bool {
        self.left.is_empty()
    }

    /// The name that came last is that of the directory `dir`.
    pub fn enter(&mut self, dir: DirId, name: Name) {
        self.stack.push((dir, name));
    }

    /// The name that came last is that of a symbolic link to `target`.
    ///
    /// # Errors
    /// When the link is one too many, its target cannot be a path, or there are no more steps.
    pub fn follow(&mut self, target: &[u8]) -> Result<(), Stuck> {
        self.followed += 1;
        if self.followed > MAX_LINKS {
            return Err(Stuck::Loop);
        }
        self.add(target)?;
        if target.starts_with(b"/") {
            self.stack.clear();
        }
        Ok(())
    }

    /// Puts the components of `path` in front of what is left.
    fn add(&mut self, path: &[u8]) -> Result<(), Stuck> {
        let before = self.left.len();
        let parts = path.split(|b| *b == b'/').rev();
        for part in parts.filter(|part| !part.is_empty() && *part != b".") {
            self.left.push(if part == b".." { Step::Up } else { Step::Into(Name::new(part)?) });
        }
        Ok(self.steps.take(self.left.len() - before)?)
    }

    /// The directory that the path has led to so far.
    pub fn dir(&self) -> DirId {
        self.stack.last().map_or(DirId::ROOT, |(dir, _)| *dir)
    }

    /// How many directories below the root that is.
    pub fn depth(&self) -> u64 {
        self.stack.len() as u64
    }

    /// The directories on the way there, without the root.
    pub fn dirs(&self) -> impl Iterator<Item = DirId> {
        self.stack.iter().map(|(dir, _)| *dir)
    }

    /// Where that is, without any symbolic link.
    pub fn path(&self) -> GuestPath {
        GuestPath(self.stack.iter().map(|(_, name)| name.clone()).collect())
    }

    /// The directory that was entered last is left again: returns its name.
    pub fn leave(&mut self) -> Option<Name> {
        self.stack.pop().map(|(_, name)| name)
    }
}
