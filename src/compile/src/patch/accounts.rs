//! Users and groups as the image's own files know them.

use anyhow::{Result, anyhow, bail, ensure};
use fsimage::tree::{InodeId, Kind};

use super::resolve::{Last, Parents};
use super::work::Work;
use crate::patch::owner::{Group, Id, Owner};
use crate::patch::shown::kind_name;

pub(super) const PASSWD: &str = "/etc/passwd";
pub(super) const GROUP: &str = "/etc/group";

/// Bytes of a file of accounts: more would be no such file.
const MAX_BYTES: u64 = 16 << 20;

/// A file of accounts. Its lines are taken apart when they are looked at: a list of
/// them would take many times what a file of empty ones has.
#[derive(Default)]
pub(super) struct Table(Vec<u8>);

/// A line of a [`Table`].
#[derive(Clone, Copy)]
pub(super) struct Row<'t>(&'t [u8]);

impl<'t> Row<'t> {
    pub(super) fn new(line: &'t [u8]) -> Self {
        Self(line)
    }

    /// What stands behind the first `column` colons, up to the next.
    fn field(self, column: usize) -> Option<&'t [u8]> {
        self.0.split(|b| *b == b':').nth(column)
    }

    pub(super) fn name(self) -> &'t [u8] {
        self.field(0).unwrap_or_default()
    }

    /// The number in column `column`.
    pub(super) fn number(self, column: usize) -> Option<u32> {
        std::str::from_utf8(self.field(column)?).ok()?.parse().ok()
    }
}

impl Table {
    pub(super) fn new(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    pub(super) fn rows(&self) -> impl Iterator<Item = Row<'_>> {
        self.0.split(|b| *b == b'\n').filter(|line| !line.is_empty()).map(Row)
    }

    /// The number in column `column` of the line that begins with `name`.
    pub(super) fn number(&self, name: &str, column: usize) -> Option<u32> {
        self.rows().find(|row| row.name() == name.as_bytes())?.number(column)
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.rows().any(|row| row.name() == name.as_bytes())
    }

    /// The first line whose `column` is the number `id`.
    pub(super) fn of_number(&self, id: u32, column: usize) -> Option<Row<'_>> {
        self.rows().find(|row| row.number(column) == Some(id))
    }
}

impl Work<'_> {
    /// The file of accounts at `path`, or `None` if the image has none.
    pub(super) fn account_file(&mut self, path: &str) -> Result<Option<(InodeId, Vec<u8>)>> {
        // Without /etc there is no such file either.
        let Ok(found) = self.find(path.as_bytes(), Last::Follow, Parents::Need) else {
            return Ok(None);
        };
        let Some(id) = found.id else {
            return Ok(None);
        };
        match &self.tree.inode(id).kind {
            Kind::File(content) => {
                let size = content.size();
                ensure!(size <= MAX_BYTES, "{path} has {size} bytes");
                Ok(Some((id, content.read(&self.disks)?)))
            }
            other => bail!("{path} is {}", kind_name(other)),
        }
    }

    pub(super) fn table(&mut self, path: &str) -> Result<Table> {
        let file = self.account_file(path)?;
        Ok(Table::new(file.map_or(Vec::new(), |(_, bytes)| bytes)))
    }

    pub(super) fn group_id(&mut self, id: &Id) -> Result<u32> {
        match id {
            Id::Number(number) => Ok(*number),
            Id::Name(name) => {
                let number = self.table(GROUP)?.number(name, 2);
                number.ok_or_else(|| anyhow!("the image's {GROUP} has no group {name:?}"))
            }
        }
    }

    /// The numbers that `owner` says.
    pub(super) fn ids(&mut self, owner: &Owner) -> Result<(Option<u32>, Option<u32>)> {
        let wants_login = matches!(owner.group, Some(Group::Login));
        let named = matches!(owner.user, Some(Id::Name(_)));
        let users = if wants_login || named { self.table(PASSWD)? } else { Table::default() };
        let uid = match &owner.user {
            None => None,
            Some(Id::Number(number)) => Some(*number),
            Some(Id::Name(name)) => {
                let number = users.number(name, 2);
                Some(number.ok_or_else(|| anyhow!("the image's {PASSWD} has no user {name:?}"))?)
            }
        };
        let gid = match (&owner.group, &owner.user) {
            (None, _) | (Some(Group::Login), None) => None,
            (Some(Group::Id(id)), _) => Some(self.group_id(id)?),
            (Some(Group::Login), Some(user)) => {
                let (login, shown) = match user {
                    Id::Name(name) => (users.number(name, 3), name.clone()),
                    Id::Number(number) => {
                        let row = users.of_number(*number, 2);
                        (row.and_then(|row| row.number(3)), number.to_string())
                    }
                };
                let none = || anyhow!("the image's {PASSWD} has no login group of {shown:?}");
                Some(login.ok_or_else(none)?)
            }
        };
        Ok((uid, gid))
    }

    /// The owner that `owner` makes of `uid` and `gid`.
    pub(super) fn owner(
        &mut self,
        owner: Option<&Owner>,
        (uid, gid): (u32, u32),
    ) -> Result<(u32, u32)> {
        let ids = owner.map(|owner| self.ids(owner)).transpose()?;
        let (new_uid, new_gid) = ids.unwrap_or_default();
        Ok((new_uid.unwrap_or(uid), new_gid.unwrap_or(gid)))
    }
}
