//! Users: lines in passwd, group, shadow and gshadow.

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use bundle::boot::lenient::{Int, Text};
use fsimage::tree::{self, Dir, Kind};

use super::accounts::{GROUP, PASSWD, Row, Table};
use super::content::Content;
use super::resolve::{Last, Parents};
use super::work::Work;
use crate::manifest::owner::Id;
use crate::manifest::patch::User;
use crate::patch::change::What;
use crate::patch::shown::{kind_name, shown};

const SHADOW: &str = "/etc/shadow";
const GSHADOW: &str = "/etc/gshadow";

/// The ids that useradd gives to users by default.
const FIRST_ID: u32 = 1000;

/// The first number from [`FIRST_ID`] on that `taken` does not have.
fn free(taken: &Table) -> Result<u32> {
    let ids: std::collections::BTreeSet<u32> =
        taken.rows().filter_map(|row| row.number(2)).collect();
    let free = (FIRST_ID..u32::MAX).find(|id| !ids.contains(id));
    free.context("every id is taken")
}

impl Work<'_> {
    pub(super) fn user(&mut self, op: &User) -> Result<()> {
        let users = self.table(PASSWD)?;
        let groups = self.table(GROUP)?;
        let name = &op.name;
        ensure!(!users.has(name), "the image's {PASSWD} has a user {name} already");
        let uid = match op.uid {
            Some(Int(uid)) => uid,
            None => free(&users)?,
        };
        if let Some(row) = users.of_number(uid, 2) {
            bail!("the uid {uid} is {}'s already", tree::shown(row.name()));
        }
        let gid = match &op.group {
            Some(Text(group)) => {
                let id: Id = group.parse().map_err(|()| anyhow!("{group:?} is not a group"))?;
                let gid = self.group_id(&id)?;
                let known = groups.of_number(gid, 2).is_some();
                ensure!(known, "the image's {GROUP} has no group {gid}");
                gid
            }
            None => {
                ensure!(
                    !groups.has(name),
                    "the image's {GROUP} has a group {name} already (group: {name} puts the user into it)"
                );
                let gid = match op.gid {
                    Some(Int(gid)) => gid,
                    None if groups.of_number(uid, 2).is_none() => uid,
                    None => free(&groups)?,
                };
                if let Some(row) = groups.of_number(gid, 2) {
                    bail!("the gid {gid} is {}'s already", tree::shown(row.name()));
                }
                gid
            }
        };
        for group in &op.groups {
            ensure!(groups.has(group), "the image's {GROUP} has no group {group:?}");
        }

        drop((users, groups));
        let home = op.home.clone().unwrap_or_else(|| format!("/home/{name}"));
        let shell = op.shell.as_deref().unwrap_or("/bin/sh");
        let comment = op.comment.as_deref().unwrap_or_default();
        let line = format!("{name}:x:{uid}:{gid}:{comment}:{home}:{shell}");
        self.edit_accounts(PASSWD, true, &[], name, Some(&line))?;
        let own_group = op.group.is_none().then(|| format!("{name}:x:{gid}:"));
        self.edit_accounts(GROUP, true, &op.groups, name, own_group.as_deref())?;
        let days = self.environment.time.sec.div_euclid(86400).max(0);
        let line = format!("{name}:!:{days}:0:99999:7:::");
        self.edit_accounts(SHADOW, false, &[], name, Some(&line))?;
        let own_group = op.group.is_none().then(|| format!("{name}:!::"));
        self.edit_accounts(GSHADOW, false, &op.groups, name, own_group.as_deref())?;
        if op.create_home.0 {
            self.make_home(&home, (uid, gid))?;
        }
        Ok(())
    }

    /// Adds `member` to `groups` in the file at `path`, and `line`, which is `member`'s
    /// own, to its end. What stands there of `member` already goes: of two lines with one
    /// name, the first counts. A file that is missing is made only with `make`.
    fn edit_accounts(
        &mut self,
        path: &str,
        make: bool,
        groups: &[String],
        member: &str,
        line: Option<&str>,
    ) -> Result<()> {
        let file = self.account_file(path)?;
        if file.is_none() && !make {
            return Ok(());
        }
        let old = file.as_ref().map_or(&[][..], |(_, bytes)| bytes);
        let is_meant = |name: &[u8]| groups.iter().any(|group| group.as_bytes() == name);
        let mut lines = old.split(|b| *b == b'\n');
        if line.is_none() && !lines.any(|text| is_meant(Row::new(text).name())) {
            return Ok(());
        }
        let mut new = Vec::new();
        for row in old.split_inclusive(|b| *b == b'\n') {
            let text = row.strip_suffix(b"\n").unwrap_or(row);
            let name = Row::new(text).name();
            if line.is_some() && name == member.as_bytes() {
                continue;
            }
            new.extend_from_slice(text);
            if is_meant(name) {
                let fields: Vec<&[u8]> = text.splitn(5, |b| *b == b':').collect();
                let [_, _, _, members] = fields[..] else {
                    bail!("{path}: the line of {} has not four fields", tree::shown(name));
                };
                let mut members = members.split(|b| *b == b',');
                if !members.clone().any(|known| known == member.as_bytes()) {
                    if members.any(|known| !known.is_empty()) {
                        new.push(b',');
                    }
                    new.extend_from_slice(member.as_bytes());
                }
            }
            new.push(b'\n');
        }
        if let Some(line) = line {
            new.extend_from_slice(line.as_bytes());
            new.push(b'\n');
        }
        if new == old {
            return Ok(());
        }
        let found = self.find(path.as_bytes(), Last::Follow, Parents::Make)?;
        match file {
            Some((id, _)) => {
                self.set_edited(id, new)?;
                self.note(What::Changed, &found.path)?;
            }
            None => {
                let inode = self.fresh(0o644, (0, 0), Kind::File(Content::bytes(new)));
                self.note(What::Made, &found.path)?;
                self.add(found.dir, found.entry()?.clone(), inode)?;
            }
        }
        Ok(())
    }

    fn make_home(&mut self, home: &str, owner: (u32, u32)) -> Result<()> {
        let found = self.find(home.as_bytes(), Last::Follow, Parents::Make)?;
        let Some(id) = found.id else {
            let inode = self.fresh(0o700, owner, Kind::Dir(Dir::default()));
            self.note(What::Made, &found.path)?;
            self.add(found.dir, found.entry()?.clone(), inode)?;
            return Ok(());
        };
        match &self.tree.inode(id).kind {
            Kind::Dir(_) => Ok(()),
            other => bail!("the home {} is {}", shown(&found.path), kind_name(other)),
        }
    }
}
