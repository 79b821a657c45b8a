//! Guest paths to what they name, as the kernel would find it inside the root.

use anyhow::{Result, anyhow, bail, ensure};
use bundle::boot::lenient::Flag;
use fsimage::tree::resolve::{Resolver, Stuck};
use fsimage::tree::{DirId, GuestPath, InodeId, Kind, Name};

use super::work::Work;
use crate::patch::shown::{kind_name, shown};

/// Where a path leads.
#[derive(Clone, Debug)]
pub(super) struct Resolved {
    /// The directory that has, or would have, the name; of the root: the root.
    pub dir: DirId,
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
    /// Finds what `path` names.
    pub(super) fn find(&mut self, path: &[u8], last: Last, parents: Parents) -> Result<Resolved> {
        let mut resolver = Resolver::parse(path, &self.environment.budgets.steps)?;
        let mut linked = false;
        while let Some((dir, name)) = resolver.next_name() {
            let id = self.entries(dir).get(&name).copied();
            let is_last = resolver.is_last();
            let here = || resolver.path().join(&name);
            match id.map(|id| (id, &self.tree.inode(id).kind)) {
                Some((_, Kind::Symlink(target))) if !is_last || last == Last::Follow => {
                    linked |= is_last;
                    match resolver.follow(target) {
                        Ok(()) => {}
                        Err(Stuck::Steps(error)) => return Err(error.into()),
                        Err(stuck) => bail!("{}: {stuck}", shown(&resolver.path().join(&name))),
                    }
                }
                Some((id, kind)) => match self.tree.dir_id(id) {
                    Some(dir) => resolver.enter(dir, name),
                    None if is_last => {
                        let path = here();
                        return Ok(Resolved { dir, path, name: Some(name), id: Some(id), linked });
                    }
                    None => {
                        let what = kind_name(kind);
                        bail!(Nowhere(format!("{} is {what}, not a directory", shown(&here()))))
                    }
                },
                None if is_last => {
                    let path = here();
                    return Ok(Resolved { dir, path, name: Some(name), id: None, linked });
                }
                None => {
                    let path = here();
                    match parents {
                        Parents::Need => bail!(Nowhere(format!("there is no {}", shown(&path)))),
                        Parents::Offer => {
                            bail!("there is no {} (parents: true makes it)", shown(&path))
                        }
                        Parents::Make => {}
                    }
                    let dir = self.add_plain_dir(dir, name.clone(), &path)?;
                    resolver.enter(dir, name);
                }
            }
        }
        let (path, id) = (resolver.path(), resolver.dir().inode());
        let name = resolver.leave();
        Ok(Resolved { dir: resolver.dir(), name, id: Some(id), path, linked })
    }

    /// What is at `path`, which must be there, links followed.
    pub(super) fn existing(&mut self, path: &str) -> Result<(Resolved, InodeId)> {
        let found = self.find(path.as_bytes(), Last::Follow, Parents::Need)?;
        let id = found.existing()?;
        Ok((found, id))
    }

    /// What was found, which must be a directory.
    pub(super) fn found_dir(&self, found: &Resolved) -> Result<DirId> {
        self.as_dir(found.existing()?, found)
    }

    /// `id`, which is at `found`, as a directory.
    pub(super) fn as_dir(&self, id: InodeId, found: &Resolved) -> Result<DirId> {
        self.tree.dir_id(id).ok_or_else(|| {
            let what = kind_name(&self.tree.inode(id).kind);
            anyhow!("{} is {what}, not a directory", shown(&found.path))
        })
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
