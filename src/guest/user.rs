//! Who the command runs as, by the image's own /etc/passwd and /etc/group.

use crate::Failure;
use crate::arena::{Str, join};
use crate::config::number;
use crate::sys;
use crate::wire::code;

const MOST_GROUPS: usize = 256;
/// Bytes of each of the two files.
const LIMIT: usize = 1 << 20;

pub struct User {
    pub uid: u32,
    pub gid: u32,
    groups: [u32; MOST_GROUPS],
    count: usize,
    /// With its NUL.
    pub home: Str,
}

impl User {
    pub fn groups(&self) -> &[u32] {
        &self.groups[..self.count]
    }

    /// Understands `USER[:GROUP]` by the files of the image.
    pub fn find(text: &'static [u8]) -> Result<Self, Failure> {
        Self::among(text, file(b"/etc/passwd\0")?, file(b"/etc/group\0")?)
    }

    /// Understands `USER[:GROUP]`, each a name or a number; nothing is root.
    /// A user who is known belongs to its groups, unless one is named.
    fn among(
        text: &'static [u8],
        passwd: &'static [u8],
        groups: &'static [u8],
    ) -> Result<Self, Failure> {
        let mut parts = text.splitn(2, |b| *b == b':');
        let user = parts.next().filter(|u| !u.is_empty()).unwrap_or(b"0");
        let group = parts.next().filter(|g| !g.is_empty());
        let mut found = Self { uid: 0, gid: 0, groups: [0; MOST_GROUPS], count: 0, home: b"/\0" };
        let uid = number(user);
        let entry = lines(passwd).find(|line| match uid {
            Some(uid) => field(line, 2).and_then(number) == Some(uid),
            None => field(line, 0) == Some(user),
        });
        let mut name = None;
        match (entry, uid) {
            (Some(line), _) => {
                found.uid = id(field(line, 2).and_then(number), b"user ", user)?;
                found.gid = id(field(line, 3).and_then(number), b"group of user ", user)?;
                name = field(line, 0);
                if let Some(home) = field(line, 5).filter(|home| !home.is_empty()) {
                    found.home = join(&[home]);
                }
            }
            (None, Some(uid)) => found.uid = id(Some(uid), b"user ", user)?,
            (None, None) => return Err(unknown(b"/etc/passwd knows no user ", user)),
        }
        if let Some(group) = group {
            let gid = match number(group) {
                Some(gid) => Some(gid),
                None => lines(groups)
                    .find(|line| field(line, 0) == Some(group))
                    .and_then(|line| field(line, 2))
                    .and_then(number),
            };
            if gid.is_none() {
                return Err(unknown(b"/etc/group knows no group ", group));
            }
            found.gid = id(gid, b"group ", group)?;
        } else if let Some(name) = name {
            for line in lines(groups) {
                let mut members = field(line, 3).unwrap_or(b"").split(|b| *b == b',');
                let gid = field(line, 2).and_then(number).and_then(|gid| u32::try_from(gid).ok());
                if let Some(gid) = gid.filter(|_| members.any(|member| member == name))
                    && found.count < MOST_GROUPS
                {
                    found.groups[found.count] = gid;
                    found.count += 1;
                }
            }
        }
        Ok(found)
    }
}

/// An id that the kernel takes; the last number means "no change" to it.
fn id(n: Option<u64>, what: &[u8], whose: &[u8]) -> Result<u32, Failure> {
    let fits = n.and_then(|n| u32::try_from(n).ok()).filter(|n| *n != u32::MAX);
    fits.ok_or_else(|| unknown(what, join(&[whose, b": not a number below 4294967295"])))
}

fn unknown(what: &[u8], whose: &[u8]) -> Failure {
    Failure { code: code::MACHINE_FAILED, errno: 0, what: join(&[what, whose]) }
}

/// A file of the image; empty if it has none, or something else in its place.
fn file(path: Str) -> Result<&'static [u8], Failure> {
    if sys::stat(path).is_ok_and(|stat| !stat.is_file()) {
        return Ok(b"");
    }
    match sys::read_file(path, LIMIT) {
        Err(sys::ENOENT | sys::ENOTDIR) => Ok(b""),
        Err(errno) => {
            Err(Failure { code: code::MACHINE_FAILED, errno, what: join(&[b"reading ", path]) })
        }
        Ok(bytes) => Ok(bytes),
    }
}

fn lines(text: &'static [u8]) -> impl Iterator<Item = &'static [u8]> {
    text.split(|b| *b == b'\n').map(|line| line.trim_ascii())
}

fn field(line: &'static [u8], n: usize) -> Option<&'static [u8]> {
    line.split(|b| *b == b':').nth(n)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &[u8] = b"root:x:0:0:root:/root:/bin/sh\n\
        # a comment\n\
        app:x:1000:100::/home/app:/bin/sh\r\n\
        app:x:7:7::/second:/bin/sh\n\
        homeless:x:8:8:::\n\
        short:x:9\n\
        all:x:4294967295:0::/:\n\
        big:x:4294967296:0::/:\n";
    const GROUP: &[u8] = b"root:x:0:\nstaff:x:50:app,other\nwheel:x:10:other,app\n\
        apps:x:51:application\nodd:x:many:app\n";

    /// User, group, groups, home; or what is wrong.
    fn find(text: &'static [u8]) -> Result<(u32, u32, Vec<u32>, Str), String> {
        let failure = |f: Failure| String::from_utf8(f.what.to_vec()).unwrap();
        let user = User::among(text, PASSWD, GROUP).map_err(failure)?;
        Ok((user.uid, user.gid, user.groups().to_vec(), user.home))
    }

    #[test]
    fn nothing_is_root() {
        assert_eq!(find(b""), Ok((0, 0, vec![], &b"/root\0"[..])));
        assert_eq!(find(b":"), find(b"root"));
        let user = User::among(b"", b"", b"").unwrap_or_else(|_| panic!("an image without files"));
        assert_eq!((user.uid, user.gid, user.home), (0, 0, &b"/\0"[..]));
    }

    #[test]
    fn a_known_user_has_the_groups_that_name_it() {
        let app = Ok((1000, 100, vec![50, 10], &b"/home/app\0"[..]));
        assert_eq!(find(b"app"), app);
        // A number is looked up, too.
        assert_eq!(find(b"1000"), app);
    }

    #[test]
    fn a_named_group_is_the_only_one() {
        let of = |group| Ok((1000, group, vec![], &b"/home/app\0"[..]));
        assert_eq!(find(b"app:wheel"), of(10));
        assert_eq!(find(b"app:12345"), of(12345));
    }

    #[test]
    fn a_number_need_not_be_known() {
        assert_eq!(find(b"12345"), Ok((12345, 0, vec![], &b"/\0"[..])));
        assert_eq!(find(b"12345:staff"), Ok((12345, 50, vec![], &b"/\0"[..])));
        assert_eq!(find(b"homeless"), Ok((8, 8, vec![], &b"/\0"[..])));
    }

    #[test]
    fn what_cannot_be_is_named() {
        for (text, what) in [
            (&b"nobody"[..], "/etc/passwd knows no user nobody"),
            (b"app:nobody", "/etc/group knows no group nobody"),
            (b"short", "group of user short: not a number below"),
            (b"all", "user all: not a number below 4294967295"),
            (b"big", "user big: not a number below 4294967295"),
            (b"4294967295", "user 4294967295: not a number below"),
            (b"app:4294967295", "group 4294967295: not a number below"),
        ] {
            let error = find(text).expect_err("there is no such user");
            assert!(error.starts_with(what), "{error}");
        }
    }

    #[test]
    fn more_groups_than_there_is_room_for_are_left_out() {
        let groups: String = (0..300).map(|n| format!("g{n}:x:{n}:app\n")).collect();
        let Ok(user) = User::among(b"app", PASSWD, groups.leak().as_bytes()) else { panic!() };
        assert_eq!(user.groups(), (0..MOST_GROUPS as u32).collect::<Vec<_>>());
    }
}
