//! Prepares a layer for its merge: resolves what needs the layers below.
//!
//! A directory that a layer only implies may be a symbolic link below. Its
//! entries then belong where the link leads, so they are moved there within
//! the layer's own tree. Links to files below are looked up.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::links::{self, MAX_LINKS, Step};
use super::merge::{MergeError, Notes};
use super::{DROPPED_XATTRS, Dir, GuestPath, Inode, InodeId, Kind, Name, Stat, Tree, Xattrs};

/// A directory of the layer, and what is below it.
#[derive(Clone)]
struct Place {
    layer: InodeId,
    lower: Option<InodeId>,
    /// Index of the parent's place, and the name in it; the root is its own.
    parent: usize,
    name: Option<Name>,
}

/// Resolves one layer against the tree of all below.
pub struct Graft<'t, C> {
    layer: &'t mut Tree<C>,
    lower: &'t Tree<C>,
    places: Vec<Place>,
    /// Lower inodes that links of the layer lead to.
    pub links: HashMap<InodeId, InodeId>,
    /// Implied directories of the layer in which there are only whiteouts: where
    /// nothing is below, they are nothing either.
    pub hollow: HashSet<InodeId>,
    pub notes: Notes,
}

type Result<T, E = MergeError> = std::result::Result<T, E>;

impl<'t, C> Graft<'t, C> {
    pub fn new(layer: &'t mut Tree<C>, lower: &'t Tree<C>) -> Self {
        let root = InodeId::ROOT;
        let place = Place { layer: root, lower: Some(root), parent: 0, name: None };
        let places = vec![place];
        let (links, hollow, notes) = (HashMap::new(), HashSet::new(), Notes::default());
        Self { layer, lower, places, links, hollow, notes }
    }

    pub fn run(&mut self) -> Result<()> {
        self.move_entries_behind_links()?;
        self.survey()
    }

    fn move_entries_behind_links(&mut self) -> Result<()> {
        let mut todo = vec![0];
        // Directories that got entries, each walked again once for all of them.
        let mut again: BTreeMap<InodeId, usize> = BTreeMap::new();
        loop {
            let Some(at) = todo.pop() else {
                todo.extend(std::mem::take(&mut again).into_values());
                if todo.is_empty() {
                    return Ok(());
                }
                continue;
            };
            let Place { layer, lower: Some(lower), .. } = self.places[at].clone() else {
                continue;
            };
            let dir = self.layer.dir(layer).expect("a place is a directory");
            if dir.opaque {
                continue;
            }
            let lower = self.lower.dir(lower).expect("a place is a directory");
            let mut through = Vec::new();
            let mut common = Vec::new();
            for (name, id) in &dir.entries {
                let (Some(child), Some(below)) = (self.layer.dir(*id), lower.entries.get(name))
                else {
                    continue;
                };
                match &self.lower.inode(*below).kind {
                    Kind::Dir(_) => common.push((name.clone(), *id, *below)),
                    Kind::Symlink(target) if child.implied => {
                        through.push((name.clone(), *id, target.clone()));
                    }
                    _ => {}
                }
            }
            for (name, id, below) in common {
                todo.push(self.enter(at, name, id, Some(below)));
            }
            for (name, id, target) in through {
                self.layer.dir_mut(layer).expect("a place is a directory").entries.remove(&name);
                let from = self.path(at, Some(&name));
                let moved = self.layer.dir(id).expect("only directories are moved");
                let moved: Vec<Name> = moved.entries.keys().cloned().collect();
                let first = moved.first().map_or_else(|| from.clone(), |name| from.join(name));
                let to = self.resolve(at, &target, &first)?;
                let whole = self.path(to, None);
                let notes = moved.iter().map(|name| (from.join(name), whole.join(name)));
                self.notes.through_links.extend(notes);
                self.unite(id, self.places[to].layer);
                again.insert(self.places[to].layer, to);
            }
        }
    }

    fn enter(
        &mut self,
        parent: usize,
        name: Name,
        layer: InodeId,
        lower: Option<InodeId>,
    ) -> usize {
        self.places.push(Place { layer, lower, parent, name: Some(name) });
        self.places.len() - 1
    }

    fn path(&self, mut at: usize, name: Option<&Name>) -> GuestPath {
        let mut names: Vec<Name> = name.cloned().into_iter().collect();
        while let Some(name) = &self.places[at].name {
            names.push(name.clone());
            at = self.places[at].parent;
        }
        names.reverse();
        GuestPath(names)
    }

    /// The place that a link with `target` in the directory `at` leads to.
    /// Directories that are missing there become implied ones of the layer.
    fn resolve(&mut self, at: usize, target: &[u8], from: &GuestPath) -> Result<usize> {
        let bad_target = |_| MergeError::LinkTarget(from.to_string());
        let mut at = if target.starts_with(b"/") { 0 } else { at };
        let mut steps = links::steps(target).map_err(bad_target)?;
        let mut followed = 1;
        while let Some(step) = steps.pop() {
            let Step::Into(name) = step else {
                at = self.places[at].parent;
                continue;
            };
            let Place { layer, lower, .. } = self.places[at];
            let dir = self.layer.dir(layer).expect("a place is a directory");
            let own = dir.entries.get(&name).copied();
            let below = match lower.and_then(|id| self.lower.dir(id)) {
                Some(lower) if !dir.opaque => lower.entries.get(&name).copied(),
                _ => None,
            };
            let below_kind = below.map(|id| &self.lower.inode(id).kind);
            let below_dir = below.filter(|_| matches!(below_kind, Some(Kind::Dir(_))));
            let link = match (own.map(|id| &self.layer.inode(id).kind), below_kind) {
                (Some(Kind::Symlink(target)), _) => Some(target.clone()),
                (Some(Kind::Dir(dir)), Some(Kind::Symlink(target))) if dir.implied => {
                    Some(target.clone())
                }
                (None, Some(Kind::Symlink(target))) => Some(target.clone()),
                _ => None,
            };
            if let Some(target) = link {
                followed += 1;
                if followed > MAX_LINKS {
                    return Err(MergeError::Loop(from.to_string()));
                }
                if target.starts_with(b"/") {
                    at = 0;
                }
                steps.extend(links::steps(&target).map_err(bad_target)?);
                continue;
            }
            at = match own {
                Some(id) if self.layer.dir(id).is_some() => self.enter(at, name, id, below_dir),
                // A name that the layer has for something else, or hides.
                Some(_) => {
                    let id = self.new_dir(layer, &name, false)?;
                    self.enter(at, name, id, None)
                }
                None => {
                    let id = self.new_dir(layer, &name, true)?;
                    self.enter(at, name, id, below_dir)
                }
            };
        }
        Ok(at)
    }

    fn new_dir(&mut self, parent: InodeId, name: &Name, implied: bool) -> Result<InodeId> {
        let kind = Kind::Dir(Dir { opaque: !implied, implied, ..Dir::default() });
        let inode = Inode { stat: Stat::IMPLIED_DIR, xattrs: Xattrs::default(), kind };
        let id = self.layer.push(inode)?;
        self.entries(parent).insert(name.clone(), id);
        Ok(id)
    }

    fn entries(&mut self, dir: InodeId) -> &mut BTreeMap<Name, InodeId> {
        &mut self.layer.dir_mut(dir).expect("a place is a directory").entries
    }

    /// Moves what directory `from` has into directory `to`, both of the layer.
    fn unite(&mut self, from: InodeId, to: InodeId) {
        let mut pairs = vec![(from, to)];
        while let Some((from, to)) = pairs.pop() {
            let (stat, xattrs) = {
                let inode = self.layer.inode(from);
                (inode.stat, inode.xattrs.clone())
            };
            let source = std::mem::take(self.layer.dir_mut(from).expect("pairs are directories"));
            let target = self.layer.inode_mut(to);
            if !source.implied {
                (target.stat, target.xattrs) = (stat, xattrs);
            }
            if let Kind::Dir(dir) = &mut target.kind {
                dir.implied &= source.implied;
                dir.opaque |= source.opaque;
            }
            for (name, id) in source.entries {
                let Some(known) = self.entries(to).get(&name).copied() else {
                    self.entries(to).insert(name, id);
                    continue;
                };
                let hides = matches!(self.layer.inode(id).kind, Kind::Whiteout);
                let hidden = matches!(self.layer.inode(known).kind, Kind::Whiteout);
                match (self.layer.dir(id).is_some(), self.layer.dir(known).is_some()) {
                    (true, true) => pairs.push((id, known)),
                    // What one side hides, the other has anew, if it has anything.
                    (_, true) if hides && self.layer.is_hollow(known) => {
                        self.entries(to).insert(name, id);
                    }
                    (_, true) if hides => self.start_empty(known),
                    (true, _) if hidden && self.layer.is_hollow(id) => {}
                    (true, _) if hidden => {
                        self.start_empty(id);
                        self.entries(to).insert(name, id);
                    }
                    _ if hides => {}
                    _ => {
                        self.entries(to).insert(name, id);
                    }
                }
            }
        }
    }

    fn start_empty(&mut self, dir: InodeId) {
        let dir = self.layer.dir_mut(dir).expect("the caller has checked");
        (dir.opaque, dir.implied) = (true, false);
    }

    /// Walks the whole layer for links below and dropped xattrs.
    fn survey(&mut self) -> Result<()> {
        let mut dirs = vec![(InodeId::ROOT, GuestPath::default())];
        let mut found = Vec::new();
        let mut noted = Vec::new();
        let mut order = Vec::new();
        while let Some((id, path)) = dirs.pop() {
            order.push(id);
            if let Some(names) = self.layer.inode(id).xattrs.get(DROPPED_XATTRS) {
                self.notes.dropped_xattrs.push((path.clone(), names.into()));
                noted.push(id);
            }
            let dir = self.layer.dir(id).expect("only directories are pushed");
            for (name, child) in &dir.entries {
                let inode = self.layer.inode(*child);
                let path = || path.join(name);
                match &inode.kind {
                    Kind::Dir(_) => dirs.push((*child, path())),
                    Kind::LowerLink(target) => {
                        found.push((id, name.clone(), *child, path(), target.clone()))
                    }
                    _ => {
                        if let Some(names) = inode.xattrs.get(DROPPED_XATTRS) {
                            self.notes.dropped_xattrs.push((path(), names.into()));
                            noted.push(*child);
                        }
                    }
                }
            }
        }
        // Children come behind their parents in `order`.
        for id in order.into_iter().rev() {
            let dir = self.layer.dir(id).expect("only directories are in order");
            let hides = |child: &InodeId| {
                matches!(self.layer.inode(*child).kind, Kind::Whiteout)
                    || self.hollow.contains(child)
            };
            if dir.implied && dir.entries.values().all(hides) {
                self.hollow.insert(id);
            }
        }
        for id in noted {
            self.layer.inode_mut(id).xattrs.remove(DROPPED_XATTRS);
        }
        for (dir, name, id, path, target) in found {
            match self.link_target(&path, &target)? {
                End::Own(own) => {
                    self.entries(dir).insert(name, own);
                }
                End::Lower(lower) => {
                    self.links.insert(id, lower);
                }
            }
        }
        self.notes.dropped_xattrs.sort();
        self.notes.dropped_xattrs.dedup();
        self.notes.through_links.sort();
        Ok(())
    }

    /// What a hard link named `path` to `target` is a further name of.
    fn link_target(&self, path: &GuestPath, target: &GuestPath) -> Result<End> {
        let mut target = target.clone();
        for _ in 0..=self.layer.len() {
            let nowhere =
                || MergeError::LinkNowhere { path: path.to_string(), target: target.to_string() };
            match self.find(&target, path)?.ok_or_else(nowhere)? {
                End::Own(id) => match &self.layer.inode(id).kind {
                    Kind::Dir(_) => return Err(MergeError::LinkToDir(path.to_string())),
                    Kind::LowerLink(next) if *next != target => target = next.clone(),
                    Kind::LowerLink(_) => return Err(nowhere()),
                    _ => return Ok(End::Own(id)),
                },
                End::Lower(id) if self.lower.dir(id).is_some() => {
                    return Err(MergeError::LinkToDir(path.to_string()));
                }
                found => return Ok(found),
            }
        }
        Err(MergeError::Loop(path.to_string()))
    }

    /// What `path` names, the layer's own entries first; what the layer hides
    /// counts too, because a name may be hidden and kept under another.
    fn find(&self, path: &GuestPath, from: &GuestPath) -> Result<Option<End>> {
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
                // The last component is not followed. A link that names itself
                // means what is below.
                let own_is_self = own.is_some_and(|id| {
                    matches!(&self.layer.inode(id).kind, Kind::LowerLink(target) if target == path)
                });
                return Ok(match (own.filter(|_| !own_is_self), below) {
                    (Some(id), _) => Some(End::Own(id)),
                    (None, Some(id)) => Some(End::Lower(id)),
                    (None, None) => None,
                });
            }
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
                    return Err(MergeError::Loop(from.to_string()));
                }
                if target.starts_with(b"/") {
                    stack.truncate(1);
                }
                let more = links::steps(target);
                steps.extend(more.map_err(|_| MergeError::LinkTarget(from.to_string()))?);
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

/// Where a hard link ends.
enum End {
    /// In the layer itself.
    Own(InodeId),
    /// In the tree below.
    Lower(InodeId),
}
