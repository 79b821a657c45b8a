//! Xattrs of a tar entry, and ACLs written as text.

use anyhow::{Context as _, Result, bail, ensure};
use fsimage::erofs::split_xattr_name;
use fsimage::tree::{DROPPED_XATTRS, PRIVATE_XATTRS, Xattr, Xattrs, shown};
use fsimage::xattr::acl::{self, AclEntry};
use fsimage::xattr::{Holder, check};

use super::pax::Pax;

/// Bytes of names that are kept of xattrs which one file lost.
const MAX_DROPPED: usize = 16 << 10;

/// The xattrs that `pax` describes, of a `holder` whose mode is `mode`. What no image
/// file system may have, and what Linux lets no inode of the kind have, is left out, and
/// listed in [`DROPPED_XATTRS`]: a guest could not copy it up.
pub(super) fn from_pax(pax: &Pax, holder: Holder, mode: u16, max_bytes: u64) -> Result<Xattrs> {
    // The xattrs in the tar's order, each with whether it is set or taken away. They are
    // sorted once, however many there are.
    let mut found: Vec<(Xattr, bool)> = Vec::new();
    let mut dropped: Vec<Vec<u8>> = Vec::new();
    for (key, value) in pax.iter() {
        let (name, value) = if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
            (name.to_vec(), value.to_vec())
        } else if let Some(name) = key.strip_prefix(b"LIBARCHIVE.xattr.") {
            (percent_decoded(name), base64_decoded(value)?)
        } else if let Some(which) = key.strip_prefix(b"SCHILY.acl.") {
            let name = match which {
                b"access" => acl::ACCESS.as_bytes(),
                b"default" => acl::DEFAULT.as_bytes(),
                _ => continue,
            };
            match acl_from_text(value)? {
                // Three entries of an access ACL say no more than the mode does.
                Some(acl) if which == b"access" && acl.len() <= 4 + 3 * 8 => continue,
                Some(acl) => (name.to_vec(), acl),
                None => {
                    dropped.push(name.to_vec());
                    continue;
                }
            }
        } else {
            continue;
        };
        if is_removal(&name, &value) {
            found.push((Xattr { name: name.into(), value: Box::default() }, false));
            continue;
        }
        check(&name, &value).with_context(|| format!("xattr {}", shown(&name)))?;
        let ours = name.starts_with(b"trusted.overlay.") || name.starts_with(PRIVATE_XATTRS);
        if ours || split_xattr_name(&name).is_none() || !holder.can_have(&name) {
            dropped.push(name);
        } else {
            found.push((Xattr { name: name.into(), value: value.into() }, true));
        }
    }
    let mut xattrs = last_of_each(found);
    follow_mode(&mut xattrs, mode);
    let bytes: usize = xattrs.iter().map(|x| x.name.len() + x.value.len()).sum();
    ensure!(
        bytes as u64 <= max_bytes,
        "xattrs of {bytes} bytes (raise --max-xattr-bytes to allow more than {max_bytes})"
    );
    if !dropped.is_empty() {
        dropped.sort();
        dropped.dedup();
        // It is an xattr itself, which cannot have any length.
        let mut bytes = 0;
        let few = dropped.iter().take_while(|name| {
            bytes += name.len() + 1;
            bytes <= MAX_DROPPED
        });
        xattrs.set(DROPPED_XATTRS, few.map(Vec::as_slice).collect::<Vec<_>>().join(&0));
    }
    Ok(xattrs)
}

/// Lets an access ACL say of owner, group class and others what `mode` does, as Linux
/// would; one that then says no more than the mode is not kept. Docker and containerd
/// set the mode behind the xattrs, so that it decides where the two do not fit.
fn follow_mode(xattrs: &mut Xattrs, mode: u16) {
    let Some(entries) = xattrs.get(acl::ACCESS.as_bytes()).and_then(acl::parse) else {
        return;
    };
    if acl::is_plain(&entries) {
        xattrs.remove(acl::ACCESS.as_bytes());
    } else {
        let entries = acl::with_mode(&entries, mode);
        xattrs.set(acl::ACCESS.as_bytes(), acl::encode(&entries));
    }
}

/// What is left of xattrs that are set, or taken away, one after the other.
fn last_of_each(mut found: Vec<(Xattr, bool)>) -> Xattrs {
    // A stable sort: the last of equals is the last that came.
    found.sort_by(|(a, _), (b, _)| a.name.cmp(&b.name));
    let same = found.chunk_by(|(a, _), (b, _)| a.name == b.name);
    let last = same.filter_map(|same| same.last().filter(|(_, set)| *set));
    last.map(|(xattr, _)| xattr.clone()).collect()
}

/// Linux takes an ACL without entries as the wish to have none.
fn is_removal(name: &[u8], value: &[u8]) -> bool {
    let is_acl = [acl::ACCESS, acl::DEFAULT].iter().any(|acl| acl.as_bytes() == name);
    is_acl && value == acl::encode(&[])
}

fn percent_decoded(name: &[u8]) -> Vec<u8> {
    let digit = |b: Option<&u8>| b.and_then(|b| char::from(*b).to_digit(16));
    let mut out = Vec::new();
    let mut at = 0;
    while at < name.len() {
        match (name[at], digit(name.get(at + 1)), digit(name.get(at + 2))) {
            (b'%', Some(high), Some(low)) => {
                out.push((high * 16 + low) as u8);
                at += 3;
            }
            (byte, ..) => {
                out.push(byte);
                at += 1;
            }
        }
    }
    out
}

fn base64_decoded(text: &[u8]) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    let (mut bits, mut held) = (0u32, 0);
    for byte in text.iter().filter(|b| !matches!(b, b'=' | b'\n' | b'\r')) {
        let value = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => bail!("a LIBARCHIVE.xattr value is not base64"),
        };
        bits = bits << 6 | u32::from(value);
        held += 6;
        if held >= 8 {
            held -= 8;
            out.push((bits >> held) as u8);
        }
    }
    Ok(out)
}

/// The kernel's form of a text ACL (`user::rwx,user:1000:r-x,…`).
///
/// `None` when it names a user by a name and gives no number: which number
/// that is, only the image's own /etc/passwd could say.
fn acl_from_text(text: &[u8]) -> Result<Option<Vec<u8>>> {
    let mut entries = Vec::new();
    for line in text.split(|b| matches!(b, b',' | b'\n')) {
        let line = line.split(|b| *b == b'#').next().unwrap_or_default().trim_ascii();
        if line.is_empty() {
            continue;
        }
        let fields: Vec<&[u8]> = line.split(|b| *b == b':').map(<[u8]>::trim_ascii).collect();
        // "mask:rwx" and "other:rwx" may leave the empty qualifier out.
        let (tag, who, perm, number) = match fields[..] {
            [tag, perm] => (tag, &b""[..], perm, None),
            [tag, who, perm] => (tag, who, perm, None),
            [tag, who, perm, number] => (tag, who, perm, Some(number)),
            _ => bail!("the ACL entry \"{}\" is malformed", shown(line)),
        };
        let mut bits = 0;
        for byte in perm {
            bits |= match byte {
                b'r' => 4,
                b'w' => 2,
                b'x' => 1,
                b'-' => 0,
                _ => bail!("the ACL entry \"{}\" is malformed", shown(line)),
            };
        }
        let named = !who.is_empty();
        let tag = match (tag, named) {
            (b"user" | b"u", false) => acl::USER_OBJ,
            (b"user" | b"u", true) => acl::USER,
            (b"group" | b"g", false) => acl::GROUP_OBJ,
            (b"group" | b"g", true) => acl::GROUP,
            (b"mask" | b"m", _) => acl::MASK,
            (b"other" | b"o", _) => acl::OTHER,
            _ => bail!("the ACL entry \"{}\" is malformed", shown(line)),
        };
        let id = if named {
            let digits = number.unwrap_or(who);
            match std::str::from_utf8(digits).ok().and_then(|text| text.parse().ok()) {
                Some(id) => id,
                None => return Ok(None),
            }
        } else {
            u32::MAX
        };
        entries.push(AclEntry { tag, id, perm: bits });
    }
    entries.sort_unstable();
    Ok(Some(acl::encode(&entries)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(key: &str, value: &[u8]) -> Vec<u8> {
        let body = [b" ", key.as_bytes(), b"=", value, b"\n"].concat();
        let mut len = body.len() + 1;
        while len != body.len() + len.to_string().len() {
            len = body.len() + len.to_string().len();
        }
        [len.to_string().as_bytes(), &body].concat()
    }

    fn xattrs(records: &[(&str, &[u8])]) -> Xattrs {
        let bytes: Vec<u8> = records.iter().flat_map(|(k, v)| record(k, v)).collect();
        from_pax(&Pax::parse(bytes).unwrap(), Holder::Dir, 0o750, 1 << 20).unwrap()
    }

    #[test]
    fn what_linux_lets_no_inode_of_the_kind_have_is_dropped_and_named() {
        let acl: &[u8] = b"user::rwx,user:1000:r-x,group::r--,mask::r-x,other::---";
        let records = [
            ("SCHILY.acl.access", acl),
            ("SCHILY.acl.default", acl),
            ("SCHILY.xattr.user.x", b"1"),
            ("SCHILY.xattr.trusted.x", b"2"),
        ];
        let bytes: Vec<u8> = records.iter().flat_map(|(k, v)| record(k, v)).collect();
        let pax = Pax::parse(bytes).unwrap();
        let dropped = |holder| {
            let xattrs = from_pax(&pax, holder, 0o750, 1 << 20).unwrap();
            assert_eq!(xattrs.get(b"trusted.x"), Some(&b"2"[..]));
            let dropped = xattrs.get(DROPPED_XATTRS).unwrap_or_default();
            assert_eq!(xattrs.get(b"user.x").is_none(), dropped.ends_with(b"user.x"));
            String::from_utf8(dropped.to_vec()).unwrap().replace('\0', " ")
        };
        assert_eq!(dropped(Holder::Dir), "");
        assert_eq!(dropped(Holder::File), "system.posix_acl_default");
        assert_eq!(dropped(Holder::Other), "system.posix_acl_default user.x");
        let all = "system.posix_acl_access system.posix_acl_default user.x";
        assert_eq!(dropped(Holder::Symlink), all);
    }

    #[test]
    fn an_access_acl_follows_the_mode() {
        let of = |text: &str, mode| {
            let records = record("SCHILY.acl.access", text.as_bytes());
            let value = acl_from_text(text.as_bytes()).unwrap().unwrap();
            let binary = record("SCHILY.xattr.system.posix_acl_access", &value);
            let [text, binary] = [records, binary].map(|records| {
                let pax = Pax::parse(records).unwrap();
                let xattrs = from_pax(&pax, Holder::File, mode, 1 << 20).unwrap();
                xattrs.get(acl::ACCESS.as_bytes()).map(|value| acl::parse(value).unwrap())
            });
            assert_eq!(text, binary);
            binary.map(|entries| entries.iter().map(|entry| entry.perm).collect::<Vec<_>>())
        };
        let all = "user::rwx,user:1000:rwx,group::rwx,mask::rwx,other::rwx";
        assert_eq!(of(all, 0o600), Some(vec![6, 7, 7, 0, 0]));
        assert_eq!(of(all, 0o4777), Some(vec![7; 5]));
        let masked = "user::rw-,user:1000:rwx,group::r--,mask::---,other::r--";
        assert_eq!(of(masked, 0o664), Some(vec![6, 7, 4, 6, 4]));
        assert_eq!(of("user::rwx,group::rwx,other::rwx", 0o600), None);
    }

    #[test]
    fn both_spellings_keep_binary_and_empty_values() {
        let x = xattrs(&[
            ("SCHILY.xattr.user.a", b"\0\n="),
            ("SCHILY.xattr.user.empty", b""),
            ("LIBARCHIVE.xattr.user.b%25c", b"AAEC/w"),
        ]);
        assert_eq!(x.get(b"user.a"), Some(&b"\0\n="[..]));
        assert_eq!(x.get(b"user.empty"), Some(&b""[..]));
        assert_eq!(x.get(b"user.b%c"), Some(&[0, 1, 2, 255][..]));
    }

    #[test]
    fn what_is_noted_of_lost_xattrs_fits_an_xattr() {
        let records: Vec<Vec<u8>> =
            (0..10_000).map(|i| record(&format!("SCHILY.xattr.foreign.{i:0100}"), b"")).collect();
        let pax = Pax::parse(records.concat()).unwrap();
        let x = from_pax(&pax, Holder::File, 0o644, 1 << 20).unwrap();
        let names = x.get(DROPPED_XATTRS).unwrap();
        assert!((100..=MAX_DROPPED).contains(&names.len()));
    }

    #[test]
    fn the_last_of_several_counts() {
        let none = acl::encode(&[]);
        let x = xattrs(&[
            ("SCHILY.xattr.user.b", b"1"),
            ("SCHILY.acl.access", b"user::rwx,user:app:r-x:1000,group::r--,mask::r-x,other::---"),
            ("SCHILY.xattr.user.a", b""),
            ("SCHILY.xattr.user.b", b"2"),
            ("SCHILY.xattr.system.posix_acl_access", &none),
        ]);
        let shown: Vec<_> = x.iter().map(|x| (&*x.name, &*x.value)).collect();
        assert_eq!(shown, [(&b"user.a"[..], &b""[..]), (b"user.b", b"2")]);
    }

    #[test]
    fn what_an_image_may_not_have_is_dropped_and_named() {
        let x = xattrs(&[
            ("SCHILY.xattr.trusted.overlay.opaque", b"y"),
            ("SCHILY.xattr.trusted.other", b"kept"),
            ("SCHILY.xattr.com.apple.provenance", b"x"),
        ]);
        assert_eq!(x.get(b"trusted.other"), Some(&b"kept"[..]));
        assert_eq!(
            x.get(DROPPED_XATTRS),
            Some(&b"com.apple.provenance\0trusted.overlay.opaque"[..])
        );
        assert_eq!(x.iter().len(), 2);
    }

    #[test]
    fn text_acls_become_the_kernels_bytes() {
        let x = xattrs(&[(
            "SCHILY.acl.access",
            b"user::rwx,user:app:r-x:1000,group::r--,mask::r-x,other::---",
        )]);
        // What setfacl -m u:1000:rx leaves on a file of mode 740, read by getfattr.
        let expected = [
            2, 0, 0, 0, //
            1, 0, 7, 0, 255, 255, 255, 255, //
            2, 0, 5, 0, 0xe8, 3, 0, 0, //
            4, 0, 4, 0, 255, 255, 255, 255, //
            16, 0, 5, 0, 255, 255, 255, 255, //
            32, 0, 0, 0, 255, 255, 255, 255,
        ];
        assert_eq!(x.get(b"system.posix_acl_access"), Some(&expected[..]));
        let x = xattrs(&[("SCHILY.acl.default", b"user:nobody:rwx")]);
        assert_eq!(x.get(DROPPED_XATTRS), Some(&b"system.posix_acl_default"[..]));
    }
}
