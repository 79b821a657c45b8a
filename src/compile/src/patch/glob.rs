//! Globs over the tree.

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;

use anyhow::{Result, ensure};
use fsimage::tree::InodeId;
use fsimage::tree::weight::Weigh as _;
use globset::{GlobBuilder, GlobMatcher};

use super::resolve::{Last, Nowhere, Parents, Resolved};
use super::work::Work;

/// A component of a glob that stands for more than itself.
pub(super) enum Pattern {
    Glob(GlobMatcher),
    /// `**`: no directory, or any number of them.
    Any,
}

/// Whether `part` stands for more than itself.
fn is_glob(part: &[u8]) -> bool {
    part.iter().any(|b| matches!(b, b'*' | b'?' | b'[' | b'{' | b'\\'))
}

/// A matcher of names.
pub(super) fn matcher(pattern: &str) -> Result<GlobMatcher> {
    // Backslashes escape, on every host.
    let glob = GlobBuilder::new(pattern).backslash_escape(true).literal_separator(true).build()?;
    Ok(glob.compile_matcher())
}

pub(super) fn fits(matcher: &GlobMatcher, name: &[u8]) -> bool {
    matcher.is_match(OsStr::from_bytes(name))
}

impl Work<'_> {
    /// What the path or glob `pattern` names, by path; at least one thing.
    pub(super) fn glob(&mut self, pattern: &str, last: Last) -> Result<Vec<Resolved>> {
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
            let component = match part {
                "**" => Some(Pattern::Any),
                part if is_glob(part.as_bytes()) => Some(Pattern::Glob(matcher(part)?)),
                _ => None,
            };
            let mut next = Paths { all: Vec::new(), weight: weight(&paths) };
            for path in &paths {
                let join = |name: &[u8]| [&path[..], b"/", name].concat();
                if component.is_none() {
                    next.push(self, join(part.as_bytes()))?;
                    continue;
                }
                let found = self.find(path, Last::Follow, Parents::Need);
                let Some(dir) = found.ok().and_then(|found| found.id) else { continue };
                match &component {
                    Some(Pattern::Any) => self.dirs_below(dir, path, &mut next)?,
                    Some(Pattern::Glob(matcher)) => {
                        let names = self.tree.dir(dir).into_iter().flat_map(|d| d.entries.keys());
                        for name in names.filter(|name| fits(matcher, name.as_bytes())) {
                            next.push(self, join(name.as_bytes()))?;
                        }
                    }
                    None => {}
                }
            }
            // Two `**` reach a directory in more than one way.
            next.all.sort();
            next.all.dedup();
            paths = next.all;
        }
        let mut held = weight(&paths);
        let mut all: Vec<Resolved> = Vec::new();
        for path in paths {
            // A literal part behind a glob need not be there below each match.
            if let Ok(found) = self.find(&path, last, Parents::Need)
                && found.id.is_some()
            {
                held += size_of::<Resolved>() as u64 + found.path.weight();
                self.hold(held)?;
                all.push(found);
            }
        }
        all.sort_by(|a, b| a.path.cmp(&b.path));
        all.dedup_by(|a, b| a.path == b.path);
        ensure!(!all.is_empty(), Nowhere("nothing fits it".into()));
        Ok(all)
    }

    /// Adds `path`, which leads to `id`, and every directory below it, symbolic links
    /// not followed; nothing if it is no directory.
    fn dirs_below(&self, id: InodeId, path: &[u8], all: &mut Paths) -> Result<()> {
        let mut at = all.all.len();
        let Some(dir) = self.tree.dir_id(id) else {
            return Ok(());
        };
        all.push(self, path.to_vec())?;
        // The directories whose paths `all` has from `at` on.
        let mut dirs = VecDeque::from([dir]);
        while let Some(dir) = dirs.pop_front() {
            for (name, child) in self.entries(dir) {
                if let Some(child) = self.tree.dir_id(*child) {
                    all.push(self, [&all.all[at][..], b"/", name.as_bytes()].concat())?;
                    dirs.push_back(child);
                }
            }
            at += 1;
        }
        Ok(())
    }
}

/// Bytes of a path in a list of them, beyond its own.
const PATH: u64 = 64;

fn weight(paths: &[Vec<u8>]) -> u64 {
    paths.iter().map(|path| PATH + path.len() as u64).sum()
}

/// Paths that fit the part of a pattern, and those that fit the part before it.
struct Paths {
    all: Vec<Vec<u8>>,
    /// The weight of both lists.
    weight: u64,
}

impl Paths {
    fn push(&mut self, work: &Work<'_>, path: Vec<u8>) -> Result<()> {
        self.weight += PATH + path.len() as u64;
        work.hold(self.weight)?;
        self.all.push(path);
        Ok(())
    }
}
