//! Bounds against layers that are made to exhaust the machine.

/// What a layer may cost at most. Past one of them it is an error.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of the uncompressed stream.
    pub layer_bytes: u64,
    /// Bytes of one file, holes included.
    pub file_bytes: u64,
    /// Entries of one layer.
    pub entries: u64,
    /// Bytes of a path.
    pub path: u64,
    /// Components of a path.
    pub depth: u64,
    /// Bytes of all xattrs of one inode, names included.
    pub xattr_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            layer_bytes: 256 << 30,
            file_bytes: 1 << 40,
            entries: 16 << 20,
            path: 4096,
            depth: 1024,
            xattr_bytes: 1 << 20,
        }
    }
}
