//! POSIX ACLs in the form of their xattrs: version 2, then entries {tag u16,
//! perm u16, id u32}, little-endian (`linux/posix_acl_xattr.h`).

/// Tag of the entry for the owner.
pub const USER_OBJ: u16 = 0x01;
/// Tag of an entry for a user that its id names.
pub const USER: u16 = 0x02;
/// Tag of the entry for the file's group.
pub const GROUP_OBJ: u16 = 0x04;
/// Tag of an entry for a group that its id names.
pub const GROUP: u16 = 0x08;
/// Tag of the entry that bounds what all groups and named users may do.
pub const MASK: u16 = 0x10;
/// Tag of the entry for everybody else.
pub const OTHER: u16 = 0x20;

/// The xattr that goes with the permission bits of a mode.
pub const ACCESS: &str = "system.posix_acl_access";
/// The xattr of a directory that its new entries inherit.
pub const DEFAULT: &str = "system.posix_acl_default";

/// Who may do what.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct AclEntry {
    /// Whom the entry is for: one of the six tags above.
    pub tag: u16,
    /// Of a named user or group.
    pub id: u32,
    /// `0..=7`, as in a mode.
    pub perm: u16,
}

/// The entries of `value`, or `None` if Linux would not take it.
pub fn parse(value: &[u8]) -> Option<Vec<AclEntry>> {
    let (version, rest) = value.split_first_chunk::<4>()?;
    let (chunks, rest) = rest.as_chunks::<8>();
    if *version != [2, 0, 0, 0] || !rest.is_empty() {
        return None;
    }
    let entries: Vec<AclEntry> = chunks
        .iter()
        .map(|c| AclEntry {
            tag: u16::from_le_bytes([c[0], c[1]]),
            perm: u16::from_le_bytes([c[2], c[3]]),
            id: u32::from_le_bytes([c[4], c[5], c[6], c[7]]),
        })
        .collect();
    let count = |tag| entries.iter().filter(|entry| entry.tag == tag).count();
    let named = count(USER) + count(GROUP);
    let known = [USER_OBJ, USER, GROUP_OBJ, GROUP, MASK, OTHER];
    let sound = entries.iter().all(|e| known.contains(&e.tag) && e.perm <= 7)
        && entries.is_sorted_by_key(|entry| entry.tag)
        && [USER_OBJ, GROUP_OBJ, OTHER].into_iter().all(|tag| count(tag) == 1)
        && (count(MASK) == 1 || count(MASK) == 0 && named == 0);
    sound.then_some(entries)
}

/// The xattr's value.
pub fn encode(entries: &[AclEntry]) -> Vec<u8> {
    let mut value = 2u32.to_le_bytes().to_vec();
    for entry in entries {
        value.extend_from_slice(&entry.tag.to_le_bytes());
        value.extend_from_slice(&entry.perm.to_le_bytes());
        value.extend_from_slice(&entry.id.to_le_bytes());
    }
    value
}

/// The entry that the group's bits of a mode stand for.
fn group_class(entries: &[AclEntry]) -> u16 {
    if entries.iter().any(|entry| entry.tag == MASK) { MASK } else { GROUP_OBJ }
}

fn shift(entries: &[AclEntry], tag: u16) -> Option<u32> {
    match tag {
        USER_OBJ => Some(6),
        OTHER => Some(0),
        tag if tag == group_class(entries) => Some(3),
        _ => None,
    }
}

/// The permission bits that an access ACL means.
pub fn mode(entries: &[AclEntry]) -> u16 {
    let bits = |entry: &AclEntry| shift(entries, entry.tag).map_or(0, |shift| entry.perm << shift);
    entries.iter().map(bits).fold(0, |mode, bits| mode | bits)
}

/// An access ACL when the permission bits become those of `mode`.
pub fn with_mode(entries: &[AclEntry], mode: u16) -> Vec<AclEntry> {
    let perm = |entry: &AclEntry| match shift(entries, entry.tag) {
        Some(shift) => mode >> shift & 7,
        None => entry.perm,
    };
    entries.iter().map(|entry| AclEntry { perm: perm(entry), ..*entry }).collect()
}

/// Whether an access ACL says no more than a mode does.
pub fn is_plain(entries: &[AclEntry]) -> bool {
    entries.iter().all(|entry| matches!(entry.tag, USER_OBJ | GROUP_OBJ | OTHER))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_and_acls_follow_each_other() {
        // What getfattr shows of a file of mode 0640 after setfacl -m u:1000:rwx.
        let value = [
            2, 0, 0, 0, //
            1, 0, 6, 0, 255, 255, 255, 255, //
            2, 0, 7, 0, 0xe8, 3, 0, 0, //
            4, 0, 4, 0, 255, 255, 255, 255, //
            16, 0, 7, 0, 255, 255, 255, 255, //
            32, 0, 0, 0, 255, 255, 255, 255,
        ];
        let entries = parse(&value).unwrap();
        assert_eq!((mode(&entries), is_plain(&entries)), (0o670, false));
        assert_eq!(encode(&entries), value);
        let changed = with_mode(&entries, 0o4751);
        let perms: Vec<u16> = changed.iter().map(|entry| entry.perm).collect();
        assert_eq!(perms, [7, 7, 4, 5, 1]);
        for bad in [&value[..3], &value[..19], &value[..36], &[1, 0, 0, 0][..], &[2, 0, 0, 0]] {
            assert_eq!(parse(bad), None);
        }
    }
}
