//! Entries to their places: the tree that one layer alone describes.
//!
//! What only lower layers can answer stays in the tree as a mark: whiteouts,
//! implied and opaque directories, links to files below.

use anyhow::{Context as _, Result, anyhow, bail, ensure};

use super::limits::Limits;
use crate::tree::extents::Extents;
use crate::tree::links::{self, MAX_LINKS, Step};
use crate::tree::{Dir, GuestPath, Inode, InodeId, Kind, Name, Stat, Tree, Xattrs};

/// A layer's tree while entries arrive.
pub struct Placer {
    tree: Tree<Extents>,
    /// Names that hide what is below; settled at the end, because they never
    /// hide what their own layer has, wherever it stands in the tar.
    whiteouts: Vec<(InodeId, Name)>,
    /// Hard links whose target had not come yet.
    pending: Vec<(InodeId, Name)>,
    max_depth: u64,
}

/// What an entry is called.
pub enum Target {
    Root,
    /// A name in a directory.
    Entry(GuestPath, Name),
    Whiteout(GuestPath, Name),
    /// The directory is opaque.
    Opaque(GuestPath),
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
        let mut path = GuestPath::parse(path)?;
        ensure!(
            path.0.len() as u64 <= limits.depth,
            "a path of {} components (raise --max-depth to allow it)",
            path.0.len()
        );
        let Some(last) = path.0.pop() else {
            return Ok(Self::Root);
        };
        if path.0.iter().any(|name| name.as_bytes().starts_with(b".wh..wh.")) {
            return Ok(Self::Dropped);
        }
        if let Some(name) = path.0.iter().find(|name| name.as_bytes().starts_with(b".wh.")) {
            bail!("the entry stands below the whiteout \"{name}\"");
        }
        let Some(hidden) = last.as_bytes().strip_prefix(b".wh.") else {
            return Ok(Self::Entry(path, last));
        };
        match hidden {
            b".wh..opq" => Ok(Self::Opaque(path)),
            _ if hidden.starts_with(b".wh.") => Ok(Self::Dropped),
            _ => match Name::new(hidden) {
                Ok(name) => Ok(Self::Whiteout(path, name)),
                Err(_) => bail!("the whiteout \"{last}\" hides no name"),
            },
        }
    }
}

impl Placer {
    pub fn new(limits: &Limits) -> Self {
        let mut tree = Tree::new(Stat::IMPLIED_DIR);
        tree.dir_mut(InodeId::ROOT).expect("the root is a directory").implied = true;
        Self { tree, whiteouts: Vec::new(), pending: Vec::new(), max_depth: limits.depth }
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
        let id = self.tree.push(inode)?;
        self.entries(parent).insert(name, id);
        Ok(())
    }

    /// A further name for what `target` names.
    pub fn hard_link(&mut self, parent: &GuestPath, name: Name, target: &[u8]) -> Result<()> {
        let target = GuestPath::parse(target)
            .with_context(|| format!("hard link to {}", target.escape_ascii()))?;
        let parent = self.parent(parent)?;
        let found = self.find(&target)?;
        // An implied directory may be something else in the layers below.
        let open = |kind: &Kind<_>| match kind {
            Kind::LowerLink(_) => true,
            Kind::Dir(dir) => dir.implied,
            _ => false,
        };
        if let Some(id) = found
            && !open(&self.tree.inode(id).kind)
        {
            ensure!(self.tree.dir(id).is_none(), "a hard link to the directory {target}");
            self.entries(parent).insert(name, id);
            return Ok(());
        }
        // Later in this tar, or in a layer below: known at the end.
        let kind = Kind::LowerLink(target);
        let link = Inode { stat: Stat::IMPLIED_DIR, xattrs: Xattrs::default(), kind };
        let id = self.tree.push(link)?;
        self.entries(parent).insert(name.clone(), id);
        self.pending.push((parent, name));
        Ok(())
    }

    pub fn whiteout(&mut self, parent: &GuestPath, name: Name) -> Result<()> {
        // Where the layer itself has something else than a directory, nothing of
        // lower layers is there to be hidden.
        if let Some(parent) = self.walk(parent, OnTheWay::Make)? {
            self.whiteouts.push((parent, name));
        }
        Ok(())
    }

    pub fn opaque(&mut self, dir: &GuestPath) -> Result<()> {
        if let Some(dir) = self.walk(dir, OnTheWay::Make)? {
            self.tree.dir_mut(dir).expect("a parent is a directory").opaque = true;
        }
        Ok(())
    }

    /// Settles what needed the whole tar.
    pub fn finish(mut self) -> Result<Tree<Extents>> {
        for (parent, name) in std::mem::take(&mut self.pending) {
            self.settle_link(parent, &name).with_context(|| format!("hard link {name}"))?;
        }
        let whiteouts = std::mem::take(&mut self.whiteouts);
        for (parent, name) in &whiteouts {
            if self.entry(*parent, name).is_none() {
                self.hide(*parent, name)?;
            }
        }
        for (parent, name) in &whiteouts {
            let id = self.entry(*parent, name).expect("each name has something by now");
            if self.tree.is_hollow(id) {
                self.hide(*parent, name)?;
            } else if let Some(dir) = self.tree.dir_mut(id) {
                dir.opaque = true;
                dir.implied = false;
            }
        }
        Ok(self.tree)
    }

    /// Lets `name` hide what is below.
    fn hide(&mut self, parent: InodeId, name: &Name) -> Result<()> {
        let stat = Stat { mode: 0, ..Stat::IMPLIED_DIR };
        let kind = Kind::Whiteout;
        let id = self.tree.push(Inode { stat, xattrs: Xattrs::default(), kind })?;
        self.entries(parent).insert(name.clone(), id);
        Ok(())
    }

    /// Binds a link to a target that came after it, through other links too.
    fn settle_link(&mut self, parent: InodeId, name: &Name) -> Result<()> {
        let Some(id) = self.entry(parent, name) else {
            return Ok(());
        };
        let Kind::LowerLink(wanted) = &self.tree.inode(id).kind else {
            return Ok(());
        };
        let wanted = wanted.clone();
        let mut at = id;
        let mut seen = 0;
        while let Kind::LowerLink(target) = &self.tree.inode(at).kind {
            let target = target.clone();
            match self.find(&target)? {
                Some(next) if next == at => return Ok(()),
                Some(next) => at = next,
                None => {
                    // All links of a chain lead to what its end names.
                    self.tree.inode_mut(id).kind = Kind::LowerLink(target);
                    return Ok(());
                }
            }
            seen += 1;
            ensure!(
                seen <= self.pending_limit(),
                "its target {wanted} is a hard link too, and they lead in a circle"
            );
        }
        match &self.tree.inode(at).kind {
            Kind::Dir(dir) if dir.implied => return Ok(()),
            Kind::Dir(_) => bail!("a hard link to a directory"),
            _ => {}
        }
        self.entries(parent).insert(name.clone(), at);
        Ok(())
    }

    fn pending_limit(&self) -> usize {
        self.tree.len()
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
        let inode = Inode { stat: Stat::IMPLIED_DIR, xattrs: Xattrs::default(), kind };
        let id = self.tree.push(inode)?;
        self.entries(parent).insert(name, id);
        Ok(id)
    }

    /// The directory that `path` leads to, through symbolic links of this
    /// layer; directories that are missing become implied ones.
    fn parent(&mut self, path: &GuestPath) -> Result<InodeId> {
        let id = self.walk(path, OnTheWay::Replace)?;
        id.ok_or_else(|| anyhow!("{path} cannot be a directory"))
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
                    ensure!(followed <= MAX_LINKS, "{path}: symbolic links lead in a circle");
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
                        "{path}: deeper than {} directories (raise --max-depth to allow it)",
                        self.max_depth
                    );
                    let id = self.new_dir(here, name, known.is_some())?;
                    stack.push(id);
                }
            }
        }
        Ok(stack.last().copied())
    }
}
