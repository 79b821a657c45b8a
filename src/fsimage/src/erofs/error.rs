//! What EROFS cannot hold.

/// Why a tree cannot become an EROFS image.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// `source`, with the inode that it is about.
    #[error("{path}")]
    At {
        /// A path of the inode.
        path: String,
        /// What EROFS cannot hold of it.
        source: Box<PlanError>,
    },
    /// The name of an xattr has none of the prefixes that EROFS knows.
    #[error("xattr {0} is in a name space that EROFS does not have")]
    XattrName(String),
    /// The name of an xattr is longer than 255 bytes behind its prefix, or its value longer
    /// than 65535.
    #[error(
        "xattr {name} with a value of {value} bytes: EROFS ends at 65535 bytes, and names at 255"
    )]
    XattrSize {
        /// The full name, non-printable bytes escaped.
        name: String,
        /// Bytes of the value.
        value: usize,
    },
    /// The xattrs of one inode take more bytes than EROFS can count.
    #[error("xattrs of {size} bytes: EROFS allows {max} for one inode")]
    XattrBody {
        /// Bytes that they take.
        size: u64,
        /// Bytes that EROFS allows.
        max: u64,
    },
    /// What is named would lie past the 32 bits of a block's address, or past another number's
    /// limit.
    #[error("{0}: past what EROFS can address")]
    TooLarge(&'static str),
    /// A directory is reached by two names, which EROFS does not allow.
    #[error("a directory has two names")]
    DirLinked,
    /// A merged tree holds a mark of a layer: a whiteout, an opaque or implied directory, or a
    /// link to a lower layer.
    #[error("a {0} is left in a merged tree")]
    MarkLeft(&'static str),
    /// A symbolic link's target, of so many bytes, is empty, longer than 4095 bytes, or holds a
    /// NUL.
    #[error("a symbolic link's target has {0} bytes; Linux allows 1 to 4095 without NUL")]
    BadSymlink(usize),
    /// A file's extents are empty, overlap, are not ascending, or reach past its size.
    #[error("extents are not in order, or reach past the file's end")]
    BadExtents,
}
