//! The operations of patches, each in a file of its own: what a manifest says of it, how
//! that is checked, and what it does to the tree.
//!
//! Paths without a note are guest paths: absolute, and `..` never leaves the
//! root. `from` is a path of the host, relative to the file that names it.

mod append;
mod chmod;
mod chown;
mod copy;
mod diff;
mod extract;
mod include;
mod link;
mod mkdir;
mod mknod;
mod operation;
mod remove;
mod rename;
mod replace;
mod symlink;
mod user;
mod write;
mod xattr;

use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::Result;
use schemars::JsonSchema;
use serde::Deserialize;

pub use self::append::Append;
pub use self::chmod::Chmod;
pub use self::chown::Chown;
pub use self::copy::Copy;
pub use self::diff::Diff;
pub use self::extract::Extract;
pub use self::include::Include;
pub use self::link::Link;
pub use self::mkdir::Mkdir;
pub use self::mknod::{Mknod, NodeKind};
use self::operation::Operation;
pub use self::remove::{Missing, Remove};
pub use self::rename::Rename;
pub use self::replace::Replace;
pub use self::symlink::Symlink;
pub use self::user::User;
pub use self::write::Write;
pub use self::xattr::Xattr;
use crate::patch::work::Work;

/// One change. Exactly one key.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Op {
    /// Makes a file, or gives a file other content.
    Write(Write),
    /// Adds to the end of a file that is there.
    Append(Append),
    /// Takes a file or a tree from the host.
    Copy(Copy),
    /// Takes a tar (plain, gzip or zstd) as a layer on top of the image.
    Extract(Extract),
    /// Applies a unified diff.
    Diff(Diff),
    /// Replaces what a regular expression matches in a file.
    Replace(Replace),
    /// Makes a directory.
    Mkdir(Mkdir),
    /// Makes a symbolic link.
    Symlink(Symlink),
    /// Makes a hard link.
    Link(Link),
    /// Removes what a path or a glob names.
    Remove(Remove),
    /// Gives something another name.
    Rename(Rename),
    /// Sets permissions.
    Chmod(Chmod),
    /// Sets owner and group.
    Chown(Chown),
    /// Sets and removes extended attributes.
    Xattr(Xattr),
    /// Makes a device or a fifo.
    Mknod(Mknod),
    /// Adds a user to passwd, group and shadow.
    User(User),
    /// Takes the patches of another file, which holds a list of them.
    Include(#[schemars(with = "PathBuf")] Include),
}

impl Op {
    fn operation(&self) -> &dyn Operation {
        match self {
            Self::Write(op) => op,
            Self::Append(op) => op,
            Self::Copy(op) => op,
            Self::Extract(op) => op,
            Self::Diff(op) => op,
            Self::Replace(op) => op,
            Self::Mkdir(op) => op,
            Self::Symlink(op) => op,
            Self::Link(op) => op,
            Self::Remove(op) => op,
            Self::Rename(op) => op,
            Self::Chmod(op) => op,
            Self::Chown(op) => op,
            Self::Xattr(op) => op,
            Self::Mknod(op) => op,
            Self::User(op) => op,
            Self::Include(op) => op,
        }
    }

    /// The key that names the operation, and what it is about.
    pub fn title(&self) -> (&'static str, String) {
        self.operation().title()
    }

    /// The host's file that the operation reads, if it reads one.
    pub fn host_path(&self) -> Option<&Path> {
        match self {
            Self::Write(Write { from, .. })
            | Self::Append(Append { from, .. })
            | Self::Diff(Diff { from, .. }) => from.as_deref(),
            Self::Copy(Copy { from, .. })
            | Self::Extract(Extract { from, .. })
            | Self::Include(Include(from)) => Some(from),
            _ => None,
        }
    }

    /// The same, to change it.
    pub fn host_path_mut(&mut self) -> Option<&mut PathBuf> {
        match self {
            Self::Write(Write { from, .. })
            | Self::Append(Append { from, .. })
            | Self::Diff(Diff { from, .. }) => from.as_mut(),
            Self::Copy(Copy { from, .. })
            | Self::Extract(Extract { from, .. })
            | Self::Include(Include(from)) => Some(from),
            _ => None,
        }
    }

    /// Finds what is wrong before any image is opened.
    pub(crate) fn check(&self) -> Result<()> {
        self.operation().check()
    }

    /// Changes the tree of `work`.
    pub(super) fn apply(&self, work: &mut Work<'_>) -> Result<()> {
        self.operation().apply(work)
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (key, about) = self.title();
        // One line, whatever is in the path.
        match about.contains(char::is_control) {
            true => write!(f, "{key} {}", about.escape_debug()),
            false => write!(f, "{key} {about}"),
        }
    }
}
