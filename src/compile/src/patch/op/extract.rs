//! `extract`: a tar as a layer on top of the tree.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use fsimage::io::regular;
use fsimage::tree::merge::{Merger, on_device};
use fsimage::tree::{GuestPath, Inode, InodeId, Kind, Stat, Tree};
use fsimage::units::DeviceId;
use schemars::JsonSchema;
use serde::Deserialize;

use super::operation::{Operation, guest_path, root};
use crate::layer;
use crate::patch::change::ChangeKind;
use crate::patch::content::Content;
use crate::patch::resolve::{Last, Parents};
use crate::patch::shown::shown;
use crate::patch::work::{Work, whole_weight};

/// Takes a tar (plain, gzip or zstd) as a layer on top of the image: whiteouts,
/// owners, xattrs and times count as in a layer.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Extract {
    /// A tar of the host.
    pub from: PathBuf,
    /// The directory that is the tar's root.
    #[serde(default = "root")]
    pub path: String,
}

impl Operation for Extract {
    fn title(&self) -> (&'static str, String) {
        ("extract", self.path.clone())
    }

    fn check(&self) -> Result<()> {
        guest_path(&self.path)
    }

    fn apply(&self, work: &mut Work<'_>) -> Result<()> {
        let found = work.find(self.path.as_bytes(), Last::Follow, Parents::Make)?;
        if found.is_free()? {
            let name = found.entry()?.clone();
            work.add_plain_dir(found.dir, name, &found.path)?;
        } else {
            work.found_dir(&found)?;
        }
        let from = || self.from.display().to_string();
        let metadata = std::fs::metadata(&self.from).with_context(from)?;
        ensure!(metadata.is_file(), "{} is not a regular file", self.from.display());
        let blob = regular::open_followed(&self.from).with_context(from)?;
        let file = (work.environment.scratch)()?;
        let (limits, budgets) = (work.environment.limits, work.environment.budgets);
        let loose = layer::take_apart(blob, file, limits, budgets, &found.path);
        let loose = loose.with_context(from)?;

        work.disks.0.push(loose.file.into());
        let number = u16::try_from(work.disks.0.len()).context("more than 65535 archives")?;
        work.scratch_hashes.insert(number, loose.blake3);
        let layer = on_device(loose.tree, DeviceId(number)).map_files(Content::Stored);
        let tree = std::mem::replace(&mut work.tree, Tree::new(Stat::IMPLIED_DIR));
        let mut merger = Merger::over(tree, budgets.bounds(limits));
        // What the archive brings is numbered from here on.
        let shift = merger.len();
        let mut changed: BTreeMap<InodeId, Inode<Content>> = BTreeMap::new();
        let merged = merger.add_watched(layer, &mut |id, inode| {
            if (id.0 as usize) < shift {
                changed.entry(id).or_insert_with(|| inode.clone());
            }
        });
        work.tree = merger.finish();
        for (path, names) in merged.with_context(from)?.dropped_xattrs {
            let names = names.escape_ascii().to_string().replace("\\x00", ", ");
            let (archive, path) = (self.from.display(), shown(&path));
            work.warnings
                .push(format!("{archive}: {path} loses xattrs an image cannot have: {names}"));
        }
        work.hold(changed.values().map(whole_weight).sum())?;
        for (id, inode) in &changed {
            work.keep(*id, inode)?;
        }
        if !work.environment.records_changes {
            return Ok(());
        }
        work.note_extracted(&changed).with_context(from)
    }
}

impl Work<'_> {
    /// Records how the directories `changed` differ from what they were.
    fn note_extracted(&mut self, changed: &BTreeMap<InodeId, Inode<Content>>) -> Result<()> {
        let mut dirs = vec![(InodeId::ROOT, GuestPath::default())];
        while let Some((dir_id, dir_path)) = dirs.pop() {
            let inode = self.tree.inode(dir_id);
            let Some(was) = changed.get(&dir_id) else {
                // New, with all that is in it.
                let Kind::Dir(dir) = &inode.kind else { continue };
                let children: Vec<_> =
                    dir.entries.iter().map(|(name, id)| (*id, dir_path.join(name))).collect();
                for (id, path) in children {
                    self.note(ChangeKind::Made, &path)?;
                    if self.tree.dir(id).is_some() {
                        dirs.push((id, path));
                    }
                }
                continue;
            };
            let (Kind::Dir(old), Kind::Dir(new)) = (&was.kind, &inode.kind) else { continue };
            let mut notes = Vec::new();
            if (was.stat, &was.xattrs) != (inode.stat, &inode.xattrs) {
                notes.push((ChangeKind::Changed, dir_path.clone()));
            }
            for name in old.entries.keys().filter(|name| !new.entries.contains_key(*name)) {
                notes.push((ChangeKind::Removed, dir_path.join(name)));
            }
            for (name, id) in &new.entries {
                match old.entries.get(name) {
                    Some(same) if same == id => {
                        if changed.contains_key(id) {
                            dirs.push((*id, dir_path.join(name)));
                        }
                        continue;
                    }
                    Some(_) => notes.push((ChangeKind::Changed, dir_path.join(name))),
                    None => notes.push((ChangeKind::Made, dir_path.join(name))),
                }
                if self.tree.dir(*id).is_some() {
                    dirs.push((*id, dir_path.join(name)));
                }
            }
            for (kind, path) in notes {
                self.note(kind, &path)?;
            }
        }
        Ok(())
    }
}
