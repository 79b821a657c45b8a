//! The merge of a layer with a journal: its entries, one after the other, applied
//! to the tree of all below.
//!
//! First what hides: each whiteout acts where its path leads at its own place in
//! the tar, but on what is below alone and before any entry. Where that is, a
//! rehearsal of the whole journal tells, which is undone. Then the entries: a path
//! and a hard link's target are resolved at the entry's own place. A target is
//! what is there by then, else what was below, else what comes later.

mod hide;

use std::collections::{BTreeMap, HashMap, HashSet};

use super::error::MergeError;
use super::journal::{Damaged, Entry, PLINKS};
use super::links::{self, MAX_LINKS, Step};
use super::weight::Weigh;
use crate::budget::Bounds;
use crate::tree::arena::{TooManyInodes, Tree};
use crate::tree::inode::{Dir, Inode, InodeId, Kind, Stat};
use crate::tree::name::{GuestPath, Name};
use crate::tree::notes::Notes;
use crate::tree::xattrs::{DROPPED_XATTRS, Xattrs};

type Result<T, E = MergeError> = std::result::Result<T, E>;

/// A merge by replay.
pub(super) struct Replay<'m, C> {
    tree: &'m mut Tree<C>,
    /// Sees a directory of the tree below before it is changed.
    before: &'m mut dyn FnMut(InodeId, &Inode<C>),
    bounds: Bounds<'m>,
    /// Inodes from here on are the layer's own.
    first: u32,
    /// What directories of the tree below had under the names that changed.
    was: HashMap<(InodeId, Name), Option<InodeId>>,
    /// All that those had, when it was taken away, of which everything is hidden: their
    /// own maps, because copies would be a second tree. What changes later is not in
    /// [`Replay::was`].
    had: HashMap<InodeId, BTreeMap<Name, InodeId>>,
    described: HashMap<InodeId, (Stat, Xattrs)>,
    announced: HashSet<InodeId>,
    /// Files that aufs kept for hard links, by path.
    plinks: HashMap<GuestPath, InodeId>,
    /// Hard links whose targets come later, and where each is really.
    pending: Vec<(InodeId, Box<[u8]>)>,
    /// Directories of the tree below that lead to entries of the layer.
    touched: HashSet<InodeId>,
    /// Directories of which everything below the layer is hidden already.
    emptied: HashSet<InodeId>,
    notes: Notes,
    /// Of what hides alone.
    hiding_notes: Notes,
}

/// What to do where a path has no directory.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Missing {
    Stop,
    Make,
}

/// Which state of the tree a path is looked up in.
#[derive(Clone, Copy, PartialEq, Eq)]
enum View {
    Now,
    /// As it was below the layer.
    Below,
}

/// A directory that a path led to.
struct Reached {
    dir: InodeId,
    /// It, and all above it but the root.
    dirs: Vec<InodeId>,
    /// Where it really is.
    path: GuestPath,
    /// Whether a symbolic link of a layer below was on the way.
    through_link: bool,
}

impl<'m, C: Weigh> Replay<'m, C> {
    pub(super) fn new(
        tree: &'m mut Tree<C>,
        before: &'m mut dyn FnMut(InodeId, &Inode<C>),
        bounds: Bounds<'m>,
        notes: Notes,
    ) -> Result<Self> {
        let first = u32::try_from(tree.len()).map_err(|_| TooManyInodes)?;
        Ok(Self {
            tree,
            before,
            bounds,
            first,
            was: HashMap::new(),
            had: HashMap::new(),
            described: HashMap::new(),
            announced: HashSet::new(),
            plinks: HashMap::new(),
            pending: Vec::new(),
            touched: HashSet::new(),
            emptied: HashSet::new(),
            hiding_notes: notes.clone(),
            notes,
        })
    }

    pub(super) fn run(mut self, entries: Vec<Entry<C>>) -> Result<Notes> {
        self.hide(&entries)?;
        for entry in entries {
            if !hides(&entry.inode) {
                self.entry(&path_of(&entry)?, entry.inode)?;
            }
        }
        self.settle()?;
        self.notes.append(self.hiding_notes);
        self.notes.sort();
        Ok(self.notes)
    }

    /// Applies an entry that hides nothing.
    fn entry(&mut self, path: &GuestPath, mut inode: Inode<C>) -> Result<()> {
        let dropped = inode.xattrs.remove(DROPPED_XATTRS);
        let Some((name, parent)) = path.0.split_last() else {
            self.describe(InodeId::ROOT, inode.stat, inode.xattrs);
            return Ok(());
        };
        if parent.last().is_some_and(|dir| dir.as_bytes() == PLINKS) {
            self.bounds.budget.take(path.weight())?;
            let id = self.push(inode)?;
            self.plinks.insert(path.clone(), id);
            return Ok(());
        }
        let found = self.walk(&GuestPath(parent.to_vec()), View::Now, Missing::Make, path)?;
        let Some(Reached { dir, dirs, path: real, through_link }) = found else {
            return Err(MergeError::Loop(path.shown()));
        };
        self.check_depth(dirs.len() as u64 + 1, path)?;
        self.touched.extend(dirs);
        let real = real.join(name);
        if through_link {
            self.notes.through_link(path, &real);
        }
        if let Some(names) = dropped {
            self.notes.dropped_xattrs(&real, &names);
        }
        let known = self.child(View::Now, dir, name);
        if let (Kind::Dir(_), Some(known)) = (&inode.kind, known)
            && self.tree.dir(known).is_some()
        {
            self.describe(known, inode.stat, inode.xattrs);
            return Ok(());
        }
        self.bounds.budget.take(name.weight() + inode.weight())?;
        // A name is free before a link's target is looked for: one to itself means
        // what was below.
        self.set(dir, name, None);
        let id = match &inode.kind {
            Kind::LowerLink(target) => match self.target(path, target)? {
                Some(id) => id,
                None => self.tree.push(inode)?,
            },
            _ => self.tree.push(inode)?,
        };
        if matches!(self.tree.inode(id).kind, Kind::LowerLink(_)) {
            let real = real.to_bytes();
            self.bounds.budget.take(real.len() as u64)?;
            self.pending.push((id, real.into()));
        }
        self.set(dir, name, Some(id));
        Ok(())
    }

    fn push(&mut self, inode: Inode<C>) -> Result<InodeId> {
        self.bounds.budget.take(inode.weight())?;
        Ok(self.tree.push(inode)?)
    }

    fn check_depth(&self, depth: u64, entry: &GuestPath) -> Result<()> {
        match depth <= self.bounds.max_depth {
            true => Ok(()),
            false => Err(MergeError::TooDeep { path: entry.shown(), max: self.bounds.max_depth }),
        }
    }

    /// What a hard link means now: `None` if its target may come later.
    fn target(&mut self, path: &GuestPath, target: &GuestPath) -> Result<Option<InodeId>> {
        if let Some(id) = self.plinks.get(target) {
            return Ok(Some(*id));
        }
        let found = match self.find(target, View::Now, path)? {
            None => self.find(target, View::Below, path)?,
            found => found,
        };
        if found.is_some_and(|id| self.tree.dir(id).is_some()) {
            return Err(MergeError::LinkToDir(path.shown()));
        }
        Ok(found)
    }

    /// Binds the hard links whose targets came later. Whose name something else
    /// took in between need not have one.
    fn settle(&mut self) -> Result<()> {
        let mut ends: HashMap<InodeId, InodeId> = HashMap::new();
        for (id, path) in std::mem::take(&mut self.pending) {
            let path = GuestPath::parse(&path).map_err(|_| Damaged)?;
            let Some((name, parent)) = path.0.split_last() else {
                continue;
            };
            let dir = self.tree.lookup(&GuestPath(parent.to_vec()));
            let Some(dir) = dir.filter(|dir| self.child(View::Now, *dir, name) == Some(id)) else {
                continue;
            };
            let end = self.later_target(id, &path, &mut ends)?;
            self.set(dir, name, Some(end));
        }
        Ok(())
    }

    /// Where a chain of hard links ends. `ends` has what was found before, so each
    /// link is followed once; one that is met twice leads in a circle.
    fn later_target(
        &mut self,
        id: InodeId,
        path: &GuestPath,
        ends: &mut HashMap<InodeId, InodeId>,
    ) -> Result<InodeId> {
        let mut chain = HashSet::new();
        let mut at = id;
        while let Kind::LowerLink(target) = &self.tree.inode(at).kind {
            let target = target.clone();
            if !chain.insert(at) {
                return Err(MergeError::LinkLoop { path: path.shown(), target: target.shown() });
            }
            let found = match (ends.get(&at), self.plinks.get(&target)) {
                (Some(end), _) | (None, Some(end)) => Some(*end),
                (None, None) => self.find(&target, View::Now, path)?,
            };
            at = found.ok_or_else(|| MergeError::LinkNowhere {
                path: path.shown(),
                target: target.shown(),
            })?;
        }
        if self.tree.dir(at).is_some() {
            return Err(MergeError::LinkToDir(path.shown()));
        }
        ends.extend(chain.into_iter().map(|link| (link, at)));
        Ok(at)
    }

    /// What `path` names; its last component is not followed.
    fn find(&mut self, path: &GuestPath, view: View, entry: &GuestPath) -> Result<Option<InodeId>> {
        let Some((name, parent)) = path.0.split_last() else {
            return Ok(Some(InodeId::ROOT));
        };
        let found = self.walk(&GuestPath(parent.to_vec()), view, Missing::Stop, entry)?;
        Ok(found.and_then(|found| self.child(view, found.dir, name)))
    }

    /// What `name` in `dir` leads to.
    fn child(&self, view: View, dir: InodeId, name: &Name) -> Option<InodeId> {
        if view == View::Below {
            if let Some(was) = self.was.get(&(dir, name.clone())) {
                return *was;
            }
            if let Some(had) = self.had.get(&dir) {
                return had.get(name).copied();
            }
        }
        self.tree.dir(dir)?.entries.get(name).copied()
    }

    /// The directory at `path`, every symbolic link followed inside the root, for an
    /// entry of the layer.
    /// Terminates because each step consumes a component or follows a link, and
    /// links are counted. All that it costs is in proportion to the steps, of which a
    /// build has so many: forty links can have eighty thousand.
    fn walk(
        &mut self,
        path: &GuestPath,
        view: View,
        missing: Missing,
        entry: &GuestPath,
    ) -> Result<Option<Reached>> {
        self.bounds.steps.take(path.0.len())?;
        let mut stack: Vec<(InodeId, Name)> = Vec::new();
        let mut steps: Vec<Step> = path.0.iter().rev().cloned().map(Step::Into).collect();
        let (mut followed, mut through_link) = (0, false);
        while let Some(step) = steps.pop() {
            let Step::Into(name) = step else {
                stack.pop();
                continue;
            };
            let here = stack.last().map_or(InodeId::ROOT, |(id, _)| *id);
            let known = self.child(view, here, &name);
            let target = match known.map(|id| (id, &self.tree.inode(id).kind)) {
                Some((id, Kind::Dir(_))) => {
                    stack.push((id, name));
                    continue;
                }
                Some((id, Kind::Symlink(target))) => {
                    through_link |= id.0 < self.first;
                    target
                }
                _ if missing == Missing::Stop => return Ok(None),
                _ => {
                    let kind = Kind::Dir(Dir::default());
                    let (stat, xattrs) = (Stat::IMPLIED_DIR, Xattrs::default());
                    self.check_depth(stack.len() as u64 + 1, entry)?;
                    self.bounds.budget.take(name.weight())?;
                    let id = self.push(Inode { stat, xattrs, kind })?;
                    self.set(here, &name, Some(id));
                    stack.push((id, name));
                    if known.is_some_and(|known| known.0 >= self.first) {
                        self.notes.over_file(&real_path(&stack));
                    }
                    continue;
                }
            };
            followed += 1;
            if followed > MAX_LINKS {
                return Err(MergeError::Loop(entry.shown()));
            }
            let more = links::steps(target).map_err(|_| MergeError::LinkTarget(entry.shown()))?;
            self.bounds.steps.take(more.len())?;
            if target.starts_with(b"/") {
                stack.clear();
            }
            steps.extend(more);
        }
        let dir = stack.last().map_or(InodeId::ROOT, |(id, _)| *id);
        let path = real_path(&stack);
        if missing == Missing::Make {
            self.announce_all(&path);
        }
        let dirs = stack.into_iter().map(|(id, _)| id).collect();
        Ok(Some(Reached { dir, dirs, path, through_link }))
    }

    /// Announces every directory on a path without symbolic links.
    fn announce_all(&mut self, path: &GuestPath) {
        let mut at = InodeId::ROOT;
        self.announce(at);
        for name in &path.0 {
            let Some(id) = self.child(View::Now, at, name) else {
                return;
            };
            at = id;
            self.announce(at);
        }
    }

    fn announce(&mut self, dir: InodeId) {
        if dir.0 < self.first && self.announced.insert(dir) {
            (self.before)(dir, self.tree.inode(dir));
        }
    }

    /// Lets `name` in `dir` lead to `id`, or nowhere.
    fn set(&mut self, dir: InodeId, name: &Name, id: Option<InodeId>) {
        self.announce(dir);
        let Some(entries) = self.tree.dir_mut(dir).map(|dir| &mut dir.entries) else {
            return;
        };
        let old = match id {
            Some(id) => entries.insert(name.clone(), id),
            None => entries.remove(name),
        };
        if dir.0 < self.first && !self.had.contains_key(&dir) {
            self.was.entry((dir, name.clone())).or_insert(old);
        }
    }

    fn describe(&mut self, dir: InodeId, stat: Stat, xattrs: Xattrs) {
        self.announce(dir);
        let inode = self.tree.inode_mut(dir);
        let old = (inode.stat, std::mem::replace(&mut inode.xattrs, xattrs));
        inode.stat = stat;
        if dir.0 < self.first {
            self.described.entry(dir).or_insert(old);
        }
    }
}

fn path_of<C>(entry: &Entry<C>) -> Result<GuestPath, Damaged> {
    entry.path().map_err(|_| Damaged)
}

/// Whether an entry only hides what is below.
fn hides<C>(inode: &Inode<C>) -> bool {
    match &inode.kind {
        Kind::Whiteout => true,
        Kind::Dir(dir) => dir.opaque,
        _ => false,
    }
}

fn real_path(stack: &[(InodeId, Name)]) -> GuestPath {
    GuestPath(stack.iter().map(|(_, name)| name.clone()).collect())
}
