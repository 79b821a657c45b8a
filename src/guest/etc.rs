//! /etc/hosts, /etc/resolv.conf and /etc/hostname: what the image has there stays,
//! and ours fills in what it leaves open.
//!
//! Builders leave empty files in images, because an engine's own cover them while
//! they build; so an empty file says nothing, as does one of comments alone.

use crate::arena::{Str, join};
use crate::config::{Config, bare};
use crate::root::{NOTHING, Root, links, make_dirs};
use crate::sys::{self, Stat};
use crate::wire::key;
use crate::{Doing, Failure, note};

/// Bytes of such a file of the image; a larger one stays as it is.
const LIMIT: usize = 1 << 20;

const LOCALHOST: &[u8] = b"127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n";
const MULTICAST: &[u8] = b"ff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n";

/// A file in memory that may go over the image's.
pub struct Own {
    pub path: Str,
    /// Open for writing.
    fd: usize,
    /// Its mount tree.
    tree: usize,
}

/// In PID 1: makes the files, which are empty.
pub fn make() -> Result<[Own; 3], Failure> {
    let make = |path: Str| -> sys::Result<Own> {
        let name = path.strip_prefix(b"/etc/").unwrap_or(path);
        let at = join(&[b"/files/", name]);
        let fd = sys::open(at, sys::O_WRONLY | sys::O_CREAT, 0o644)?;
        Ok(Own { path, fd, tree: sys::detached(at)? })
    };
    let make_all = || -> sys::Result<[Own; 3]> {
        sys::mount(b"files\0", b"/files\0", b"tmpfs\0", NOTHING, b"mode=755\0")?;
        Ok([make(b"/etc/hosts\0")?, make(b"/etc/resolv.conf\0")?, make(b"/etc/hostname\0")?])
    };
    make_all().doing(&[b"making files for /etc"])
}

/// In the command's root, with all that is mounted there: decides on each file.
/// Returns the machine's name.
pub fn fill(root: &Root, config: &Config) -> Str {
    let [hosts, resolv, hostname] = &root.own;
    let name = fill_hostname(hostname, config, root.control);
    fill_resolv(resolv, config, root.control);
    fill_hosts(hosts, config, bare(name), root.control);
    name
}

/// The name that somebody asked for, else the image's, else the bundle's.
fn fill_hostname(own: &Own, config: &Config, control: usize) -> Str {
    let ours = config.one(key::HOSTNAME).unwrap_or(b"localhost\0");
    let found = look(own, control);
    if let (Found::Text(text, _), false) = (&found, config.has(key::HOSTNAME_ASKED))
        && let Some(theirs) = said(text, b"#").find(|line| is_name(line))
    {
        return join(&[theirs]);
    }
    found.cover(own, &[bare(ours), b"\n"], control);
    ours
}

/// Whether a line of /etc/hostname names a machine. A distribution's "localhost"
/// names none.
fn is_name(line: &[u8]) -> bool {
    let fits = |b: &u8| b.is_ascii_alphanumeric() || b"-._".contains(b);
    let nobody = line == b"localhost" || line == b"localhost.localdomain";
    line.len() <= 64 && line.iter().all(fits) && !nobody
}

fn fill_resolv(own: &Own, config: &Config, control: usize) {
    let found = look(own, control);
    let says = matches!(found, Found::Text(text, _) if said(text, b"#;").next().is_some());
    if config.has(key::RESOLV_ASKED) || !says {
        found.cover(own, &[bare(config.one(key::RESOLV).unwrap_or(b"\0"))], control);
    }
}

/// The first line that has a name counts, so what was asked for goes in front of
/// the image's lines, and what they leave out behind them.
fn fill_hosts(own: &Own, config: &Config, name: &[u8], control: usize) {
    let found = look(own, control);
    let theirs = match &found {
        Found::Text(text, _) if said(text, b"#").next().is_some() => *text,
        _ => b"",
    };
    let asked = bare(config.one(key::HOSTS_FIRST).unwrap_or(b"\0"));
    let has = |name: &[u8]| names(asked, name) || names(theirs, name);
    let (mut localhost, mut multicast, mut itself) = (&b""[..], &b""[..], &b""[..]);
    if !names(theirs, b"localhost") {
        localhost = LOCALHOST;
    }
    if theirs.is_empty() {
        multicast = MULTICAST;
    }
    if !has(name) {
        itself = join(&[b"127.0.1.1\t", name, b"\n"]);
    }
    let complete = asked.is_empty() && localhost.is_empty() && itself.is_empty();
    if !complete {
        let newline: &[u8] = if theirs.is_empty() || theirs.ends_with(b"\n") { b"" } else { b"\n" };
        found.cover(own, &[asked, theirs, newline, localhost, multicast, bare(itself)], control);
    }
}

/// The lines that say something, without the space around them.
fn said(text: &'static [u8], comment: &'static [u8]) -> impl Iterator<Item = &'static [u8]> {
    let lines = text.split(|b| *b == b'\n').map(<[u8]>::trim_ascii);
    lines.filter(move |line| line.first().is_some_and(|first| !comment.contains(first)))
}

/// Whether a line of /etc/hosts has `name`, behind its address.
fn names(text: &[u8], name: &[u8]) -> bool {
    text.split(|b| *b == b'\n').any(|line| {
        let line = line.split(|b| *b == b'#').next().unwrap_or(line);
        let words = line.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
        words.skip(1).any(|word| word == name)
    })
}

/// What the image has in the place of a file.
enum Found {
    /// Nothing, or a link that leads nowhere.
    Nothing,
    Text(&'static [u8], Stat),
    /// Nothing that ours could go over.
    Other,
}

fn look(own: &Own, control: usize) -> Found {
    let path = own.path;
    let stat = match sys::stat(path) {
        Ok(stat) => stat,
        Err(sys::ENOENT) => return Found::Nothing,
        Err(errno) => {
            note(control, errno, &[b"no ", bare(path), b" of the machine's own"]);
            return Found::Other;
        }
    };
    // A device may be what a link of the image means: /etc/resolv.conf -> /dev/null.
    let read = if stat.is_file() { sys::read_file(path, LIMIT) } else { Err(0) };
    match read {
        Ok(text) => Found::Text(text, stat),
        Err(0) => {
            note(control, 0, &[bare(path), b" of the image is not a file; it stays"]);
            Found::Other
        }
        Err(errno) => {
            note(control, errno, &[bare(path), b" of the image stays"]);
            Found::Other
        }
    }
}

impl Found {
    /// Puts `own` with the content `parts` over it, mode and owner as they are.
    fn cover(&self, own: &Own, parts: &[&[u8]], control: usize) {
        let cover = || {
            match self {
                Self::Other => return Ok(()),
                Self::Nothing => make_file(own.path)?,
                Self::Text(_, like) => {
                    sys::fchown(own.fd, like.uid, like.gid)?;
                    sys::fchmod(own.fd, usize::from(like.mode & 0o7777))?;
                }
            }
            parts.iter().try_for_each(|part| sys::write_all(own.fd, part))?;
            sys::attach(own.tree, own.path)
        };
        if let Err(errno) = cover() {
            note(control, errno, &[b"no ", bare(own.path), b" of the machine's own"]);
        }
    }
}

/// Makes the empty file that `path` leads to, and the directories on the way to
/// it: a link into a /run that is new finds nothing there.
fn make_file(path: Str) -> sys::Result<()> {
    let at = links(path).last().unwrap_or(path);
    let parent = at.iter().rposition(|b| *b == b'/').unwrap_or(0);
    make_dirs(join(&[&at[..parent], b"/"]))?;
    sys::open(at, sys::O_WRONLY | sys::O_CREAT, 0o644).map(sys::close)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_has_the_names_behind_its_address() {
        let hosts = b"127.0.0.1\tlocalhost  box # spare\n#10.0.0.1 gone\n10.0.0.2\n";
        for name in [&b"localhost"[..], b"box"] {
            assert!(names(hosts, name), "{name:?}");
        }
        for name in [&b"127.0.0.1"[..], b"spare", b"gone", b"local", b"10.0.0.2", b""] {
            assert!(!names(hosts, name), "{name:?}");
        }
    }

    #[test]
    fn empty_lines_and_comments_say_nothing() {
        let lines: Vec<_> = said(b"\n  # a\n; b\n \t\n nameserver 1.1.1.1 \n", b"#;").collect();
        assert_eq!(lines, [b"nameserver 1.1.1.1"]);
        assert_eq!(said(b"; b", b"#").count(), 1);
    }

    #[test]
    fn a_name_that_every_machine_has_names_none() {
        for line in [&b"box"[..], b"a.b-c_1"] {
            assert!(is_name(line), "{line:?}");
        }
        for line in [&b"localhost"[..], b"localhost.localdomain", b"a b", b"a/b", &[b'a'; 65]] {
            assert!(!is_name(line), "{line:?}");
        }
    }
}
