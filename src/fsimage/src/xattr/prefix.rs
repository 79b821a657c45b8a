//! Prefixes of xattr names: EROFS and ext4 store a number in their place, and the same one.

/// The number of the prefix that is the whole name of an ACL.
pub(crate) const ACCESS: u8 = 2;
/// The number of the prefix that is the whole name of a default ACL.
pub(crate) const DEFAULT: u8 = 3;

/// Prefixes that EROFS and ext4 have in common, by their numbers (`fs/erofs/erofs_fs.h`,
/// `fs/ext4/xattr.h`). Those of ACLs are whole names.
pub(crate) const PREFIXES: [(u8, &[u8]); 5] = [
    (1, b"user."),
    (ACCESS, b"system.posix_acl_access"),
    (DEFAULT, b"system.posix_acl_default"),
    (4, b"trusted."),
    (6, b"security."),
];

/// The number of the prefix, and the rest of the name; `None` for a name space that neither
/// file system can hold.
pub fn split_name(name: &[u8]) -> Option<(u8, &[u8])> {
    PREFIXES.iter().find_map(|(index, prefix)| {
        let rest = name.strip_prefix(*prefix)?;
        // All but the ACLs' need something behind them.
        (rest.is_empty() == matches!(*index, ACCESS | DEFAULT)).then_some((*index, rest))
    })
}
