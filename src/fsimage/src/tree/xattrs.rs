//! Extended attributes of an inode, sorted by name, and the names that are private to this project.

/// Extended attributes of one inode, by full name (`user.origin`), in the
/// order of the names' bytes, each name once.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Xattrs(Vec<Xattr>);

/// Names that begin so are the compiler's own and never reach an image.
pub const PRIVATE_XATTRS: &[u8] = b"trusted.rootfs-compile.";

/// In a layer: names of xattrs that were not taken over, joined by NUL.
pub const DROPPED_XATTRS: &[u8] = b"trusted.rootfs-compile.dropped";

/// What overlayfs marks a directory with that hides the one below; its value is `y`.
pub(crate) const OVERLAY_OPAQUE: &[u8] = b"trusted.overlay.opaque";

/// One extended attribute.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Xattr {
    /// The full name, name space included, as `user.origin`.
    pub name: Box<[u8]>,
    /// The value, as getxattr(2) returns it.
    pub value: Box<[u8]>,
}

impl Xattrs {
    /// Whether the inode has none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All of them, in the order of their names' bytes.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Xattr> {
        self.0.iter()
    }

    /// The value of `name`, or `None` if the inode does not have it.
    pub fn get(&self, name: &[u8]) -> Option<&[u8]> {
        let at = self.0.binary_search_by(|x| (*x.name).cmp(name)).ok()?;
        Some(&self.0[at].value)
    }

    /// Sets `name`, in place of an earlier value.
    pub fn set(&mut self, name: impl Into<Box<[u8]>>, value: impl Into<Box<[u8]>>) {
        let xattr = Xattr { name: name.into(), value: value.into() };
        match self.0.binary_search_by(|x| x.name.cmp(&xattr.name)) {
            Ok(at) => self.0[at] = xattr,
            Err(at) => self.0.insert(at, xattr),
        }
    }

    /// Takes `name` away and returns its value.
    pub fn remove(&mut self, name: &[u8]) -> Option<Box<[u8]>> {
        let at = self.0.binary_search_by(|x| (*x.name).cmp(name)).ok()?;
        Some(self.0.remove(at).value)
    }
}

/// From many at once, sorted once; of several with one name, the first counts.
impl FromIterator<Xattr> for Xattrs {
    fn from_iter<I: IntoIterator<Item = Xattr>>(xattrs: I) -> Self {
        let mut all: Vec<Xattr> = xattrs.into_iter().collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all.dedup_by(|later, first| later.name == first.name);
        Self(all)
    }
}
