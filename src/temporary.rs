//! Files that are gone unless they get a name when they are whole.
//!
//! Mostly such a file has no name until then (O_TMPFILE), so that nothing is left
//! of it however the process ends. Where a file system has no files without a name,
//! it has one of this program's form, and is locked as long as its process lives:
//! a file of that form whose lock can be had is a leftover.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use rustix::fs::{AtFlags, CWD, Mode, OFlags, RenameFlags};
use rustix::io::Errno;

use crate::ending::{self, Undo};
use crate::{dir, flock, regular};

/// How the names of files begin that are not whole yet; random letters follow.
const PREFIX: &str = ".rootfs-compile-tmp-";
const RANDOM: usize = 8;

/// Whether a file without a name can get one, which needs /proc.
static CAN_NAME: LazyLock<bool> = LazyLock::new(|| Path::new("/proc/self/fd").is_dir());

pub struct Temporary {
    file: File,
    dir: PathBuf,
    name: Option<Named>,
}

/// A name that goes with this value.
struct Named {
    path: PathBuf,
    _undo: Undo,
}

impl Named {
    /// Makes something with a fresh name in `dir`. A name that is taken is passed over.
    fn new<R>(dir: &Path, make: impl FnMut(&Path) -> io::Result<R>) -> io::Result<(Self, R)> {
        let mut builder = tempfile::Builder::new();
        builder.prefix(PREFIX).rand_bytes(RANDOM).disable_cleanup(true);
        let remove = |made: &tempfile::NamedTempFile<R>| {
            let path = made.path().to_owned();
            move || drop(fs::remove_file(path))
        };
        let (made, undo) = ending::undo_what(|| builder.make_in(dir, make), remove)?;
        let (made, path) = made.into_parts();
        Ok((Self { path: path.to_path_buf(), _undo: undo }, made))
    }
}

impl Drop for Named {
    fn drop(&mut self) {
        // Nothing is lost if it stays; the next run takes it away.
        let _ = fs::remove_file(&self.path);
    }
}

impl Temporary {
    /// A new file in the directory `dir`, for reading and writing. Its mode is
    /// `mode` without the bits of the umask.
    pub fn create(dir: &Path, mode: u32) -> io::Result<Self> {
        let dir = if dir.as_os_str().is_empty() { Path::new(".") } else { dir };
        let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
        if *CAN_NAME {
            match rustix::fs::open(dir, flags, Mode::from_raw_mode(mode)) {
                Ok(fd) => return Ok(Self { file: fd.into(), dir: dir.to_owned(), name: None }),
                Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL | Errno::NOSYS) => {}
                Err(error) => return Err(error.into()),
            }
        }
        // What killed runs left is found where such files have names.
        let _ = remove_left(dir);
        let mut options = File::options();
        options.read(true).write(true).create_new(true).mode(mode);
        let (name, file) = Named::new(dir, |path| options.open(path))?;
        // Where locks are not to be had, what a killed process left just stays.
        let _ = flock::try_lock(&file, flock::Kind::Exclusive);
        Ok(Self { file, dir: dir.to_owned(), name: Some(name) })
    }

    pub fn file(&self) -> &File {
        &self.file
    }

    /// The file, which gets no name.
    pub fn into_file(self) -> File {
        self.file
    }

    /// Gives the file the name `path`, in its directory, where nothing must be yet.
    ///
    /// # Errors
    /// Of the kind [`io::ErrorKind::AlreadyExists`] if something is there.
    pub fn persist_new(self, path: &Path) -> io::Result<File> {
        match &self.name {
            None => self.link(path)?,
            Some(name) => rename_new(&name.path, path)?,
        }
        Ok(self.file)
    }

    /// Gives the file the name `path`, in its directory, in place of what has it.
    pub fn replace(mut self, path: &Path) -> io::Result<File> {
        if self.name.is_none() {
            match self.link(path) {
                Ok(()) => return Ok(self.file),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
            // Only a name can take another's place.
            let _ = flock::try_lock(&self.file, flock::Kind::Exclusive);
            let (name, ()) = Named::new(&self.dir, |path| self.link(path))?;
            self.name = Some(name);
        }
        let name = self.name.as_ref().expect("it has one by now");
        fs::rename(&name.path, path)?;
        Ok(self.file)
    }

    fn link(&self, path: &Path) -> io::Result<()> {
        let open = format!("/proc/self/fd/{}", self.file.as_raw_fd());
        Ok(rustix::fs::linkat(CWD, open, CWD, path, AtFlags::SYMLINK_FOLLOW)?)
    }
}

/// Renames `from` to `to`, where nothing must be.
fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
    match rustix::fs::renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {}
        result => return Ok(result?),
    }
    match fs::hard_link(from, to) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {}
        result => return result,
    }
    // Neither is to be had here: what comes in between is lost.
    match fs::symlink_metadata(to) {
        Ok(_) => Err(io::ErrorKind::AlreadyExists.into()),
        Err(_) => fs::rename(from, to),
    }
}

/// Whether a file may be called so that is not whole yet.
pub fn is_name(name: &OsStr) -> bool {
    let rest = name.as_encoded_bytes().strip_prefix(PREFIX.as_bytes());
    rest.is_some_and(|rest| rest.len() == RANDOM && rest.iter().all(u8::is_ascii_alphanumeric))
}

/// Removes from `dir` the files that this user's processes left that were killed;
/// says how many there were. Files of living processes stay.
pub fn remove_left(dir: &Path) -> io::Result<usize> {
    let own = rustix::process::geteuid().as_raw();
    let mut removed = 0;
    for name in dir::names(dir)? {
        if !is_name(&name) {
            continue;
        }
        let path = dir.join(name);
        let is_left = || -> io::Result<bool> {
            let file = regular::open(&path)?;
            Ok(file.metadata()?.uid() == own && flock::try_lock(&file, flock::Kind::Exclusive)?)
        };
        // What cannot be opened is not this program's.
        if is_left().unwrap_or(false) {
            fs::remove_file(path)?;
            removed += 1;
        }
    }
    Ok(removed)
}

/// Sets the mode of `file`. A file system that keeps no modes, as FAT, is no error.
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
        let mut options = File::options();
        options.read(true).write(true).create_new(true);
        let (name, file) = Named::new(dir, |path| options.open(path)).unwrap();
        assert!(flock::try_lock(&file, flock::Kind::Exclusive).unwrap());
        Temporary { file, dir: dir.to_owned(), name: Some(name) }
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
