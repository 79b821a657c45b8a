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

#[derive(Debug)]
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
#[derive(Debug)]
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::arena::Tree;
    use crate::tree::inode::{Kind, Stat};

    fn name(text: &str) -> Name {
        Name::new(text.as_bytes()).unwrap()
    }

    /// Where `path` leads, all of it directories and links.
    fn resolve(tree: &Tree<()>, path: &[u8], steps: &Steps) -> Result<String, Stuck> {
        let mut resolver = Resolver::parse(path, steps)?;
        while let Some((dir, name)) = resolver.next_name() {
            let id = tree[dir].entries[&name];
            match &tree.inode(id).kind {
                Kind::Symlink(target) => resolver.follow(target)?,
                _ => resolver.enter(tree.dir_id(id).unwrap(), name),
            }
        }
        Ok(resolver.path().to_string())
    }

    #[test]
    fn links_lead_from_where_they_are_and_never_out_of_the_root() {
        let mut tree: Tree<()> = Tree::new(Stat::IMPLIED_DIR);
        let a = tree.add_dir(DirId::ROOT, name("a"), Stat::IMPLIED_DIR).unwrap();
        let b = tree.add_dir(a, name("b"), Stat::IMPLIED_DIR).unwrap();
        for (dir, at, target) in [
            (b, "up", "../.."),
            (b, "root", "/../.."),
            (b, "sibling", "../b/./"),
            (a, "again", "/a/again"),
            (a, "long", &"x".repeat(256)),
        ] {
            let mut link = tree.inode(dir.inode()).clone();
            link.kind = Kind::Symlink(target.as_bytes().into());
            tree.add(dir, name(at), link).unwrap();
        }
        let steps = Steps::new(1000);
        let leads = |path: &str| resolve(&tree, path.as_bytes(), &steps);
        assert_eq!(leads("/../a/b").unwrap(), "a/b");
        assert_eq!(leads("a/b/up/a").unwrap(), "a");
        assert_eq!(leads("a/b/root").unwrap(), "/");
        assert_eq!(leads("a/b/sibling/sibling").unwrap(), "a/b");
        assert!(matches!(leads("a/again"), Err(Stuck::Loop)));
        assert!(matches!(leads("a/long"), Err(Stuck::Target(BadName::Long(256)))));
        assert!(matches!(resolve(&tree, b"a/b", &Steps::new(1)), Err(Stuck::Steps(_))));
    }
}
