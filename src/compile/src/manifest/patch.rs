//! Patches: what a manifest changes in the image, one operation each.
//!
//! Paths without a note are guest paths: absolute, and `..` never leaves the
//! root. `from` is a path of the host, relative to the file that names it.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use bundle::boot::lenient::{Flag, Int, Text};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::manifest::mode::Mode;
use crate::manifest::owner::Owner;

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
    Include(PathBuf),
}

/// Makes a file, or gives a file other content; mode, owner and xattrs of a
/// file that is there stay unless they are given.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Write {
    /// The file: a guest path.
    pub path: String,
    /// The content itself.
    #[serde(default)]
    pub content: Option<String>,
    /// A file of the host that holds the content.
    #[serde(default)]
    pub from: Option<PathBuf>,
    /// Default: 0644 for a new file.
    pub mode: Option<Mode>,
    /// Default: 0:0 for a new file.
    pub owner: Option<Owner>,
    /// Make directories that are missing above it, as 0755 and 0:0.
    #[serde(default)]
    pub parents: Flag,
}

/// Adds to the end of a file that is there; mode, owner and xattrs stay.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Append {
    /// The file: a guest path.
    pub path: String,
    /// The bytes to add.
    #[serde(default)]
    pub content: Option<String>,
    /// A file of the host that holds them.
    #[serde(default)]
    pub from: Option<PathBuf>,
}

/// Takes a file or a tree from the host: types, permissions, symbolic and hard
/// links, holes. Times, owners and xattrs are not taken.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Copy {
    /// A file or a directory of the host.
    pub from: PathBuf,
    /// The name it gets; one that ends in a slash is the directory to put a file
    /// into. A directory's content joins that of a directory that is there.
    pub path: String,
    /// Default: 0:0.
    pub owner: Option<Owner>,
    /// Default: that of the host's file.
    pub mode: Option<Mode>,
    /// Globs of what to leave out; one without a slash fits names at any depth,
    /// one with a slash paths below `from`.
    #[serde(default)]
    pub exclude: Vec<String>,
    /// Make directories that are missing above it, as 0755 and 0:0.
    #[serde(default)]
    pub parents: Flag,
}

/// Takes a tar (plain, gzip or zstd) as a layer on top of the image: whiteouts,
/// owners, xattrs and times count as in a layer.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Extract {
    /// A tar of the host.
    pub from: PathBuf,
    /// The directory that is the tar's root.
    #[serde(default = "root")]
    pub path: String,
}

fn root() -> String {
    "/".into()
}

/// Applies a unified diff, which may change, make and delete files, and say
/// permissions as git does. A hunk may have moved, but its lines must all be
/// there. Directories stay, even when nothing is left in them.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Diff {
    /// The diff itself.
    #[serde(default)]
    pub content: Option<String>,
    /// A file of the host that holds the diff.
    #[serde(default)]
    pub from: Option<PathBuf>,
    /// Components to drop from the paths in it. Default: 1.
    #[serde(default = "one")]
    pub strip: Int<u32>,
    /// The directory that the paths in it begin at.
    #[serde(default = "root")]
    pub path: String,
}

fn one() -> Int<u32> {
    Int(1)
}

/// Replaces what a regular expression matches in a file.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Replace {
    /// The file: a guest path.
    pub path: String,
    /// A regular expression over bytes; ^ and $ stand for the ends of a line.
    pub find: String,
    /// What stands there afterwards; $1 or ${name} (in a manifest: $${name}) is
    /// what a group matched.
    pub with: String,
    /// How many matches to replace, from the top; fewer are an error. Default:
    /// all, at least one.
    #[serde(default)]
    pub count: Option<Int<u32>>,
}

/// Makes a directory.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Mkdir {
    /// The directory: a guest path.
    pub path: String,
    /// Default: 0755.
    pub mode: Option<Mode>,
    /// Default: 0:0.
    pub owner: Option<Owner>,
    /// Make directories that are missing above it, as 0755 and 0:0, and let it
    /// be there already: then it gets the mode and owner that are given.
    #[serde(default)]
    pub parents: Flag,
}

/// Makes a symbolic link.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Symlink {
    /// The link: a guest path.
    pub path: String,
    /// Where it leads, as it will be written.
    pub target: String,
    /// Default: 0:0.
    pub owner: Option<Owner>,
    /// Take the place of what is there, unless it is a directory.
    #[serde(default)]
    pub force: Flag,
    /// Make directories that are missing above it, as 0755 and 0:0.
    #[serde(default)]
    pub parents: Flag,
}

/// Makes a hard link: a further name for what `target` leads to.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Link {
    /// The new name: a guest path.
    pub path: String,
    /// What to name; followed if it is a symbolic link.
    pub target: String,
    /// Take the place of what is there, unless it is a directory.
    #[serde(default)]
    pub force: Flag,
    /// Make directories that are missing above it, as 0755 and 0:0.
    #[serde(default)]
    pub parents: Flag,
}

/// Removes what a path or a glob names. A symbolic link is removed, not what it
/// leads to.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Remove {
    /// A path, or a glob: `*`, `?`, `[a-z]`, `{a,b}` within a name, `**` for any
    /// directories.
    pub path: String,
    /// Remove directories that are not empty, with all that is in them.
    #[serde(default)]
    pub recursive: Flag,
    /// Whether it may be missing. Default: error.
    #[serde(default)]
    pub missing: Missing,
}

/// What it means that something is not there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Missing {
    /// It must be there.
    #[default]
    Error,
    /// It may be missing: then nothing happens.
    Ok,
}

/// Gives something another name; symbolic links are renamed themselves.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Rename {
    /// The present name: a guest path.
    pub from: String,
    /// The new name.
    pub path: String,
    /// Take the place of what is there, unless it is a directory that is not
    /// empty.
    #[serde(default)]
    pub force: Flag,
}

/// Sets permissions.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Chmod {
    /// A path, or a glob as of `remove`. Symbolic links are followed.
    pub path: String,
    /// The permissions to set.
    pub mode: Mode,
    /// Everything below a directory too; symbolic links there are passed over.
    #[serde(default)]
    pub recursive: Flag,
}

/// Sets owner and group. A file that gets another owner loses setuid, setgid
/// and its capabilities, as Linux does it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Chown {
    /// A path, or a glob as of `remove`. Symbolic links are followed.
    pub path: String,
    /// The owner and group to set.
    pub owner: Owner,
    /// Everything below a directory too, symbolic links there themselves.
    #[serde(default)]
    pub recursive: Flag,
}

/// Sets and removes extended attributes.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Xattr {
    /// A path, or a glob as of `remove`. Symbolic links are followed.
    pub path: String,
    /// Values by name. `security.capability` takes capabilities as text
    /// (`cap_net_raw+ep`), others plain text; `base64:…` is binary.
    #[serde(default)]
    pub set: BTreeMap<String, String>,
    /// Names to remove, which must be there.
    #[serde(default)]
    pub remove: Vec<String>,
}

/// Makes a device or a fifo.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Mknod {
    /// The device or fifo: a guest path.
    pub path: String,
    /// What to make: char, block or fifo.
    pub kind: NodeKind,
    /// Of a device.
    #[serde(default)]
    pub major: Option<Int<u32>>,
    /// Of a device.
    #[serde(default)]
    pub minor: Option<Int<u32>>,
    /// Default: 0644.
    pub mode: Option<Mode>,
    /// Default: 0:0.
    pub owner: Option<Owner>,
    /// Make directories that are missing above it, as 0755 and 0:0.
    #[serde(default)]
    pub parents: Flag,
}

/// What `mknod` makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum NodeKind {
    /// A character device.
    Char,
    /// A block device.
    Block,
    /// A fifo, which has no device number.
    Fifo,
}

/// Adds a user to /etc/passwd, and to /etc/group, /etc/shadow and /etc/gshadow
/// where the image has them. The password is locked.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct User {
    /// The login name.
    pub name: String,
    /// Default: the first of 1000 and up that no user has.
    #[serde(default)]
    pub uid: Option<Int<u32>>,
    /// The login group, by name or number, which is there. Default: a new group
    /// of the user's name, with the uid as number if that is free.
    #[serde(default)]
    pub group: Option<Text>,
    /// Number of the new group.
    #[serde(default)]
    pub gid: Option<Int<u32>>,
    /// Further groups, which are there.
    #[serde(default)]
    pub groups: Vec<String>,
    /// Default: /home/NAME.
    #[serde(default)]
    pub home: Option<String>,
    /// Make the home directory, 0700 and the user's, if it is not there.
    #[serde(default)]
    pub create_home: Flag,
    /// Default: /bin/sh.
    #[serde(default)]
    pub shell: Option<String>,
    /// The full name.
    #[serde(default)]
    pub comment: Option<String>,
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

impl Op {
    /// The key that names the operation, and what it is about.
    pub fn title(&self) -> (&'static str, String) {
        let (key, about) = match self {
            Self::Write(op) => ("write", &op.path),
            Self::Append(op) => ("append", &op.path),
            Self::Copy(op) => ("copy", &op.path),
            Self::Extract(op) => ("extract", &op.path),
            Self::Diff(op) => ("diff", &op.path),
            Self::Replace(op) => ("replace", &op.path),
            Self::Mkdir(op) => ("mkdir", &op.path),
            Self::Symlink(op) => ("symlink", &op.path),
            Self::Link(op) => ("link", &op.path),
            Self::Remove(op) => ("remove", &op.path),
            Self::Rename(op) => ("rename", &op.from),
            Self::Chmod(op) => ("chmod", &op.path),
            Self::Chown(op) => ("chown", &op.path),
            Self::Xattr(op) => ("xattr", &op.path),
            Self::Mknod(op) => ("mknod", &op.path),
            Self::User(op) => ("user", &op.name),
            Self::Include(path) => return ("include", path.display().to_string()),
        };
        (key, about.clone())
    }

    /// The host's file that the operation reads, if it reads one.
    pub fn host_path(&self) -> Option<&Path> {
        match self {
            Self::Write(op) => op.from.as_deref(),
            Self::Append(op) => op.from.as_deref(),
            Self::Copy(op) => Some(&op.from),
            Self::Extract(op) => Some(&op.from),
            Self::Diff(op) => op.from.as_deref(),
            Self::Include(path) => Some(path),
            _ => None,
        }
    }

    /// The same, to change it.
    pub fn host_path_mut(&mut self) -> Option<&mut PathBuf> {
        match self {
            Self::Write(op) => op.from.as_mut(),
            Self::Append(op) => op.from.as_mut(),
            Self::Copy(op) => Some(&mut op.from),
            Self::Extract(op) => Some(&mut op.from),
            Self::Diff(op) => op.from.as_mut(),
            Self::Include(path) => Some(path),
            _ => None,
        }
    }
}
