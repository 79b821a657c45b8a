//! The merge of a layer with a journal: its entries, one after the other, applied
//! to the tree of all below.
//!
//! Whiteouts and opaque marks come first. Each acts where its path leads at its own place in the
//! tar, but hides the layers below alone, and does so before any other entry is applied. To find
//! out where that is, the whole journal is applied once and undone again (the rehearsal). Then the
//! other entries are applied in their order: an entry's path and the target of a hard link are
//! resolved in the tree as it is at that moment. A target is what is there by then, else what was
//! below, else what comes later in the tar.

mod hide;

use std::collections::{BTreeMap, HashMap, HashSet};

use super::error::MergeError;
use super::journal::{Damaged, JournalEntry, PLINKS};
use super::resolve::{Resolver, Stuck};
use super::weight::{self, Weigh};
use crate::budget::Bounds;
use crate::tree::arena::{DirId, TooManyInodes, Tree};
use crate::tree::inode::{Inode, InodeId, Kind, Stat};
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
    was: HashMap<(DirId, Name), Option<InodeId>>,
    /// The entries of directories of which everything is hidden, as they were when they were taken
    /// away: the maps themselves, because copies would be a second tree. Later changes of such a
    /// directory are not in [`Replay::was`].
    had: HashMap<DirId, BTreeMap<Name, InodeId>>,
    described: HashMap<DirId, (Stat, Xattrs)>,
    announced: HashSet<DirId>,
    /// Files that aufs kept for hard links, by path.
    plinks: HashMap<GuestPath, InodeId>,
    /// Hard links whose targets come later in the tar, and the path of each without symbolic links.
    pending: Vec<(InodeId, Box<[u8]>)>,
    /// Directories of the tree below that lead to entries of the layer.
    touched: HashSet<DirId>,
    /// Directories of which everything below the layer is hidden already.
    emptied: HashSet<DirId>,
    notes: Notes,
    /// Notes of whiteouts and opaque marks, which outlive the rehearsal.
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
struct FoundDir {
    dir: DirId,
    /// It, and all above it but the root.
    dirs: Vec<DirId>,
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

    pub(super) fn run(mut self, entries: Vec<JournalEntry<C>>) -> Result<Notes> {
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
            self.describe(DirId::ROOT, inode.stat, inode.xattrs);
            return Ok(());
        };
        if parent.last().is_some_and(|dir| dir.as_bytes() == PLINKS) {
            self.bounds.budget.take(path.weight())?;
            let id = self.push(inode)?;
            self.plinks.insert(path.clone(), id);
            return Ok(());
        }
        let found = self.walk(parent, View::Now, Missing::Make, path)?;
        let Some(FoundDir { dir, dirs, path: real, through_link }) = found else {
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
        if let Kind::Dir(_) = inode.kind
            && let Some(known) = known.and_then(|known| self.tree.dir_id(known))
        {
            self.describe(known, inode.stat, inode.xattrs);
            return Ok(());
        }
        self.bounds.budget.take(name.weight() + inode.weight())?;
        // The name is freed before the target of a link is looked for, so that a link to itself
        // means what the layers below have there.
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

    /// Binds the hard links whose targets came later. A link whose name another entry took
    /// meanwhile is left alone.
    fn settle(&mut self) -> Result<()> {
        let mut ends: HashMap<InodeId, InodeId> = HashMap::new();
        for (id, path) in std::mem::take(&mut self.pending) {
            let path = GuestPath::parse(&path).map_err(|_| Damaged)?;
            let Some((name, parent)) = path.0.split_last() else {
                continue;
            };
            let dir =
                self.tree.lookup(&GuestPath(parent.to_vec())).and_then(|id| self.tree.dir_id(id));
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
        let found = self.walk(parent, view, Missing::Stop, entry)?;
        Ok(found.and_then(|found| self.child(view, found.dir, name)))
    }

    /// What `name` in `dir` leads to.
    fn child(&self, view: View, dir: DirId, name: &Name) -> Option<InodeId> {
        if view == View::Below {
            if let Some(was) = self.was.get(&(dir, name.clone())) {
                return *was;
            }
            if let Some(had) = self.had.get(&dir) {
                return had.get(name).copied();
            }
        }
        self.tree[dir].entries.get(name).copied()
    }

    /// The directory at `path`, every symbolic link followed inside the root, for an
    /// entry of the layer.
    fn walk(
        &mut self,
        path: &[Name],
        view: View,
        missing: Missing,
        entry: &GuestPath,
    ) -> Result<Option<FoundDir>> {
        let mut resolver = Resolver::new(path, self.bounds.steps)?;
        let mut through_link = false;
        while let Some((here, name)) = resolver.next_name() {
            let known = self.child(view, here, &name);
            if let Some(dir) = known.and_then(|id| self.tree.dir_id(id)) {
                resolver.enter(dir, name);
            } else if let Some(id) = known
                && let Kind::Symlink(target) = &self.tree.inode(id).kind
            {
                through_link |= id.0 < self.first;
                resolver.follow(target).map_err(|stuck| match stuck {
                    Stuck::Loop => MergeError::Loop(entry.shown()),
                    Stuck::Target(_) => MergeError::LinkTarget(entry.shown()),
                    Stuck::Steps(error) => error.into(),
                })?;
            } else if missing == Missing::Stop {
                return Ok(None);
            } else {
                self.check_depth(resolver.depth() + 1, entry)?;
                self.bounds.budget.take(name.weight() + weight::EMPTY_DIR)?;
                let dir = self.tree.push_dir(Stat::IMPLIED_DIR)?;
                self.set(here, &name, Some(dir.inode()));
                resolver.enter(dir, name);
                if known.is_some_and(|known| known.0 >= self.first) {
                    self.notes.over_file(&resolver.path());
                }
            }
        }
        let (dir, path) = (resolver.dir(), resolver.path());
        if missing == Missing::Make {
            self.announce_all(&path);
        }
        Ok(Some(FoundDir { dir, dirs: resolver.dirs().collect(), path, through_link }))
    }

    /// Announces every directory on a path without symbolic links.
    fn announce_all(&mut self, path: &GuestPath) {
        let mut at = DirId::ROOT;
        self.announce(at);
        for name in &path.0 {
            let id = self.child(View::Now, at, name);
            let Some(dir) = id.and_then(|id| self.tree.dir_id(id)) else {
                return;
            };
            at = dir;
            self.announce(at);
        }
    }

    /// Whether `dir` is one of the tree below, and not the layer's own.
    fn is_below(&self, dir: DirId) -> bool {
        dir.inode().0 < self.first
    }

    fn announce(&mut self, dir: DirId) {
        if self.is_below(dir) && self.announced.insert(dir) {
            (self.before)(dir.inode(), self.tree.inode(dir.inode()));
        }
    }

    /// Lets `name` in `dir` lead to `id`, or nowhere.
    fn set(&mut self, dir: DirId, name: &Name, id: Option<InodeId>) {
        self.announce(dir);
        let entries = &mut self.tree[dir].entries;
        let old = match id {
            Some(id) => entries.insert(name.clone(), id),
            None => entries.remove(name),
        };
        if self.is_below(dir) && !self.had.contains_key(&dir) {
            self.was.entry((dir, name.clone())).or_insert(old);
        }
    }

    fn describe(&mut self, dir: DirId, stat: Stat, xattrs: Xattrs) {
        self.announce(dir);
        let inode = self.tree.inode_mut(dir.inode());
        let old = (inode.stat, std::mem::replace(&mut inode.xattrs, xattrs));
        inode.stat = stat;
        if self.is_below(dir) {
            self.described.entry(dir).or_insert(old);
        }
    }
}

fn path_of<C>(entry: &JournalEntry<C>) -> Result<GuestPath, Damaged> {
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
