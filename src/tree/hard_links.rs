//! Hard links of a layer whose targets only the layers below can tell.

use std::collections::{HashMap, HashSet};

use super::links::{self, MAX_LINKS, Step};
use super::merge::MergeError;
use super::{GuestPath, InodeId, Kind, Tree};

type Result<T, E = MergeError> = std::result::Result<T, E>;

/// Where a hard link ends.
#[derive(Clone, Copy)]
pub enum End {
    /// In the layer itself.
    Own(InodeId),
    /// In the tree below.
    Lower(InodeId),
}

/// Finds where the hard links of `layer` end, in it or in the tree of all below.
pub struct HardLinks<'t, C> {
    layer: &'t Tree<C>,
    lower: &'t Tree<C>,
    /// Where links end that were followed already.
    ends: HashMap<InodeId, End>,
}

impl<'t, C> HardLinks<'t, C> {
    pub fn new(layer: &'t Tree<C>, lower: &'t Tree<C>) -> Self {
        Self { layer, lower, ends: HashMap::new() }
    }

    /// What the hard link `id`, which is called `path`, is a further name of.
    ///
    /// A link to a link ends where that one does, whoever asks; so each is followed
    /// once, and one that is met twice leads in a circle.
    pub fn end(&mut self, id: InodeId, path: &GuestPath) -> Result<End> {
        let mut chain = HashSet::new();
        let mut at = id;
        let end = loop {
            if let Some(end) = self.ends.get(&at) {
                break *end;
            }
            let Kind::LowerLink(target) = &self.layer.inode(at).kind else {
                break End::Own(at);
            };
            if !chain.insert(at) {
                let (path, target) = (path.shown(), target.shown());
                return Err(MergeError::LinkLoop { path, target });
            }
            let nowhere = || MergeError::LinkNowhere { path: path.shown(), target: target.shown() };
            let place = self.layer.order.inode(at);
            match self.find(target, path, place)?.ok_or_else(nowhere)? {
                End::Own(next) if self.layer.dir(next).is_some() => {
                    return Err(MergeError::LinkToDir(path.shown()));
                }
                End::Lower(lower) if self.lower.dir(lower).is_some() => {
                    return Err(MergeError::LinkToDir(path.shown()));
                }
                End::Own(next) if matches!(self.layer.inode(next).kind, Kind::LowerLink(_)) => {
                    at = next;
                }
                end => break end,
            }
        };
        self.ends.extend(chain.into_iter().map(|link| (link, end)));
        Ok(end)
    }

    /// What `path` names for a hard link that is the layer's entry number `place`:
    /// what the layer had by then, else what is below, else what the layer has
    /// later. What the layer hides counts too, because a name may be hidden and
    /// kept under another.
    fn find(&self, path: &GuestPath, from: &GuestPath, place: u32) -> Result<Option<End>> {
        let root = (Some(InodeId::ROOT), Some(InodeId::ROOT));
        let mut stack = vec![root];
        let mut steps: Vec<Step> = path.0.iter().rev().cloned().map(Step::Into).collect();
        let mut followed = 0;
        while let Some(step) = steps.pop() {
            let Step::Into(name) = step else {
                if stack.len() > 1 {
                    stack.pop();
                }
                continue;
            };
            let (own_dir, lower_dir) = *stack.last().expect("the root stays");
            let own = own_dir.and_then(|id| self.layer.dir(id)?.entries.get(&name).copied());
            let below = lower_dir.and_then(|id| self.lower.dir(id)?.entries.get(&name).copied());
            let own = own.filter(|id| !matches!(self.layer.inode(*id).kind, Kind::Whiteout));
            if steps.is_empty() {
                // The last component is not followed.
                let own = own.zip(own_dir).filter(|(id, _)| !self.layer.is_hollow(*id));
                let own = own.map(|(id, dir)| (id, self.layer.order.of(dir, &name, id)));
                return Ok(match (own, below) {
                    (Some((id, own)), _) if own < place => Some(End::Own(id)),
                    (_, Some(id)) => Some(End::Lower(id)),
                    (Some((id, own)), None) if own > place => Some(End::Own(id)),
                    _ => None,
                });
            }
            // What the layer has on the way only later counts if nothing else is there.
            let in_time = |id: &InodeId| match own_dir {
                Some(dir) if self.layer.dir(*id).is_none() => {
                    below.is_none() || self.layer.order.of(dir, &name, *id) < place
                }
                _ => true,
            };
            let own = own.filter(in_time);
            let own_kind = own.map(|id| &self.layer.inode(id).kind);
            let below_kind = below.map(|id| &self.lower.inode(id).kind);
            let link = match (own_kind, below_kind) {
                (Some(Kind::Symlink(target)), _) => Some(target),
                (Some(Kind::Dir(_)), _) => None,
                (_, Some(Kind::Symlink(target))) => Some(target),
                _ => None,
            };
            if let Some(target) = link {
                followed += 1;
                if followed > MAX_LINKS {
                    return Err(MergeError::Loop(from.shown()));
                }
                if target.starts_with(b"/") {
                    stack.truncate(1);
                }
                let more = links::steps(target);
                steps.extend(more.map_err(|_| MergeError::LinkTarget(from.shown()))?);
                continue;
            }
            let own = own.filter(|_| matches!(own_kind, Some(Kind::Dir(_))));
            let below = below.filter(|_| matches!(below_kind, Some(Kind::Dir(_))));
            if own.is_none() && below.is_none() {
                return Ok(None);
            }
            stack.push((own, below));
        }
        Ok(Some(End::Lower(InodeId::ROOT)))
    }
}
