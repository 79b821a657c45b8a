//! What can be said of a patch before any image is opened.

use bundle::boot::lenient::Int;
use globset::GlobBuilder;
use regex::bytes::{Regex, RegexBuilder};

use super::patch::{NodeKind, Op, User};
use super::xattr::{check_name, xattr_value};

/// Checks what `op` says, each field by itself and together.
pub(crate) fn check(op: &Op) -> Result<(), String> {
    match op {
        Op::Write(op) => {
            guest_path(&op.path)?;
            if op.path.ends_with('/') {
                return Err("the path ends in a slash, as that of a directory does".into());
            }
            one_of(op.content.is_some(), op.from.is_some())
        }
        Op::Append(op) => {
            guest_path(&op.path)?;
            one_of(op.content.is_some(), op.from.is_some())
        }
        Op::Copy(op) => {
            guest_path(&op.path)?;
            op.exclude.iter().try_for_each(|pattern| glob(pattern))
        }
        Op::Extract(op) => guest_path(&op.path),
        Op::Diff(op) => {
            guest_path(&op.path)?;
            one_of(op.content.is_some(), op.from.is_some())
        }
        Op::Replace(op) => {
            guest_path(&op.path)?;
            let find = regex(&op.find)?;
            if op.count == Some(Int(0)) {
                return Err("count is 0; leave it out to replace every match".into());
            }
            groups(&find, &op.with)
        }
        Op::Mkdir(op) => guest_path(&op.path),
        Op::Symlink(op) => {
            guest_path(&op.path)?;
            match op.target.len() {
                _ if op.target.contains('\0') => Err("the target holds a NUL".into()),
                1..4096 => Ok(()),
                len => Err(format!("the target has {len} bytes; Linux allows 1 to 4095")),
            }
        }
        Op::Link(op) => guest_path(&op.path).and_then(|()| guest_path(&op.target)),
        Op::Remove(op) => guest_glob(&op.path),
        Op::Rename(op) => guest_path(&op.from).and_then(|()| guest_path(&op.path)),
        Op::Chmod(op) => guest_glob(&op.path),
        Op::Chown(op) => guest_glob(&op.path),
        Op::Xattr(op) => {
            guest_glob(&op.path)?;
            if op.set.is_empty() && op.remove.is_empty() {
                return Err("it sets and removes nothing".into());
            }
            for (name, text) in &op.set {
                xattr_value(name, text).map_err(|error| error.to_string())?;
            }
            op.remove.iter().try_for_each(|name| check_name(name)).map_err(|e| e.to_string())
        }
        Op::Mknod(op) => {
            guest_path(&op.path)?;
            match (op.kind, op.major, op.minor) {
                (NodeKind::Fifo, None, None) => Ok(()),
                (NodeKind::Fifo, ..) => Err("a fifo has no major and minor".into()),
                (NodeKind::Char, Some(Int(0)), Some(Int(0))) => {
                    Err("a character device 0:0 is overlayfs's whiteout".into())
                }
                (_, Some(Int(0..=0xfff)), Some(Int(0..=0xf_ffff))) => Ok(()),
                (_, Some(_), Some(_)) => {
                    Err("Linux has majors up to 4095 and minors up to 1048575".into())
                }
                _ => Err("a device needs major and minor".into()),
            }
        }
        Op::User(op) => user(op),
        Op::Include(_) => Ok(()),
    }
}

fn guest_path(path: &str) -> Result<(), String> {
    if !path.starts_with('/') {
        return Err(format!("the path {path:?} is not absolute"));
    }
    if path.contains('\0') {
        return Err("the path holds a NUL".into());
    }
    if path.len() > 4096 {
        return Err(format!("the path has {} bytes; Linux allows 4096", path.len()));
    }
    match path.split('/').find(|name| name.len() > 255) {
        Some(name) => Err(format!("a name of {} bytes; Linux allows 255", name.len())),
        None => Ok(()),
    }
}

/// A path whose components may be globs. Whether they are sound ones counts only
/// where no file has such a name.
fn guest_glob(path: &str) -> Result<(), String> {
    match path.contains(['*', '?', '[', '{']) {
        true if path.starts_with('/') && !path.contains('\0') && path.len() <= 4096 => Ok(()),
        _ => guest_path(path),
    }
}

fn one_of(content: bool, from: bool) -> Result<(), String> {
    match (content, from) {
        (true, true) => Err("it has both content and from; one of them is enough".into()),
        (false, false) => Err("it needs content, or from with a file of the host".into()),
        _ => Ok(()),
    }
}

fn glob(pattern: &str) -> Result<(), String> {
    GlobBuilder::new(pattern).build().map(drop).map_err(|error| error.to_string())
}

/// A regular expression over bytes, in which ^ and $ are the ends of a line.
///
/// # Errors
/// It fails when `pattern` is not a regular expression, with a text that says so.
pub fn regex(pattern: &str) -> Result<Regex, String> {
    let built = RegexBuilder::new(pattern).multi_line(true).build();
    // The parser draws its errors, over lines that end in what is wrong.
    built.map_err(|error| {
        let text = error.to_string();
        let last = text.lines().last().unwrap_or_default().trim_start_matches("error: ");
        format!("find is not a regular expression: {last}")
    })
}

/// Whether `find` has every group that `with` refers to.
fn groups(find: &Regex, with: &str) -> Result<(), String> {
    let word = |b: char| b.is_ascii_alphanumeric() || b == '_';
    let mut rest = with;
    while let Some(at) = rest.find('$') {
        rest = &rest[at + 1..];
        if let Some(behind) = rest.strip_prefix('$') {
            rest = behind;
            continue;
        }
        let braced = rest.strip_prefix('{').and_then(|rest| rest.split_once('}'));
        let name = match braced {
            Some((name, _)) => name,
            None => &rest[..rest.find(|c| !word(c)).unwrap_or(rest.len())],
        };
        if name.is_empty() {
            continue;
        }
        let known = match name.parse::<usize>() {
            Ok(number) => number < find.captures_len(),
            Err(_) => find.capture_names().flatten().any(|known| known == name),
        };
        if !known {
            return Err(format!("{with:?} uses the group {name:?}, which {find} does not have"));
        }
    }
    Ok(())
}

fn user(op: &User) -> Result<(), String> {
    let is_name = |name: &str| {
        let rest = name.strip_suffix('$').unwrap_or(name);
        let fits = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.');
        let first = |b: u8| b.is_ascii_alphabetic() || b == b'_';
        rest.bytes().all(fits) && rest.bytes().next().is_some_and(first) && name.len() <= 32
    };
    for name in [&op.name].into_iter().chain(&op.groups) {
        if !is_name(name) {
            return Err(format!("{name:?} is not a name of a user or a group"));
        }
    }
    let mut fields = op.home.iter().chain(&op.shell).chain(&op.comment);
    if let Some(text) = fields.find(|text| text.contains([':', '\n', '\0'])) {
        return Err(format!("{text:?} holds a colon or a line's end, which passwd cannot have"));
    }
    if let Some(home) = op.home.as_ref() {
        guest_path(home)?;
    }
    if op.group.is_some() && op.gid.is_some() {
        return Err("gid is the number of a new group, group one that is there; give one".into());
    }
    if [op.uid, op.gid].contains(&Some(Int(u32::MAX))) {
        return Err("ids end at 4294967294".into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_that_a_replacement_names_must_be_there() {
        let find = regex("^(a)(?P<word>b)").unwrap();
        for fine in ["", "$1", "${word}$2", "$$9", "cost: $", "$word ${1}x"] {
            assert_eq!(groups(&find, fine), Ok(()), "{fine}");
        }
        for bad in ["$3", "$1x", "${none}"] {
            assert!(groups(&find, bad).is_err(), "{bad}");
        }
    }
}
