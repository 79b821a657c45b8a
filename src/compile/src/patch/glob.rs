//! Globs over the tree.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;

use anyhow::{Result, ensure};
use fsimage::tree::{InodeId, Name};
use globset::{GlobBuilder, GlobMatcher};

use super::resolve::{Found, Last, Nowhere, Parents};
use super::work::Work;

/// What may match a name.
pub enum Pattern {
    Glob(GlobMatcher),
    /// `**`: no directory, or any number of them.
    Any,
}

/// Whether `part` stands for more than itself.
fn is_glob(part: &[u8]) -> bool {
    part.iter().any(|b| matches!(b, b'*' | b'?' | b'[' | b'{' | b'\\'))
}

/// A matcher of names.
pub fn matcher(pattern: &str) -> Result<GlobMatcher> {
    // Backslashes escape, on every host.
    let glob = GlobBuilder::new(pattern).backslash_escape(true).literal_separator(true).build()?;
    Ok(glob.compile_matcher())
}

pub fn fits(matcher: &GlobMatcher, name: &[u8]) -> bool {
    matcher.is_match(OsStr::from_bytes(name))
}

impl Work<'_> {
    /// What the path or glob `pattern` names, by path; at least one thing.
    pub fn glob(&mut self, pattern: &str, last: Last) -> Result<Vec<Found>> {
        match self.find(pattern.as_bytes(), last, Parents::Need) {
            Ok(found) if found.id.is_some() => return Ok(vec![found]),
            Ok(found) if !is_glob(pattern.as_bytes()) => {
                found.existing()?;
            }
            Err(error) if !is_glob(pattern.as_bytes()) => return Err(error),
            _ => {}
        }
        let mut paths: Vec<Vec<u8>> = vec![Vec::new()];
        let mut parts: Vec<&str> = pattern.split('/').filter(|part| !part.is_empty()).collect();
        if parts.last() == Some(&"**") {
            // All that is below, and not the directory itself.
            parts.push("*");
        }
        for part in parts {
            let pattern = match part {
                "**" => Some(Pattern::Any),
                part if is_glob(part.as_bytes()) => Some(Pattern::Glob(matcher(part)?)),
                _ => None,
            };
            let mut next = Vec::new();
            for path in paths {
                let join = |name: &[u8]| [&path[..], b"/", name].concat();
                match &pattern {
                    None => next.push(join(part.as_bytes())),
                    Some(Pattern::Glob(matcher)) => {
                        let names = self.names(&path);
                        next.extend(
                            names
                                .iter()
                                .filter(|n| fits(matcher, n.as_bytes()))
                                .map(|n| join(n.as_bytes())),
                        );
                    }
                    Some(Pattern::Any) => next.extend(self.dirs_below(&path)),
                }
            }
            // Two of `**` come to a directory on many ways.
            next.sort();
            next.dedup();
            paths = next;
        }
        let mut all: Vec<Found> = Vec::new();
        for path in paths {
            // A literal part behind a glob need not be there below each match.
            if let Ok(found) = self.find(&path, last, Parents::Need)
                && found.id.is_some()
            {
                all.push(found);
            }
        }
        all.sort_by(|a, b| a.path.cmp(&b.path));
        all.dedup_by(|a, b| a.path == b.path);
        ensure!(!all.is_empty(), Nowhere("nothing fits it".into()));
        Ok(all)
    }

    /// The names in the directory that `path` leads to; none if it is no directory.
    fn names(&mut self, path: &[u8]) -> Vec<Name> {
        let id = self.find(path, Last::Follow, Parents::Need).ok().and_then(|found| found.id);
        let dir = id.and_then(|id| self.tree.dir(id));
        dir.map_or_else(Vec::new, |dir| dir.entries.keys().cloned().collect())
    }

    /// `path` and every directory below it, symbolic links not followed.
    fn dirs_below(&mut self, path: &[u8]) -> Vec<Vec<u8>> {
        let id = self.find(path, Last::Follow, Parents::Need).ok().and_then(|found| found.id);
        let Some(id) = id.filter(|id| self.tree.dir(*id).is_some()) else {
            return Vec::new();
        };
        let mut all = Vec::new();
        let mut dirs: Vec<(InodeId, Vec<u8>)> = vec![(id, path.to_vec())];
        while let Some((id, path)) = dirs.pop() {
            for (name, child) in self.entries(id) {
                if self.tree.dir(*child).is_some() {
                    dirs.push((*child, [&path[..], b"/", name.as_bytes()].concat()));
                }
            }
            all.push(path);
        }
        all
    }
}
