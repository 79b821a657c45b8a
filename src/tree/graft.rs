//! Prepares a layer for its merge: resolves what needs the layers below.
//!
//! A directory that a layer only implies may be a symbolic link below. Its
//! entries then belong where the link leads, so they are moved there within
//! the layer's own tree. Links to files below are looked up.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::hard_links::{End, HardLinks};
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
                let dir = self.layer.dir_mut(id).expect("only directories are moved");
                if std::mem::take(&mut dir.hidden) {
                    // The link itself goes, and with it what its name hid.
                    let kind = Kind::Whiteout;
                    let stat = Stat::IMPLIED_DIR;
                    let hides = self.layer.push(Inode { stat, xattrs: Xattrs::default(), kind })?;
                    self.entries(layer).insert(name.clone(), hides);
                } else {
                    self.entries(layer).remove(&name);
                }
                let from = self.path(at, Some(&name));
                let moved = self.layer.dir(id).expect("only directories are moved");
                let first = moved.entries.keys().next();
                let first = first.map_or_else(|| from.clone(), |name| from.join(name));
                let Some(to) = self.resolve(at, &target, id, &first)? else {
                    continue;
                };
                let moved = self.layer.dir(id).expect("only directories are moved");
                let moved: Vec<Name> = moved.entries.keys().cloned().collect();
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

    /// The place that a link with `target` in the directory `at` leads to, for the
    /// entries of `moved`. Directories that are missing there become implied ones
    /// of the layer. Of `moved`, what came before something else on the way did is
    /// gone, as that took its place; `None` if nothing is left.
    ///
    /// Terminates because each step either consumes a component of a path or
    /// follows a link, and links are counted.
    fn resolve(
        &mut self,
        at: usize,
        target: &[u8],
        moved: InodeId,
        from: &GuestPath,
    ) -> Result<Option<usize>> {
        let bad_target = |_| MergeError::LinkTarget(from.shown());
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
            let own_kind = own.map(|id| &self.layer.inode(id).kind);
            let link = match (own_kind, below_kind) {
                (Some(Kind::Symlink(target)), _) => Some(target.clone()),
                (Some(Kind::Dir(dir)), Some(Kind::Symlink(target)))
                    if dir.implied && !dir.hidden =>
                {
                    Some(target.clone())
                }
                (None, Some(Kind::Symlink(target))) => Some(target.clone()),
                _ => None,
            };
            let is_other = |kind: &Kind<C>| !matches!(kind, Kind::Dir(_) | Kind::Whiteout);
            let replaced = own_kind.is_some_and(is_other);
            if let Some(own) = own.filter(|_| replaced) {
                let place = self.layer.order.of(layer, &name, own);
                if !self.layer.keep_later(moved, place) {
                    return Ok(None);
                }
            }
            if let Some(target) = link {
                followed += 1;
                if followed > MAX_LINKS {
                    return Err(MergeError::Loop(from.shown()));
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
                    self.layer.dir_mut(id).expect("it was just made").over_file = replaced;
                    self.enter(at, name, id, None)
                }
                None => {
                    let id = self.new_dir(layer, &name, true)?;
                    self.enter(at, name, id, below_dir)
                }
            };
        }
        Ok(Some(at))
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

    /// Moves what directory `from` has into directory `to`, both of the layer. Of
    /// two entries with one name, the later one of the tar stays.
    fn unite(&mut self, from: InodeId, to: InodeId) {
        let mut pairs = vec![(from, to)];
        while let Some((from, to)) = pairs.pop() {
            let source = std::mem::take(self.layer.dir_mut(from).expect("pairs are directories"));
            self.describe(from, &source, to);
            for (name, id) in source.entries {
                let link = self.layer.order.take_link(from, &name);
                let place = link.unwrap_or_else(|| self.layer.order.inode(id));
                let known = self.entries(to).get(&name).copied();
                if self.replaces(id, place, to, &name, known) {
                    self.layer.order.take_link(to, &name);
                    if let Some(place) = link {
                        self.layer.order.set_link(to, name.clone(), place);
                    }
                    self.entries(to).insert(name, id);
                } else if let Some(known) = known
                    && self.layer.dir(id).is_some()
                    && self.layer.dir(known).is_some()
                {
                    pairs.push((id, known));
                }
            }
        }
    }

    /// Gives `to` what the later of the entries for two directories says of them.
    fn describe(&mut self, from: InodeId, source: &Dir, to: InodeId) {
        let order = &self.layer.order;
        let (source_place, target_place) = (order.inode(from), order.inode(to));
        let hollow = source.implied && self.layer.is_hollow_dir(source);
        let inode = self.layer.inode(from);
        let (stat, xattrs) = (inode.stat, inode.xattrs.clone());
        let target = self.layer.inode_mut(to);
        let Kind::Dir(dir) = &mut target.kind else {
            return;
        };
        if dir.hidden && !hollow {
            // What its own layer has is not hidden, and nothing is below it.
            (dir.hidden, dir.implied, dir.opaque) = (false, false, true);
        }
        dir.opaque |= source.opaque;
        if !source.implied && (dir.implied || source_place > target_place) {
            dir.implied = false;
            (target.stat, target.xattrs) = (stat, xattrs);
        }
    }

    /// Whether `id` becomes `name` in `to`, where `known` is so far. Two
    /// directories become one, which is the caller's to do.
    fn replaces(
        &mut self,
        id: InodeId,
        place: u32,
        to: InodeId,
        name: &Name,
        known: Option<InodeId>,
    ) -> bool {
        let Some(known) = known else {
            return true;
        };
        let is_whiteout = |id| matches!(self.layer.inode(id).kind, Kind::Whiteout);
        let is_dir = |id| self.layer.dir(id).is_some();
        let known_place = self.layer.order.of(to, name, known);
        match (is_dir(id), is_dir(known)) {
            (true, true) => false,
            // What one side hides, the other has anew, if it has anything.
            (_, true) if is_whiteout(id) => {
                self.layer.hide_below(known);
                false
            }
            (true, _) if is_whiteout(known) => {
                self.layer.hide_below(id);
                true
            }
            (false, false) if is_whiteout(id) => false,
            (false, false) => is_whiteout(known) || place > known_place,
            // A directory whose entries came before the file is gone with them.
            (true, false) => self.outlives(id, known_place),
            (false, true) => !self.outlives(known, place),
        }
    }

    /// Whether anything of directory `dir` came after something else took its
    /// place in the tar, at `place`; then that is what is left of it.
    fn outlives(&mut self, dir: InodeId, place: u32) -> bool {
        let outlives = self.layer.keep_later(dir, place);
        if outlives && let Some(dir) = self.layer.dir_mut(dir) {
            (dir.opaque, dir.implied, dir.over_file) = (true, false, true);
        }
        outlives
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
            if dir.over_file {
                self.notes.over_files.push(path.clone());
            }
            for (name, child) in &dir.entries {
                let inode = self.layer.inode(*child);
                let path = || path.join(name);
                match &inode.kind {
                    Kind::Dir(_) => dirs.push((*child, path())),
                    Kind::LowerLink(_) => found.push((id, name.clone(), *child, path())),
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
        let mut links = HardLinks::new(self.layer, self.lower);
        let ends = found.iter().map(|(_, _, id, path)| links.end(*id, path));
        let ends = ends.collect::<Result<Vec<End>>>()?;
        for ((dir, name, id, _), end) in found.into_iter().zip(ends) {
            match end {
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
        self.notes.over_files.sort();
        Ok(())
    }
}
