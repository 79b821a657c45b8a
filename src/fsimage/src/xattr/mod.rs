//! What Linux takes for an extended attribute: setxattr(2) refuses the rest, and
//! a file system that has it all the same breaks overlayfs's copy-up, so that a
//! guest could not write to the file.

pub mod acl;
pub(crate) mod prefix;

use crate::tree::Kind;

/// `XATTR_NAME_MAX`: bytes of a full name, name space included.
pub const MAX_NAME: usize = 255;

/// The name of a file's capabilities.
pub const CAPABILITY: &str = "security.capability";

/// Why setxattr(2) would fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The name is empty.
    #[error("its name is empty")]
    NoName,
    /// The name has more than [`MAX_NAME`] bytes: so many.
    #[error("its name has {0} bytes; Linux allows {MAX_NAME}")]
    LongName(usize),
    /// A NUL is in the name.
    #[error("its name holds a NUL")]
    Nul,
    /// The value of [`CAPABILITY`] has another size or revision than Linux sets.
    #[error("its value is not a file's capabilities as Linux stores them")]
    Capability,
    /// The value of an ACL is not one that [`acl::parse`] takes.
    #[error("its value is not an ACL as Linux stores it")]
    Acl,
}

/// Checks the xattr `name` with `value`.
///
/// # Errors
/// When Linux refuses it on every file of every file system.
pub fn check(name: &[u8], value: &[u8]) -> Result<(), Refused> {
    if name.is_empty() {
        return Err(Refused::NoName);
    }
    if name.len() > MAX_NAME {
        return Err(Refused::LongName(name.len()));
    }
    if name.contains(&0) {
        return Err(Refused::Nul);
    }
    if name == CAPABILITY.as_bytes() && !is_capability(value) {
        return Err(Refused::Capability);
    }
    let is_acl = [acl::ACCESS, acl::DEFAULT].iter().any(|acl| acl.as_bytes() == name);
    if is_acl && acl::parse(value).is_none() {
        return Err(Refused::Acl);
    }
    Ok(())
}

/// What an xattr is of, as far as Linux asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holder {
    /// A regular file.
    File,
    /// A directory.
    Dir,
    /// A symbolic link.
    Symlink,
    /// A device, a fifo, a socket.
    Other,
}

impl Holder {
    /// The holder that an inode of this kind is; a link to a lower layer counts as a file.
    pub fn of<C>(kind: &Kind<C>) -> Self {
        match kind {
            Kind::File(_) | Kind::LowerLink(_) => Self::File,
            Kind::Dir(_) => Self::Dir,
            Kind::Symlink(_) => Self::Symlink,
            _ => Self::Other,
        }
    }

    /// Whether Linux lets it have the xattr `name`, whose value [`check`] takes.
    pub fn can_have(self, name: &[u8]) -> bool {
        let is = |acl: &str| name == acl.as_bytes();
        match self {
            Self::Dir => true,
            Self::File => !is(acl::DEFAULT),
            Self::Other => !is(acl::DEFAULT) && !name.starts_with(b"user."),
            Self::Symlink => !is(acl::DEFAULT) && !is(acl::ACCESS) && !name.starts_with(b"user."),
        }
    }
}

/// `struct vfs_cap_data` of revision 2, or `vfs_ns_cap_data` of revision 3, each
/// of its size. Linux executes revision 1 but neither sets it nor copies it up.
fn is_capability(value: &[u8]) -> bool {
    matches!((value.get(3), value.len()), (Some(2), 20) | (Some(3), 24))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each was tried with lsetxattr(2) on ext4, Linux 6.18.
    #[test]
    fn what_no_inode_of_a_kind_has_is_known() {
        let all = [Holder::Dir, Holder::File, Holder::Other, Holder::Symlink];
        let can = |name: &str| all.map(|holder| holder.can_have(name.as_bytes()));
        assert_eq!(can("user.x"), [true, true, false, false]);
        assert_eq!(can(acl::DEFAULT), [true, false, false, false]);
        assert_eq!(can(acl::ACCESS), [true, true, true, false]);
        assert_eq!(can("trusted.x"), [true; 4]);
        assert_eq!(can("security.x"), [true; 4]);
        assert_eq!(can(CAPABILITY), [true; 4]);
    }

    /// Each was tried with setxattr(2) on ext4, Linux 6.18.
    #[test]
    fn what_setxattr_refuses_is_refused() {
        let capability = |revision: u8, len: usize| {
            let mut value = vec![0; len];
            value[3] = revision;
            check(CAPABILITY.as_bytes(), &value)
        };
        assert_eq!(capability(2, 20), Ok(()));
        assert_eq!(capability(3, 24), Ok(()));
        for (revision, len) in [(1, 12), (2, 19), (2, 24), (3, 20), (0, 20), (4, 24)] {
            assert_eq!(capability(revision, len), Err(Refused::Capability), "{revision} {len}");
        }
        assert_eq!(check(CAPABILITY.as_bytes(), b""), Err(Refused::Capability));
        let name = |len: usize| [b"user.", &vec![b'n'; len - 5][..]].concat();
        assert_eq!(check(&name(255), b""), Ok(()));
        assert_eq!(check(&name(256), b""), Err(Refused::LongName(256)));
        assert_eq!(check(b"user.a\0b", b""), Err(Refused::Nul));
        assert_eq!(check(b"", b""), Err(Refused::NoName));
        assert_eq!(check(acl::ACCESS.as_bytes(), b"\x02\0\0\0garbage."), Err(Refused::Acl));
        assert_eq!(check(b"user.any", &[0xff; 9]), Ok(()));
    }
}
