//! Entries to their places: the tree that one layer alone describes.
//!
//! What only lower layers can answer stays in the tree as a mark: whiteouts,
//! implied and opaque directories, links to files below.

use std::collections::HashMap;

use anyhow::{Context as _, Result, anyhow, bail, ensure};

use super::limits::Limits;
use crate::tree::extents::Extents;
use crate::tree::links::{self, MAX_LINKS, Step};
use crate::tree::{Dir, GuestPath, Inode, InodeId, Kind, Name, Order, Stat, Tree, Xattrs, shown};

/// A layer's tree while entries arrive.
pub struct Placer {
    tree: Tree<Extents>,
    /// Names that hide what is below; settled at the end, because they never
    /// hide what their own layer has, wherever it stands in the tar.
    whiteouts: Vec<Hide>,
    /// Where in the tar a directory was marked as opaque for the first time.
    opaque: HashMap<InodeId, u32>,
    /// Files that aufs kept for hard links to them, by path; they have no name
    /// of their own in the image.
    plinks: HashMap<GuestPath, InodeId>,
    /// The place in the tar of the entry that is being put into the tree.
    place: u32,
    max_depth: u64,
}

/// A whiteout of `name` in `dir`.
struct Hide {
    dir: InodeId,
    name: Name,
    /// Its place in the tar.
    place: u32,
}

/// What an entry is called.
pub enum Target {
    Root,
    /// A name in a directory.
    Entry(GuestPath, Name),
    Whiteout(GuestPath, Name),
    /// The directory is opaque.
    Opaque(GuestPath),
    /// A file in `.wh..wh.plnk`: what aufs's hard links lead to.
    Plink(GuestPath),
    /// Bookkeeping of aufs: nothing.
    Dropped,
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

impl Target {
    /// Reads `path` as OCI layers mean it.
    pub fn parse(path: &[u8], limits: &Limits) -> Result<Self> {
        let parts = |path: &[u8]| GuestPath::parse(path);
        let end = path.iter().rposition(|b| *b != b'/').map_or(0, |last| last + 1);
        let begin = path[..end].iter().rposition(|b| *b == b'/').map_or(0, |slash| slash + 1);
        // A whiteout's own name may be longer than any name that it hides.
        let hidden = path[begin..end].strip_prefix(b".wh.");
        let mut path = parts(if hidden.is_some() { &path[..begin] } else { path })?;
        let depth = path.0.len() + usize::from(hidden.is_some());
        ensure!(
            depth as u64 <= limits.depth,
            "a path of {depth} components (raise --max-depth to allow it)"
        );
        let aufs = path.0.iter().position(|name| name.as_bytes().starts_with(AUFS));
        if let [.., dir, _] = &path.0[..]
            && dir.as_bytes() == PLINKS
            && aufs == Some(path.0.len() - 2)
        {
            return Ok(Self::Plink(path));
        }
        if aufs.is_some() {
            return Ok(Self::Dropped);
        }
        if let Some(name) = path.0.iter().find(|name| name.as_bytes().starts_with(b".wh.")) {
            bail!("the entry stands below the whiteout \"{name}\"");
        }
        match hidden {
            None => Ok(path.0.pop().map_or(Self::Root, |last| Self::Entry(path, last))),
            Some(b".wh..opq") => Ok(Self::Opaque(path)),
            Some(hidden) if hidden.starts_with(b".wh.") => Ok(Self::Dropped),
            Some(hidden) => match Name::new(hidden) {
                Ok(name) => Ok(Self::Whiteout(path, name)),
                Err(why) => bail!("a whiteout that cannot hide anything: {why}"),
            },
        }
    }
}

/// aufs's bookkeeping: names in a layer that are neither files nor whiteouts.
const AUFS: &[u8] = b".wh..wh.";

/// Where aufs keeps files that have hard links elsewhere, by inode number.
const PLINKS: &[u8] = b".wh..wh.plnk";

impl Placer {
    pub fn new(limits: &Limits) -> Self {
        let mut tree = Tree::new(Stat::IMPLIED_DIR);
        tree.dir_mut(InodeId::ROOT).expect("the root is a directory").implied = true;
        tree.order.set_inode(InodeId::ROOT, Order::ROOT);
        let (whiteouts, opaque, plinks) = (Vec::new(), HashMap::new(), HashMap::new());
        Self { tree, whiteouts, opaque, plinks, place: Order::ROOT, max_depth: limits.depth }
    }

    /// The next entry of the tar comes: what is put into the tree from now on is
    /// that entry's.
    pub fn next(&mut self) {
        self.place = self.place.saturating_add(1);
    }

    /// The root's own entry.
    pub fn root(&mut self, stat: Stat, xattrs: Xattrs) {
        self.describe(InodeId::ROOT, stat, xattrs);
    }

    fn describe(&mut self, dir: InodeId, stat: Stat, xattrs: Xattrs) {
        let inode = self.tree.inode_mut(dir);
        inode.stat = stat;
        inode.xattrs = xattrs;
        if let Kind::Dir(dir) = &mut inode.kind {
            dir.implied = false;
        }
        self.tree.order.set_inode(dir, self.place);
    }

    /// A directory that an entry describes.
    pub fn dir(
        &mut self,
        parent: &GuestPath,
        name: Name,
        stat: Stat,
        xattrs: Xattrs,
    ) -> Result<()> {
        let parent = self.parent(parent)?;
        let known = self.entry(parent, &name);
        let id = match known {
            Some(id) if self.tree.dir(id).is_some() => id,
            _ => self.new_dir(parent, name, known.is_some())?,
        };
        self.describe(id, stat, xattrs);
        Ok(())
    }

    /// Anything but a directory or a hard link.
    pub fn inode(&mut self, parent: &GuestPath, name: Name, inode: Inode<Extents>) -> Result<()> {
        let parent = self.parent(parent)?;
        self.add(parent, name, inode)?;
        Ok(())
    }

    /// A file that aufs kept for its hard links.
    pub fn plink(&mut self, path: GuestPath, inode: Inode<Extents>) -> Result<()> {
        let id = self.tree.push(inode)?;
        self.tree.order.set_inode(id, self.place);
        self.plinks.insert(path, id);
        Ok(())
    }

    /// Makes `name` in `dir` lead to a new inode.
    fn add(&mut self, dir: InodeId, name: Name, inode: Inode<Extents>) -> Result<InodeId> {
        let id = self.tree.push(inode)?;
        self.tree.order.set_inode(id, self.place);
        self.tree.order.take_link(dir, &name);
        self.entries(dir).insert(name, id);
        Ok(id)
    }

    /// A further name for what `target` names.
    pub fn hard_link(&mut self, parent: &GuestPath, name: Name, target: &[u8]) -> Result<()> {
        let target =
            GuestPath::parse(target).with_context(|| format!("hard link to {}", shown(target)))?;
        let parent = self.parent(parent)?;
        let found = match self.plinks.get(&target) {
            Some(id) => Some(*id),
            None => self.find(&target)?,
        };
        // An implied directory may be something else in the layers below.
        if let Some(id) = found
            && !self.tree.dir(id).is_some_and(|dir| dir.implied)
        {
            ensure!(self.tree.dir(id).is_none(), "a hard link to the directory {}", target.shown());
            self.tree.order.set_link(parent, name.clone(), self.place);
            self.entries(parent).insert(name, id);
            return Ok(());
        }
        // In a layer below, or later in this tar: the merge looks in this order.
        let kind = Kind::LowerLink(target);
        self.add(parent, name, Inode { stat: Stat::IMPLIED_DIR, xattrs: Xattrs::default(), kind })?;
        Ok(())
    }

    pub fn whiteout(&mut self, parent: &GuestPath, name: Name) -> Result<()> {
        // Where the layer itself has something else than a directory, nothing of
        // lower layers is there to be hidden.
        if let Some(dir) = self.walk(parent, OnTheWay::Make)? {
            self.whiteouts.push(Hide { dir, name, place: self.place });
        }
        Ok(())
    }

    pub fn opaque(&mut self, dir: &GuestPath) -> Result<()> {
        if let Some(dir) = self.walk(dir, OnTheWay::Make)? {
            self.tree.dir_mut(dir).expect("a parent is a directory").opaque = true;
            self.opaque.entry(dir).or_insert(self.place);
        }
        Ok(())
    }

    /// Settles what needed the whole tar.
    pub fn finish(mut self) -> Result<Tree<Extents>> {
        let whiteouts = std::mem::take(&mut self.whiteouts);
        for Hide { dir, name, place } in &whiteouts {
            if self.entry(*dir, name).is_none() {
                self.place = *place;
                let stat = Stat { mode: 0, ..Stat::IMPLIED_DIR };
                let (xattrs, kind) = (Xattrs::default(), Kind::Whiteout);
                self.add(*dir, name.clone(), Inode { stat, xattrs, kind })?;
            }
        }
        for Hide { dir, name, place } in &whiteouts {
            // It may be in a directory that was hidden before, and forgotten.
            let Some(id) = self.entry(*dir, name) else {
                continue;
            };
            if self.tree.is_hollow(id) {
                self.forget_hides_behind(id, *place);
            }
            self.tree.hide_below(id);
        }
        self.tree.order.forget_excess();
        Ok(self.tree)
    }

    /// In the hollow directory `id`, forgets what hides something behind `place` in
    /// the tar: the name of the directory was hidden there, and with it the
    /// symbolic link that may be below.
    fn forget_hides_behind(&mut self, id: InodeId, place: u32) {
        let mut dirs = vec![id];
        while let Some(id) = dirs.pop() {
            let in_time = self.opaque.get(&id).is_none_or(|opaque| *opaque < place);
            let mut entries = std::mem::take(self.entries(id));
            entries.retain(|_, child| match self.tree.dir(*child) {
                Some(_) => {
                    dirs.push(*child);
                    true
                }
                None => self.tree.order.inode(*child) < place,
            });
            let dir = self.tree.dir_mut(id).expect("only directories are pushed");
            dir.entries = entries;
            dir.opaque &= in_time;
        }
    }

    fn entries(&mut self, dir: InodeId) -> &mut std::collections::BTreeMap<Name, InodeId> {
        &mut self.tree.dir_mut(dir).expect("a parent is a directory").entries
    }

    fn entry(&self, dir: InodeId, name: &Name) -> Option<InodeId> {
        self.tree.dir(dir)?.entries.get(name).copied()
    }

    /// A new directory that no entry describes yet. One that takes the place of
    /// something else starts empty: nothing of lower layers is in it.
    fn new_dir(&mut self, parent: InodeId, name: Name, replaces: bool) -> Result<InodeId> {
        let kind = Kind::Dir(Dir { opaque: replaces, implied: !replaces, ..Dir::default() });
        self.add(parent, name, Inode { stat: Stat::IMPLIED_DIR, xattrs: Xattrs::default(), kind })
    }

    /// The directory that `path` leads to, through symbolic links of this
    /// layer; directories that are missing become implied ones.
    fn parent(&mut self, path: &GuestPath) -> Result<InodeId> {
        let id = self.walk(path, OnTheWay::Replace)?;
        id.ok_or_else(|| anyhow!("{} cannot be a directory", path.shown()))
    }

    /// What `path` names in this layer; its last component is not followed.
    fn find(&mut self, path: &GuestPath) -> Result<Option<InodeId>> {
        let Some((last, parent)) = path.0.split_last() else {
            return Ok(Some(InodeId::ROOT));
        };
        let parent = self.walk(&GuestPath(parent.to_vec()), OnTheWay::Stop)?;
        Ok(parent.and_then(|dir| self.entry(dir, last)))
    }

    fn walk(&mut self, path: &GuestPath, on: OnTheWay) -> Result<Option<InodeId>> {
        let mut stack = vec![InodeId::ROOT];
        let mut steps: Vec<Step> = path.0.iter().rev().cloned().map(Step::Into).collect();
        let mut followed = 0;
        while let Some(step) = steps.pop() {
            let Step::Into(name) = step else {
                if stack.len() > 1 {
                    stack.pop();
                }
                continue;
            };
            let here = *stack.last().expect("the root stays");
            let known = self.entry(here, &name);
            match known.map(|id| (id, &self.tree.inode(id).kind)) {
                Some((id, Kind::Dir(_))) => stack.push(id),
                Some((_, Kind::Symlink(target))) => {
                    followed += 1;
                    ensure!(
                        followed <= MAX_LINKS,
                        "{}: symbolic links lead in a circle",
                        path.shown()
                    );
                    if target.starts_with(b"/") {
                        stack.truncate(1);
                    }
                    steps.extend(links::steps(target)?);
                }
                None if on == OnTheWay::Stop => return Ok(None),
                Some(_) if on != OnTheWay::Replace => return Ok(None),
                _ => {
                    ensure!(
                        (stack.len() as u64) < self.max_depth,
                        "{}: deeper than {} directories (raise --max-depth to allow it)",
                        path.shown(),
                        self.max_depth
                    );
                    let id = self.new_dir(here, name, known.is_some())?;
                    self.tree.dir_mut(id).expect("it was just made").over_file = known.is_some();
                    stack.push(id);
                }
            }
        }
        Ok(stack.last().copied())
    }
}
