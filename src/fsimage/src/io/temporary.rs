//! Temporary files that vanish unless they get a name when they are complete.
//!
//! Mostly such a file has no name until then (O_TMPFILE), so that nothing is left of it however the
//! process ends. Where the file system does not support that, the file gets a name that begins with
//! `PREFIX`, and is locked as long as its process lives: a file with such a name whose lock is
//! free is a leftover of a killed process.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::sync::{Arc, LazyLock};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, RenameFlags};
use rustix::io::Errno;

use crate::io::ending::{self, Undo};
use crate::io::{dir, flock, regular, system};

/// How the names of incomplete files begin; random letters follow.
const PREFIX: &str = ".rootfs-compile-tmp-";
const RANDOM: usize = 8;

/// How often a file is made anew because another process took it for a leftover.
const ATTEMPTS: usize = 100;

/// Whether a file without a name can get one, which needs /proc.
static CAN_NAME: LazyLock<bool> = LazyLock::new(|| Path::new("/proc/self/fd").is_dir());

/// A new file that is gone when this value is dropped, unless it got a name by
/// [`Temporary::persist_new`] or [`Temporary::replace`].
#[derive(Debug)]
pub struct Temporary {
    file: File,
    /// Its directory, where it gets its name, whatever the directory's name leads to
    /// by then.
    dir: Arc<OwnedFd>,
    name: Option<Named>,
}

/// A name that is removed when this value is dropped.
#[derive(Debug)]
struct Named {
    dir: Arc<OwnedFd>,
    name: OsString,
    _undo: Undo,
}

impl Named {
    /// Makes something with a fresh name in `dir`. A name that is taken is passed over.
    fn new<R>(
        dir: &Arc<OwnedFd>,
        mut make: impl FnMut(&OsStr) -> io::Result<R>,
    ) -> io::Result<(Self, R)> {
        let mut builder = tempfile::Builder::new();
        builder.prefix(PREFIX).rand_bytes(RANDOM).disable_cleanup(true);
        let remove = |made: &tempfile::NamedTempFile<R>| {
            let (dir, name) = (dir.clone(), made.path().file_name().map(OsStr::to_owned));
            move || drop(name.map(|name| remove_file(&dir, &name)))
        };
        // Only the last part of what this makes up is used.
        let make = || builder.make_in("/", |path| make(path.file_name().unwrap_or_default()));
        let (made, undo) = ending::undo_what(make, remove)?;
        let (made, path) = made.into_parts();
        let name = path.file_name().unwrap_or_default().to_owned();
        Ok((Self { dir: dir.clone(), name, _undo: undo }, made))
    }

    /// Makes a file with a fresh name in `dir`, and locks it. Until it is locked it looks like a
    /// leftover, and another process may remove it; then another file is made.
    fn locked(
        dir: &Arc<OwnedFd>,
        mut make: impl FnMut(&OsStr) -> io::Result<File>,
    ) -> io::Result<(Self, File)> {
        for _ in 0..ATTEMPTS {
            let (name, file) = Self::new(dir, &mut make)?;
            // Where the file system has no locks, nobody removes leftovers.
            let is_ours = flock::try_lock(&file, flock::LockKind::Exclusive).unwrap_or(true);
            let there = rustix::fs::statat(dir, &name.name, AtFlags::SYMLINK_NOFOLLOW);
            if is_ours && !matches!(there, Err(Errno::NOENT)) {
                return Ok((name, file));
            }
        }
        Err(io::Error::other("other processes keep removing what is being written here"))
    }
}

impl Drop for Named {
    fn drop(&mut self) {
        // Nothing is lost if it stays; the next run takes it away.
        let _ = remove_file(&self.dir, &self.name);
    }
}

fn remove_file(dir: impl AsFd, name: &OsStr) -> io::Result<()> {
    Ok(rustix::fs::unlinkat(dir, name, AtFlags::empty())?)
}

impl Temporary {
    /// A new file in the directory `dir`, for reading and writing. Its mode is
    /// `mode` without the bits of the umask.
    ///
    /// # Errors
    /// When `dir` is not a directory, or no file can be made in it.
    pub fn create(dir: &Path, mode: u32) -> io::Result<Self> {
        let dir = if dir.as_os_str().is_empty() { Path::new(".") } else { dir };
        Self::new(rustix::fs::open(dir, system::REACH, Mode::empty())?, mode)
    }

    /// As [`Temporary::create`], in the directory that is open as `dir`.
    ///
    /// # Errors
    /// When no file can be made in `dir`.
    pub fn create_in(dir: &File, mode: u32) -> io::Result<Self> {
        Self::new(dir.try_clone()?.into(), mode)
    }

    fn new(dir: OwnedFd, mode: u32) -> io::Result<Self> {
        let dir = Arc::new(dir);
        let (flags, mode) = (OFlags::RDWR | OFlags::CLOEXEC, system::mode(mode));
        if *CAN_NAME {
            match system::unnamed(&dir, mode) {
                Ok(fd) => return Ok(Self { file: fd.into(), dir, name: None }),
                Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL | Errno::NOSYS) => {}
                Err(error) => return Err(error.into()),
            }
        }
        // Where such files have names, killed runs leave some.
        if let Ok(readable) = dir::open_dir(&dir, ".") {
            let _ = remove_left_in(&readable);
        }
        let flags = flags | OFlags::CREATE | OFlags::EXCL;
        let create = |name: &OsStr| Ok(File::from(rustix::fs::openat(&dir, name, flags, mode)?));
        let (name, file) = Named::locked(&dir, create)?;
        Ok(Self { file, dir, name: Some(name) })
    }

    /// The open file, for reading and writing.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// The file, which gets no name.
    pub fn into_file(self) -> File {
        self.file
    }

    /// Gives the file the last name of `path`, in its directory, where nothing must be
    /// yet.
    ///
    /// # Errors
    /// Of the kind [`io::ErrorKind::AlreadyExists`] if something is there.
    pub fn persist_new(self, path: &Path) -> io::Result<File> {
        let to = last_name(path)?;
        match &self.name {
            None => self.link(to)?,
            Some(name) => rename_new(&self.dir, &name.name, to)?,
        }
        Ok(self.file)
    }

    /// Gives the file the last name of `path`, in its directory, in place of what has
    /// it.
    ///
    /// # Errors
    /// When `path` has no last name, or the file cannot get that name, as where a directory has
    /// it.
    pub fn replace(mut self, path: &Path) -> io::Result<File> {
        let to = last_name(path)?;
        if self.name.is_none() {
            match self.link(to) {
                Ok(()) => return Ok(self.file),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
            // Only rename replaces what is there, and it needs a name.
            let _ = flock::try_lock(&self.file, flock::LockKind::Exclusive);
            let (name, ()) = Named::new(&self.dir, |name| self.link(name))?;
            self.name = Some(name);
        }
        let name = self.name.as_ref().expect("it has one by now");
        rustix::fs::renameat(&self.dir, &name.name, &self.dir, to)?;
        Ok(self.file)
    }

    fn link(&self, name: &OsStr) -> io::Result<()> {
        let open = format!("/proc/self/fd/{}", self.file.as_raw_fd());
        Ok(rustix::fs::linkat(CWD, open, &self.dir, name, AtFlags::SYMLINK_FOLLOW)?)
    }
}

fn last_name(path: &Path) -> io::Result<&OsStr> {
    let no_name = || io::Error::new(io::ErrorKind::InvalidInput, "is not a name of a file");
    path.file_name().ok_or_else(no_name)
}

/// Renames `from` of `dir` to `to`, where nothing must be.
fn rename_new(dir: &OwnedFd, from: &OsStr, to: &OsStr) -> io::Result<()> {
    match rustix::fs::renameat_with(dir, from, dir, to, RenameFlags::NOREPLACE) {
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {}
        result => return Ok(result?),
    }
    match rustix::fs::linkat(dir, from, dir, to, AtFlags::empty()) {
        Err(Errno::EXIST) => return Err(io::ErrorKind::AlreadyExists.into()),
        Err(_) => {}
        // The first name is removed when the value is dropped.
        Ok(()) => return Ok(()),
    }
    // This file system has neither. What another process puts there between the two calls is lost.
    match rustix::fs::statat(dir, to, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(_) => Err(io::ErrorKind::AlreadyExists.into()),
        Err(_) => Ok(rustix::fs::renameat(dir, from, dir, to)?),
    }
}

/// Whether `name` has the form of names of incomplete files.
pub fn is_name(name: &OsStr) -> bool {
    let rest = name.as_encoded_bytes().strip_prefix(PREFIX.as_bytes());
    rest.is_some_and(|rest| rest.len() == RANDOM && rest.iter().all(u8::is_ascii_alphanumeric))
}

/// Removes from `dir` the files that this user's processes left that were killed;
/// says how many there were. Files of living processes stay.
///
/// # Errors
/// When `dir` cannot be listed, or a file that was left cannot be removed.
pub fn remove_left(dir: &Path) -> io::Result<usize> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    remove_left_in(&rustix::fs::open(dir, flags, Mode::empty())?.into())
}

/// As [`remove_left`], from the directory that is open as `dir`.
///
/// # Errors
/// When `dir` cannot be listed, or a file that was left cannot be removed.
pub fn remove_left_in(dir: &File) -> io::Result<usize> {
    let mut removed = 0;
    for name in dir::names_in(dir)? {
        // Its lock is held until it is gone: whoever made it a moment ago, and does not
        // have the lock yet, sees by that that it is not theirs any more.
        if let Some(_lock) = left(dir, &name) {
            remove_file(dir, &name)?;
            removed += 1;
        }
    }
    Ok(removed)
}

/// Whether the file `name` of `dir` is one that [`remove_left_in`] takes away.
pub fn is_left(dir: &File, name: &OsStr) -> bool {
    left(dir, name).is_some()
}

/// The file `name` of `dir`, locked, if a process of this user left it that was killed.
fn left(dir: &File, name: &OsStr) -> Option<File> {
    if !is_name(name) {
        return None;
    }
    let open = || -> io::Result<Option<File>> {
        let file = regular::open_at(dir, name)?;
        let is_own = file.metadata()?.uid() == rustix::process::geteuid().as_raw();
        let is_left = is_own && flock::try_lock(&file, flock::LockKind::Exclusive)?;
        Ok(is_left.then_some(file))
    };
    // What cannot be opened is not this program's.
    open().ok().flatten()
}

/// Sets the mode of `file`. A file system that keeps no modes, as FAT, is no error.
///
/// # Errors
/// When the mode cannot be set for another reason than that the file system keeps none.
pub fn set_mode(file: &File, mode: u32) -> io::Result<()> {
    match file.set_permissions(fs::Permissions::from_mode(mode)) {
        Err(error) if keeps_no_modes(&error) => Ok(()),
        result => result,
    }
}

fn keeps_no_modes(error: &io::Error) -> bool {
    // The owner of a file may set its mode wherever there are modes.
    matches!(Errno::from_io_error(error), Some(Errno::PERM | Errno::NOSYS | Errno::OPNOTSUPP))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn named(dir: &Path) -> Temporary {
        let at = Arc::new(OwnedFd::from(File::open(dir).unwrap()));
        let mut options = File::options();
        options.read(true).write(true).create_new(true);
        let (name, file) = Named::new(&at, |name| options.open(dir.join(name))).unwrap();
        assert!(flock::try_lock(&file, flock::LockKind::Exclusive).unwrap());
        Temporary { file, dir: at, name: Some(name) }
    }

    #[test]
    fn a_file_appears_with_its_name_and_is_gone_without() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let count = || fs::read_dir(dir.path()).unwrap().count();
        let unnamed = |dir: &Path| Temporary::create(dir, 0o644).unwrap();
        for (how, create) in
            [("unnamed", &unnamed as &dyn Fn(&Path) -> Temporary), ("named", &named)]
        {
            drop(create(dir.path()));
            assert_eq!(count(), 0, "{how}");
            let write = |text: &str| {
                let temporary = create(dir.path());
                temporary.file().write_all(text.as_bytes()).unwrap();
                temporary
            };
            write("one").persist_new(&at("file")).unwrap();
            let error = write("two").persist_new(&at("file")).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::AlreadyExists, "{how}");
            assert_eq!(fs::read_to_string(at("file")).unwrap(), "one", "{how}");
            write("three").replace(&at("file")).unwrap();
            assert_eq!(fs::read_to_string(at("file")).unwrap(), "three", "{how}");
            // A link is replaced, and not what it leads to.
            std::os::unix::fs::symlink("file", at("link")).unwrap();
            write("four").replace(&at("link")).unwrap();
            assert_eq!(fs::read_to_string(at("file")).unwrap(), "three", "{how}");
            assert_eq!(count(), 2, "{how}");
            for name in ["file", "link"] {
                fs::remove_file(at(name)).unwrap();
            }
        }
    }

    /// Another process that looks for leftovers may come between a file's name and its
    /// lock, and may have it locked, or removed by then.
    #[test]
    fn a_file_that_was_taken_for_a_leftover_is_made_anew() {
        let dir = tempfile::tempdir().unwrap();
        let at = Arc::new(OwnedFd::from(File::open(dir.path()).unwrap()));
        let (mut made, mut other) = (0, None);
        let (name, _file) = Named::locked(&at, |name| {
            let path = dir.path().join(name);
            let file = File::options().read(true).write(true).create_new(true).open(&path)?;
            made += 1;
            match made {
                1 => assert_eq!(remove_left(dir.path())?, 1),
                2 => {
                    let open = File::open(&path)?;
                    assert!(flock::try_lock(&open, flock::LockKind::Exclusive)?);
                    other = Some(open);
                }
                _ => {}
            }
            Ok(file)
        })
        .unwrap();
        assert_eq!(made, 3);
        assert_eq!(remove_left(dir.path()).unwrap(), 0);
        assert_eq!(dir::names(dir.path()).unwrap(), std::slice::from_ref(&name.name));
    }

    #[test]
    fn leftovers_are_files_of_the_form_that_nobody_holds() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let live = named(dir.path());
        fs::write(at(".rootfs-compile-tmp-abcdefgh"), "").unwrap();
        fs::write(at(".rootfs-compile-tmp-abcdefghi"), "").unwrap();
        fs::write(at("other"), "").unwrap();
        fs::create_dir(at(".rootfs-compile-tmp-directry")).unwrap();
        std::os::unix::fs::symlink("other", at(".rootfs-compile-tmp-linklink")).unwrap();
        assert_eq!(remove_left(dir.path()).unwrap(), 1);
        assert!(!at(".rootfs-compile-tmp-abcdefgh").exists());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 5);
        drop(live);
    }
}
