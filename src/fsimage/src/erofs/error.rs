//! What EROFS cannot hold.

/// Why a tree cannot become an EROFS image.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    #[error("{path}")]
    At { path: String, source: Box<PlanError> },
    #[error("xattr {0} is in a name space that EROFS does not have")]
    XattrName(String),
    #[error(
        "xattr {name} with a value of {value} bytes: EROFS ends at 65535 bytes, and names at 255"
    )]
    XattrSize { name: String, value: usize },
    #[error("xattrs of {size} bytes: EROFS allows {max} for one inode")]
    XattrBody { size: u64, max: u64 },
    #[error("{0}: past what EROFS can address")]
    TooLarge(&'static str),
    #[error("a directory has two names")]
    DirLinked,
    #[error("a {0} is left in a merged tree")]
    MarkLeft(&'static str),
    #[error("a symbolic link's target has {0} bytes; Linux allows 1 to 4095 without NUL")]
    BadSymlink(usize),
    #[error("extents are not in order, or reach past the file's end")]
    BadExtents,
}
