//! `user`: lines in passwd, group, shadow and gshadow.

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use bundle::boot::lenient::{Flag, Int, Text};
use fsimage::tree::{self, Dir, Kind};
use schemars::JsonSchema;
use serde::Deserialize;

use super::operation::{Operation, guest_path};
use crate::patch::accounts::{GROUP, PASSWD, Row, Table};
use crate::patch::change::ChangeKind;
use crate::patch::content::Content;
use crate::patch::owner::Id;
use crate::patch::resolve::{Last, Parents};
use crate::patch::shown::{kind_name, shown};
use crate::patch::work::Work;

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

/// Adds a user to /etc/passwd, and to /etc/group, /etc/shadow and /etc/gshadow
/// where the image has them. The password is locked.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct User {
    /// The login name.
    pub name: String,
    /// Default: the first of 1000 and up that no user has.
    #[serde(default)]
    pub uid: Option<Int<u32>>,
    /// The login group, by name or number, which is there. Default: a new group
    /// of the user's name, with the uid as number if that is free.
    #[serde(default)]
    pub group: Option<Text>,
    /// Number of the new group.
    #[serde(default)]
    pub gid: Option<Int<u32>>,
    /// Further groups, which are there.
    #[serde(default)]
    pub groups: Vec<String>,
    /// Default: /home/NAME.
    #[serde(default)]
    pub home: Option<String>,
    /// Make the home directory, 0700 and the user's, if it is not there.
    #[serde(default)]
    pub create_home: Flag,
    /// Default: /bin/sh.
    #[serde(default)]
    pub shell: Option<String>,
    /// The full name.
    #[serde(default)]
    pub comment: Option<String>,
}

impl Operation for User {
    fn title(&self) -> (&'static str, String) {
        ("user", self.name.clone())
    }

    fn check(&self) -> Result<()> {
        let is_name = |name: &str| {
            let rest = name.strip_suffix('$').unwrap_or(name);
            let fits = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.');
            let first = |b: u8| b.is_ascii_alphabetic() || b == b'_';
            rest.bytes().all(fits) && rest.bytes().next().is_some_and(first) && name.len() <= 32
        };
        for name in [&self.name].into_iter().chain(&self.groups) {
            ensure!(is_name(name), "{name:?} is not a name of a user or a group");
        }
        let mut fields = self.home.iter().chain(&self.shell).chain(&self.comment);
        if let Some(text) = fields.find(|text| text.contains([':', '\n', '\0'])) {
            bail!("{text:?} holds a colon or a line's end, which passwd cannot have");
        }
        if let Some(home) = self.home.as_ref() {
            guest_path(home)?;
        }
        let is_one = self.group.is_none() || self.gid.is_none();
        ensure!(is_one, "gid is the number of a new group, group one that is there; give one");
        let is_id = |id: Option<Int<u32>>| id != Some(Int(u32::MAX));
        ensure!(is_id(self.uid) && is_id(self.gid), "ids end at 4294967294");
        Ok(())
    }

    fn apply(&self, work: &mut Work<'_>) -> Result<()> {
        let users = work.table(PASSWD)?;
        let groups = work.table(GROUP)?;
        let name = &self.name;
        ensure!(!users.has(name), "the image's {PASSWD} has a user {name} already");
        let uid = match self.uid {
            Some(Int(uid)) => uid,
            None => free(&users)?,
        };
        if let Some(row) = users.of_number(uid, 2) {
            bail!("the uid {uid} is {}'s already", tree::shown(row.name()));
        }
        let gid = match &self.group {
            Some(Text(group)) => {
                let id: Id = group.parse().map_err(|()| anyhow!("{group:?} is not a group"))?;
                let gid = work.group_id(&id)?;
                let known = groups.of_number(gid, 2).is_some();
                ensure!(known, "the image's {GROUP} has no group {gid}");
                gid
            }
            None => {
                ensure!(
                    !groups.has(name),
                    "the image's {GROUP} has a group {name} already (group: {name} puts the user into it)"
                );
                let gid = match self.gid {
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
        for group in &self.groups {
            ensure!(groups.has(group), "the image's {GROUP} has no group {group:?}");
        }

        drop((users, groups));
        let home = self.home.clone().unwrap_or_else(|| format!("/home/{name}"));
        let shell = self.shell.as_deref().unwrap_or("/bin/sh");
        let comment = self.comment.as_deref().unwrap_or_default();
        let passwd = format!("{name}:x:{uid}:{gid}:{comment}:{home}:{shell}");
        work.edit_accounts(PASSWD, true, &[], name, Some(&passwd))?;
        let own_group = self.group.is_none().then(|| format!("{name}:x:{gid}:"));
        work.edit_accounts(GROUP, true, &self.groups, name, own_group.as_deref())?;
        let days = work.environment.time.sec.div_euclid(86400).max(0);
        let shadow = format!("{name}:!:{days}:0:99999:7:::");
        work.edit_accounts(SHADOW, false, &[], name, Some(&shadow))?;
        let own_gshadow = self.group.is_none().then(|| format!("{name}:!::"));
        work.edit_accounts(GSHADOW, false, &self.groups, name, own_gshadow.as_deref())?;
        if self.create_home.0 {
            work.make_home(&home, (uid, gid))?;
        }
        Ok(())
    }
}

impl Work<'_> {
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
                self.note(ChangeKind::Changed, &found.path)?;
            }
            None => {
                let inode = self.fresh(0o644, (0, 0), Kind::File(Content::bytes(new)));
                self.make_at(&found, ChangeKind::Made, inode)?;
            }
        }
        Ok(())
    }

    fn make_home(&mut self, home: &str, owner: (u32, u32)) -> Result<()> {
        let found = self.find(home.as_bytes(), Last::Follow, Parents::Make)?;
        let Some(id) = found.id else {
            let inode = self.fresh(0o700, owner, Kind::Dir(Dir::default()));
            self.make_at(&found, ChangeKind::Made, inode)?;
            return Ok(());
        };
        match &self.tree.inode(id).kind {
            Kind::Dir(_) => Ok(()),
            other => bail!("the home {} is {}", shown(&found.path), kind_name(other)),
        }
    }
}
