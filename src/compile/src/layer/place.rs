//! Entries to their places: the tree that one layer alone describes.
//!
//! Whiteouts, and directories that are opaque or only implied, stay in the tree as
//! marks for the merge. From the first entry on whose meaning depends on the layers
//! below, the layer keeps a [`Journal`] as well.

use std::collections::HashMap;

use anyhow::{Context as _, Result, anyhow, ensure};
use fsimage::budget::Bounds;
use fsimage::tree::extents::Extents;
use fsimage::tree::journal::Journal;
use fsimage::tree::resolve::{Resolver, Stuck};
use fsimage::tree::weight::{self, Weigh as _};
use fsimage::tree::{Dir, DirId, GuestPath, Inode, InodeId, Kind, Name, Stat, Tree, Xattrs, shown};

/// A layer's tree while entries arrive. All that it keeps is taken from a budget,
/// before it is kept.
pub(super) struct Placer<'b> {
    tree: Tree<Extents>,
    /// Names that hide what is below; settled at the end, because they never
    /// hide what their own layer has, wherever it stands in the tar.
    whiteouts: Vec<(DirId, Name)>,
    /// Files that aufs kept for hard links to them, by path; they have no name
    /// of their own in the image.
    plinks: HashMap<GuestPath, InodeId>,
    journal: Option<Journal>,
    bounds: Bounds<'b>,
}

/// What to do on the way to a directory.
#[derive(Clone, Copy, PartialEq, Eq)]
enum OnTheWay {
    /// Nothing: what is missing, or is no directory, ends it.
    Stop,
    /// Make what is missing; what is no directory ends it.
    Make,
    /// Make what is missing or is no directory.
    Replace,
}

impl<'b> Placer<'b> {
    /// An empty tree, which grows within `bounds`.
    pub(super) fn new(bounds: Bounds<'b>) -> Self {
        let mut tree = Tree::new(Stat::IMPLIED_DIR);
        tree[DirId::ROOT].implied = true;
        let (whiteouts, plinks) = (Vec::new(), HashMap::new());
        Self { tree, whiteouts, plinks, journal: None, bounds }
    }

    /// The root's own entry.
    pub(super) fn root(&mut self, stat: Stat, xattrs: Xattrs) -> Result<()> {
        let kind = Kind::Dir(Dir::default());
        self.record(&GuestPath::default(), || Inode { stat, xattrs: xattrs.clone(), kind })?;
        self.describe(DirId::ROOT, stat, xattrs)
    }

    fn describe(&mut self, dir: DirId, stat: Stat, xattrs: Xattrs) -> Result<()> {
        self.bounds.budget.take(xattrs.weight())?;
        let inode = self.tree.inode_mut(dir.inode());
        inode.stat = stat;
        inode.xattrs = xattrs;
        self.tree[dir].implied = false;
        Ok(())
    }

    /// A directory that an entry describes.
    pub(super) fn dir(
        &mut self,
        parent: &GuestPath,
        name: Name,
        stat: Stat,
        xattrs: Xattrs,
    ) -> Result<()> {
        let firm = self.firm_dir_or_journal(parent)?;
        let kind = Kind::Dir(Dir::default());
        self.record(&parent.join(&name), || Inode { stat, xattrs: xattrs.clone(), kind })?;
        let parent = self.parent(parent, firm)?;
        let known = self.entry(parent, &name);
        let dir = match known.and_then(|id| self.tree.dir_id(id)) {
            Some(dir) => dir,
            None => self.new_dir(parent, name, known.is_some())?,
        };
        self.describe(dir, stat, xattrs)
    }

    /// Anything but a directory or a hard link.
    pub(super) fn inode(
        &mut self,
        parent: &GuestPath,
        name: Name,
        inode: Inode<Extents>,
    ) -> Result<()> {
        let firm = self.firm_dir_or_journal(parent)?;
        self.record(&parent.join(&name), || inode.clone())?;
        let parent = self.parent(parent, firm)?;
        self.add(parent, name, inode)?;
        Ok(())
    }

    /// A file that aufs kept for its hard links.
    pub(super) fn plink(&mut self, path: GuestPath, inode: Inode<Extents>) -> Result<()> {
        self.record(&path, || inode.clone())?;
        self.bounds.budget.take(inode.weight() + path.weight())?;
        let id = self.tree.push(inode)?;
        self.plinks.insert(path, id);
        Ok(())
    }

    /// A further name for what `target` names.
    pub(super) fn hard_link(
        &mut self,
        parent: &GuestPath,
        name: Name,
        target: &[u8],
    ) -> Result<()> {
        let target =
            GuestPath::parse(target).with_context(|| format!("hard link to {}", shown(target)))?;
        let firm = self.firm_dir_or_journal(parent)?;
        let bound = self.firm_file(&target);
        if bound.is_none() {
            self.begin_journal()?;
        }
        self.record(&parent.join(&name), || Journal::link(target.clone()))?;
        let parent = self.parent(parent, firm)?;
        let found = match bound {
            Some(id) => Some(id),
            None => self.find(&target)?.filter(|id| self.tree.dir(*id).is_none()),
        };
        match found {
            Some(id) => {
                self.bounds.budget.take(name.weight())?;
                self.tree[parent].entries.insert(name, id);
            }
            // In a layer below, or later in this tar.
            None => drop(self.add(parent, name, Journal::link(target))?),
        }
        Ok(())
    }

    /// A whiteout: `name` in `parent` is hidden in the layers below.
    pub(super) fn whiteout(&mut self, parent: &GuestPath, name: Name) -> Result<()> {
        let firm = self.firm_dir_or_journal(parent)?;
        self.record(&parent.join(&name), Journal::whiteout)?;
        // Where the layer itself has something else than a directory, nothing of
        // lower layers is there to be hidden.
        let dir = match firm {
            Some(dir) => Some(dir),
            None => self.walk(parent, OnTheWay::Make)?,
        };
        // Once as it stands in the tar, and once as an inode in the end.
        self.bounds.budget.take(2 * name.weight() + Journal::whiteout::<Extents>().weight())?;
        self.whiteouts.extend(dir.map(|dir| (dir, name)));
        Ok(())
    }

    /// An opaque directory: `dir` hides what layers below have in it.
    pub(super) fn opaque(&mut self, dir: &GuestPath) -> Result<()> {
        let firm = self.firm_dir_or_journal(dir)?;
        self.record(dir, Journal::opaque)?;
        let dir = match firm {
            Some(dir) => Some(dir),
            None => self.walk(dir, OnTheWay::Make)?,
        };
        if let Some(dir) = dir {
            self.tree[dir].opaque = true;
        }
        Ok(())
    }

    /// Settles what can be told only from the whole tar: what the whiteouts hide.
    pub(super) fn finish(mut self) -> Result<Tree<Extents>> {
        let whiteouts = std::mem::take(&mut self.whiteouts);
        for (parent, name) in &whiteouts {
            if self.entry(*parent, name).is_none() {
                self.tree.add(*parent, name.clone(), Journal::whiteout())?;
            }
        }
        let mut hollow = HashMap::new();
        for (parent, name) in &whiteouts {
            // Each name has something by now.
            let Some(id) = self.entry(*parent, name) else { continue };
            if self.tree.is_hollow(id, &mut hollow) {
                self.tree.add(*parent, name.clone(), Journal::whiteout())?;
            } else if let Some(dir) = self.tree.dir_mut(id) {
                (dir.opaque, dir.implied) = (true, false);
            }
        }
        if let Some(journal) = self.journal {
            journal.store(&mut self.tree)?;
        }
        Ok(self.tree)
    }

    /// Adds to the journal, if there is one.
    fn record(&mut self, path: &GuestPath, inode: impl FnOnce() -> Inode<Extents>) -> Result<()> {
        if let Some(journal) = &mut self.journal {
            journal.add(&mut self.tree, &path.to_bytes(), inode(), self.bounds.budget)?;
        }
        Ok(())
    }

    fn begin_journal(&mut self) -> Result<()> {
        if self.journal.is_none() {
            let whiteouts = self.whiteouts.iter().cloned();
            let plinks = self.plinks.iter().map(|(path, id)| (path.clone(), *id));
            let journal = Journal::begin(&mut self.tree, whiteouts, plinks, self.bounds.budget)?;
            self.journal = Some(journal);
        }
        Ok(())
    }

    /// The directory at `path` if it is firm: the layer describes it and every one on the way,
    /// so that no layer below has a say in where an entry in it goes. Anywhere else, the
    /// journal begins.
    fn firm_dir_or_journal(&mut self, path: &GuestPath) -> Result<Option<DirId>> {
        let firm = self.firm_dir(&path.0);
        if firm.is_none() {
            self.begin_journal()?;
        }
        Ok(firm)
    }

    fn firm_dir(&self, path: &[Name]) -> Option<DirId> {
        path.iter().try_fold(DirId::ROOT, |at, name| {
            let dir = self.tree.dir_id(self.entry(at, name)?)?;
            (!self.tree[dir].implied).then_some(dir)
        })
    }

    /// A file of the layer that no layer below has a say in.
    fn firm_file(&self, path: &GuestPath) -> Option<InodeId> {
        if let Some(id) = self.plinks.get(path) {
            return Some(*id);
        }
        let (name, parent) = path.0.split_last()?;
        let id = self.entry(self.firm_dir(parent)?, name)?;
        let firm = !matches!(self.tree.inode(id).kind, Kind::Dir(_) | Kind::LowerLink(_));
        firm.then_some(id)
    }

    /// Makes `name` in `dir` lead to a new inode.
    fn add(&mut self, dir: DirId, name: Name, inode: Inode<Extents>) -> Result<InodeId> {
        self.bounds.budget.take(inode.weight() + name.weight())?;
        Ok(self.tree.add(dir, name, inode)?)
    }

    fn entry(&self, dir: DirId, name: &Name) -> Option<InodeId> {
        self.tree[dir].entries.get(name).copied()
    }

    /// A new directory that no entry describes yet. One that takes the place of
    /// something else starts empty: nothing of lower layers is in it.
    fn new_dir(&mut self, parent: DirId, name: Name, replaces: bool) -> Result<DirId> {
        self.bounds.budget.take(weight::EMPTY_DIR + name.weight())?;
        let dir = self.tree.add_dir(parent, name, Stat::IMPLIED_DIR)?;
        (self.tree[dir].opaque, self.tree[dir].implied) = (replaces, !replaces);
        Ok(dir)
    }

    /// The directory that `path` leads to, through symbolic links of this
    /// layer; directories that are missing become implied ones.
    fn parent(&mut self, path: &GuestPath, firm: Option<DirId>) -> Result<DirId> {
        if let Some(firm) = firm {
            return Ok(firm);
        }
        let dir = self.walk(path, OnTheWay::Replace)?;
        dir.ok_or_else(|| anyhow!("{} cannot be a directory", path.shown()))
    }

    /// What `path` names in this layer; its last component is not followed.
    fn find(&mut self, path: &GuestPath) -> Result<Option<InodeId>> {
        let Some((last, parent)) = path.0.split_last() else {
            return Ok(Some(InodeId::ROOT));
        };
        let parent = self.walk(&GuestPath(parent.to_vec()), OnTheWay::Stop)?;
        Ok(parent.and_then(|dir| self.entry(dir, last)))
    }

    fn walk(&mut self, path: &GuestPath, on: OnTheWay) -> Result<Option<DirId>> {
        let mut resolver = Resolver::new(&path.0, self.bounds.steps)?;
        while let Some((here, name)) = resolver.next_name() {
            let known = self.entry(here, &name);
            if let Some(dir) = known.and_then(|id| self.tree.dir_id(id)) {
                resolver.enter(dir, name);
                continue;
            }
            if let Some(id) = known
                && let Kind::Symlink(target) = &self.tree.inode(id).kind
            {
                resolver.follow(target).map_err(|stuck| match stuck {
                    Stuck::Loop => anyhow!("{}: {stuck}", path.shown()),
                    other => other.into(),
                })?;
                continue;
            }
            if on == OnTheWay::Stop || known.is_some() && on != OnTheWay::Replace {
                return Ok(None);
            }
            ensure!(
                resolver.depth() + 1 < self.bounds.max_depth,
                "{}: deeper than {} directories (raise --max-depth to allow it)",
                path.shown(),
                self.bounds.max_depth
            );
            let dir = self.new_dir(here, name.clone(), known.is_some())?;
            resolver.enter(dir, name);
        }
        Ok(Some(resolver.dir()))
    }
}

#[cfg(test)]
mod tests {
    use fsimage::budget::{Budget, Steps};

    use super::super::limits::Limits;
    use super::*;

    fn bounds<'b>(budget: &'b Budget<'b>, steps: &'b Steps) -> Bounds<'b> {
        Bounds { budget, steps, max_depth: Limits::default().depth }
    }

    fn file() -> Inode<Extents> {
        let kind = Kind::File(Extents::default());
        Inode { stat: Stat::IMPLIED_DIR, xattrs: Xattrs::default(), kind }
    }

    /// What a layer uses up of its budget.
    fn used(fill: impl Fn(&mut Placer<'_>) -> Result<()>) -> u64 {
        let use_up = |limit| {
            let (budget, steps) = (Budget::new(limit), Steps::default());
            let mut placer = Placer::new(bounds(&budget, &steps));
            fill(&mut placer)?;
            placer.finish()?;
            Ok::<_, anyhow::Error>(budget.used())
        };
        let used = use_up(u64::MAX).unwrap();
        let error = use_up(used - 1).unwrap_err().to_string();
        assert!(error.contains("--max-metadata-bytes"), "{error}");
        used
    }

    #[test]
    fn all_that_is_kept_is_taken_from_the_budget() {
        let path = |text: &str| GuestPath::parse(text.as_bytes()).unwrap();
        let name = |i: usize| Name::new(format!("{i}").as_bytes()).unwrap();
        let deep = path(&"d/".repeat(1000));
        // Implied directories are inodes, and a journal holds each path.
        assert!(used(|placer| placer.inode(&deep, name(0), file())) > 1000 * 250 + 2000);
        let root = GuestPath::default();
        let names = |placer: &mut Placer<'_>| {
            placer.inode(&root, name(0), file())?;
            (1..100).try_for_each(|i| placer.hard_link(&root, name(i), b"0"))
        };
        assert!(used(names) > 100 * 50);
        let links = |placer: &mut Placer<'_>| {
            let kind = Kind::Symlink(vec![b'x'; 4000].into());
            placer.inode(&root, name(0), Inode { kind, ..file() })
        };
        assert!(used(links) > 4000);
        let with_xattrs = |placer: &mut Placer<'_>| {
            let mut inode = file();
            (0..100).for_each(|i| inode.xattrs.set(format!("user.{i}").into_bytes(), [7; 100]));
            placer.inode(&root, name(0), inode)
        };
        assert!(used(with_xattrs) > 100 * 200);
        let hidden =
            |placer: &mut Placer<'_>| (0..100).try_for_each(|i| placer.whiteout(&root, name(i)));
        assert!(used(hidden) > 100 * 250);
    }

    #[test]
    fn steps_through_links_have_a_limit() {
        let path = |text: &str| GuestPath::parse(text.as_bytes()).unwrap();
        let name = |text: &str| Name::new(text.as_bytes()).unwrap();
        let (budget, steps) = (Budget::default(), Steps::new(200_000));
        let mut placer = Placer::new(bounds(&budget, &steps));
        let root = GuestPath::default();
        // Each of the links goes to and fro in `d` on the way to the next one.
        placer.dir(&root, name("d"), Stat::IMPLIED_DIR, Xattrs::default()).unwrap();
        for i in 0..39 {
            let to =
                if i == 38 { "d".into() } else { format!("{}l{}", "d/../".repeat(810), i + 1) };
            let kind = Kind::Symlink(to.into_bytes().into());
            placer.inode(&root, name(&format!("l{i}")), Inode { kind, ..file() }).unwrap();
        }
        let mut add = |i: u32| placer.inode(&path("l0"), name(&i.to_string()), file());
        (0..3).try_for_each(&mut add).unwrap();
        let error = add(3).unwrap_err().to_string();
        assert!(error.contains("--max-steps"), "{error}");
    }

    #[test]
    fn whiteouts_in_each_other_are_looked_into_once() {
        let path = |depth: usize| GuestPath::parse("d/".repeat(depth).as_bytes()).unwrap();
        let name = |text: &str| Name::new(text.as_bytes()).unwrap();
        let (budget, steps) = (Budget::default(), Steps::default());
        let mut placer = Placer::new(bounds(&budget, &steps));
        for depth in 0..1000 {
            placer.whiteout(&path(depth), name("d")).unwrap();
        }
        for i in 0..20_000 {
            placer.whiteout(&path(1000), name(&i.to_string())).unwrap();
        }
        let tree = placer.finish().unwrap();
        let root = tree.dir(InodeId::ROOT).unwrap();
        let id = root.entries[&name("d")];
        assert!(matches!(tree.inode(id).kind, Kind::Whiteout));
    }
}
