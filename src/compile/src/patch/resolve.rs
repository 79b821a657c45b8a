//! Guest paths to what they name, as the kernel would find it inside the root.

use anyhow::{Result, anyhow, bail, ensure};
use bundle::boot::lenient::Flag;
use fsimage::tree::links::{self, MAX_LINKS, Step};
use fsimage::tree::{GuestPath, InodeId, Kind, Name};

use super::work::Work;
use crate::patch::shown::{kind_name, shown};

/// Where a path leads.
#[derive(Clone, Debug)]
pub(super) struct Resolved {
    /// The directory that has, or would have, the name; of the root: the root.
    pub dir: InodeId,
    /// `None` for the root.
    pub name: Option<Name>,
    /// What is there.
    pub id: Option<InodeId>,
    /// The path without any symbolic link.
    pub path: GuestPath,
    /// Whether the path ended in a symbolic link, which was followed.
    pub linked: bool,
}

/// A path that leads nowhere.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Nowhere(pub String);

/// What to do with a symbolic link that a path ends in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Last {
    Follow,
    Keep,
}

/// What to do where a directory on the way is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Parents {
    /// An error.
    Need,
    /// An error that tells of the option that makes them.
    Offer,
    Make,
}

impl Parents {
    pub(super) fn of(Flag(make): Flag) -> Self {
        if make { Self::Make } else { Self::Offer }
    }
}

impl Resolved {
    /// What is there.
    pub(super) fn existing(&self) -> Result<InodeId> {
        self.id.ok_or_else(|| Nowhere(format!("there is no {}", shown(&self.path))).into())
    }

    /// Whether the name is free for something new. That to which a dangling symbolic link
    /// leads is an error.
    pub(super) fn is_free(&self) -> Result<bool> {
        let dangling = self.linked && self.id.is_none();
        ensure!(!dangling, "a symbolic link leads to {}, which is not there", shown(&self.path));
        Ok(self.id.is_none())
    }

    /// The name that something can get or lose.
    pub(super) fn entry(&self) -> Result<&Name> {
        self.name.as_ref().ok_or_else(|| anyhow!("this is the root itself"))
    }
}

impl Work<'_> {
    /// Finds what `wanted`, a path, names.
    ///
    /// Terminates because each round takes one step away, and steps are added only by
    /// symbolic links, of which `MAX_LINKS` are followed.
    pub(super) fn find(&mut self, wanted: &[u8], last: Last, parents: Parents) -> Result<Resolved> {
        let budget = &self.environment.budgets.steps;
        let mut stack: Vec<(InodeId, Name)> = Vec::new();
        let mut steps = links::steps(wanted)?;
        budget.take(steps.len())?;
        let mut followed = 0;
        let mut linked = false;
        while let Some(step) = steps.pop() {
            let Step::Into(name) = step else {
                stack.pop();
                continue;
            };
            let dir = stack.last().map_or(InodeId::ROOT, |(id, _)| *id);
            let id = self.entries(dir).get(&name).copied();
            let is_last = steps.is_empty();
            match id.map(|id| (id, &self.tree.inode(id).kind)) {
                Some((_, Kind::Symlink(target))) if !is_last || last == Last::Follow => {
                    followed += 1;
                    linked |= is_last;
                    let here = || shown(&below(&stack, &name));
                    ensure!(followed <= MAX_LINKS, "{}: symbolic links lead in a circle", here());
                    let more = links::steps(target);
                    let more = more.map_err(|error| anyhow!("{}: {error}", here()))?;
                    budget.take(more.len())?;
                    if target.starts_with(b"/") {
                        stack.clear();
                    }
                    steps.extend(more);
                }
                Some((id, Kind::Dir(_))) => stack.push((id, name)),
                _ if is_last => {
                    let path = below(&stack, &name);
                    return Ok(Resolved { dir, path, name: Some(name), id, linked });
                }
                Some((_, kind)) => {
                    let path = shown(&below(&stack, &name));
                    bail!(Nowhere(format!("{path} is {}, not a directory", kind_name(kind))))
                }
                None => {
                    let path = below(&stack, &name);
                    match parents {
                        Parents::Need => bail!(Nowhere(format!("there is no {}", shown(&path)))),
                        Parents::Offer => {
                            bail!("there is no {} (parents: true makes it)", shown(&path))
                        }
                        Parents::Make => {}
                    }
                    let made = self.add_plain_dir(dir, name.clone(), &path)?;
                    stack.push((made, name));
                }
            }
        }
        let path = GuestPath(stack.iter().map(|(_, name)| name.clone()).collect());
        let id = stack.last().map_or(InodeId::ROOT, |(id, _)| *id);
        let name = stack.pop().map(|(_, name)| name);
        let dir = stack.last().map_or(InodeId::ROOT, |(id, _)| *id);
        Ok(Resolved { dir, name, id: Some(id), path, linked })
    }

    /// What is at `path`, which must be there, links followed.
    pub(super) fn existing(&mut self, path: &str) -> Result<(Resolved, InodeId)> {
        let found = self.find(path.as_bytes(), Last::Follow, Parents::Need)?;
        let id = found.existing()?;
        Ok((found, id))
    }

    /// What was found, which must be a directory.
    pub(super) fn found_dir(&self, found: &Resolved) -> Result<InodeId> {
        let id = found.existing()?;
        match &self.tree.inode(id).kind {
            Kind::Dir(_) => Ok(id),
            other => bail!("{} is {}, not a directory", shown(&found.path), kind_name(other)),
        }
    }

    /// The regular file at `path`, which must be there, links followed.
    pub(super) fn file(&mut self, path: &str) -> Result<(Resolved, InodeId)> {
        let (found, id) = self.existing(path)?;
        match &self.tree.inode(id).kind {
            Kind::File(_) => Ok((found, id)),
            other => bail!("{} is {}, not a file", shown(&found.path), kind_name(other)),
        }
    }
}

fn below(stack: &[(InodeId, Name)], name: &Name) -> GuestPath {
    GuestPath(stack.iter().map(|(_, name)| name).chain([name]).cloned().collect())
}
