//! What an earlier start found out about this host's KVM, so that the next one
//! need not find it out again.
//!
//! The finding is a file of the user's own: in `$XDG_RUNTIME_DIR`, in /run/user/UID,
//! else in the cache directory, below `rootfs-boot/`. It counts for the boot of the
//! host, the /dev/kvm, the guest's kernel and the version of this program that it
//! names, and for a day. It only ever says that KVM runs no guest: that it runs one
//! needs no memory. Whatever is wrong with the file or its directory, there is
//! just no finding.

use std::fmt::Write as _;
use std::fs::{self, DirBuilder, File};
use std::io::{self, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use fsimage::io::temporary::Temporary;
use rustix::fs::{AtFlags, Mode, OFlags};

const NAME: &str = "kvm-runs-no-guest";
/// A host may be moved to another machine while it runs, whose KVM works.
const MAX_AGE: Duration = Duration::from_secs(24 * 60 * 60);
const MAX_SIZE: u64 = 4096;
/// Bits of a mode by which somebody else may write.
const OTHERS_WRITE: u32 = 0o022;

/// What the finding is about.
pub(crate) struct Subject(String);

impl Subject {
    /// This host's KVM with the guest's kernel `krunfw`; none if it cannot be told
    /// from another.
    pub(crate) fn now(krunfw: &Path) -> Option<Self> {
        Self::of(Path::new("/dev/kvm"), krunfw)
    }

    fn of(kvm: &Path, krunfw: &Path) -> Option<Self> {
        let line = |path: &str| Some(fs::read_to_string(path).ok()?.trim().to_owned());
        let mut text = String::new();
        writeln!(text, "rootfs-boot {}", env!("CARGO_PKG_VERSION")).ok()?;
        writeln!(text, "boot {}", line("/proc/sys/kernel/random/boot_id")?).ok()?;
        writeln!(text, "kernel {}", line("/proc/sys/kernel/osrelease")?).ok()?;
        let kvm = fs::metadata(kvm).ok()?;
        let changed = (kvm.ctime(), kvm.ctime_nsec());
        writeln!(text, "kvm {} {} {} {changed:?}", kvm.rdev(), kvm.dev(), kvm.ino()).ok()?;
        write!(text, "krunfw {krunfw:?}").ok()?;
        // One that the system's loader finds is known by its name alone.
        if let Ok(file) = fs::metadata(krunfw) {
            let modified = (file.mtime(), file.mtime_nsec());
            write!(text, " {} {} {} {modified:?}", file.dev(), file.ino(), file.size()).ok()?;
        }
        text.push('\n');
        Some(Self(text))
    }

    /// Whether an earlier start found that this KVM runs no guest.
    pub(crate) fn is_known(&self) -> bool {
        directories().any(|dir| self.is_in(&dir))
    }

    /// Remembers that it runs none.
    pub(crate) fn remember(&self) {
        // The first that can be written is enough, and none is no error.
        let _ = directories().any(|dir| self.write_to(&dir).is_ok());
    }

    fn is_in(&self, dir: &Path) -> bool {
        read(dir).is_ok_and(|(text, age)| text == self.0 && age <= MAX_AGE)
    }

    fn write_to(&self, dir: &Path) -> io::Result<()> {
        create(dir)?;
        let temporary = Temporary::create_in(&open(dir)?.into(), 0o600)?;
        temporary.file().write_all(self.0.as_bytes())?;
        temporary.replace(Path::new(NAME)).map(drop)
    }
}

/// Forgets what was found, whatever it was about: a guest came up.
pub(crate) fn forget() {
    for dir in directories() {
        if let Ok(dir) = open(&dir) {
            // There mostly is nothing to forget.
            let _ = rustix::fs::unlinkat(&dir, NAME, AtFlags::empty());
        }
    }
}

/// Where findings may lie, the best place first.
fn directories() -> impl Iterator<Item = PathBuf> {
    let set = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let runtime = set("XDG_RUNTIME_DIR");
    let user = PathBuf::from(format!("/run/user/{}", rustix::process::geteuid().as_raw()));
    let cache = set("XDG_CACHE_HOME").or_else(|| Some(set("HOME")?.join(".cache")));
    // The directories of the system exist, or are not used; the cache is made.
    let system = runtime.into_iter().chain([user]).filter(|dir| dir.is_dir());
    // Root with the environment of another user (sudo) writes nothing to that user's home.
    system.chain(cache).filter(|dir| is_own(dir)).map(|dir| dir.join("rootfs-boot"))
}

/// Whether `dir` is this user's, or would be made below what is.
fn is_own(dir: &Path) -> bool {
    let there = dir.ancestors().find_map(|dir| fs::metadata(dir).ok());
    there.is_some_and(|found| found.uid() == rustix::process::geteuid().as_raw())
}

fn create(dir: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir)
}

/// Opens a directory that is this user's own and that nobody else may write to.
fn open(dir: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let dir = File::from(rustix::fs::open(dir, flags, Mode::empty())?);
    let metadata = dir.metadata()?;
    let own = metadata.uid() == rustix::process::geteuid().as_raw();
    if !own || metadata.mode() & OTHERS_WRITE != 0 {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    Ok(dir.into())
}

/// The finding in `dir` and how old it is.
fn read(dir: &Path) -> io::Result<(String, Duration)> {
    let dir = open(dir)?;
    // What is put there in place of a file must not hold anybody up.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::openat(&dir, NAME, flags, Mode::empty())?);
    let metadata = file.metadata()?;
    let own = metadata.uid() == rustix::process::geteuid().as_raw();
    if !own || !metadata.is_file() || metadata.mode() & OTHERS_WRITE != 0 {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    let mut text = String::new();
    file.take(MAX_SIZE).read_to_string(&mut text)?;
    // One from the future is as good as none.
    let age = metadata.modified()?.elapsed().map_err(io::Error::other)?;
    Ok((text, age))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};
    use std::time::SystemTime;

    use super::*;

    fn subject(text: &str) -> Subject {
        Subject(text.to_owned())
    }

    #[test]
    fn what_was_found_counts_for_its_subject_alone() {
        let tmp = tempfile::tempdir().unwrap();
        let dir = tmp.path().join("cache/rootfs-boot");
        assert!(!subject("a\n").is_in(&dir));
        subject("a\n").write_to(&dir).unwrap();
        assert!(subject("a\n").is_in(&dir));
        assert!(!subject("b\n").is_in(&dir));
        subject("b\n").write_to(&dir).unwrap();
        assert!(!subject("a\n").is_in(&dir));
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 1);
        assert_eq!(dir.metadata().unwrap().mode() & 0o777, 0o700);
        assert_eq!(dir.join(NAME).metadata().unwrap().mode() & 0o777, 0o600);
    }

    #[test]
    fn it_grows_old_and_cannot_come_from_the_future() {
        let tmp = tempfile::tempdir().unwrap();
        subject("a").write_to(tmp.path()).unwrap();
        let file = File::options().write(true).open(tmp.path().join(NAME)).unwrap();
        let hours = |n: u64| Duration::from_secs(n * 3600);
        for (time, counts) in [
            (SystemTime::now() - hours(23), true),
            (SystemTime::now() - hours(25), false),
            (SystemTime::now() + hours(1), false),
        ] {
            file.set_modified(time).unwrap();
            assert_eq!(subject("a").is_in(tmp.path()), counts, "{time:?}");
        }
    }

    #[test]
    fn links_are_not_followed_and_what_others_may_write_does_not_count() {
        let tmp = tempfile::tempdir().unwrap();
        let (dir, other) = (tmp.path().join("dir"), tmp.path().join("other"));
        fs::write(&other, "a").unwrap();
        fs::set_permissions(&other, fs::Permissions::from_mode(0o600)).unwrap();
        fs::create_dir(&dir).unwrap();
        symlink(&other, dir.join(NAME)).unwrap();
        assert!(!subject("a").is_in(&dir));
        // Written in its place, and not through it.
        subject("b").write_to(&dir).unwrap();
        assert_eq!(fs::read(&other).unwrap(), b"a");
        assert!(subject("b").is_in(&dir));

        let mode = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode));
        mode(&dir.join(NAME), 0o622).unwrap();
        assert!(!subject("b").is_in(&dir));
        mode(&dir.join(NAME), 0o600).unwrap();
        mode(&dir, 0o1777).unwrap();
        assert!(!subject("b").is_in(&dir) && subject("b").write_to(&dir).is_err());
        let link = tmp.path().join("link");
        mode(&dir, 0o700).unwrap();
        symlink(&dir, &link).unwrap();
        assert!(!subject("b").is_in(&link) && subject("b").write_to(&link).is_err());
        // A directory that cannot be made is no error either.
        assert!(subject("b").write_to(&other.join("rootfs-boot")).is_err());
    }

    #[test]
    fn another_device_or_kernel_is_another_subject() {
        let subject = |kvm, krunfw| Subject::of(Path::new(kvm), krunfw).unwrap().0;
        let tmp = tempfile::tempdir().unwrap();
        let krunfw = tmp.path().join("libkrunfw.so.5");
        fs::write(&krunfw, "one").unwrap();
        let one = subject("/dev/null", &krunfw);
        assert_eq!(subject("/dev/null", &krunfw), one);
        assert_ne!(subject("/dev/null", Path::new("libkrunfw.so.5")), one);
        assert_ne!(subject("/dev/zero", &krunfw), one);
        fs::write(&krunfw, "another").unwrap();
        assert_ne!(subject("/dev/null", &krunfw), one);
        assert!(Subject::of(Path::new("/nosuch"), &krunfw).is_none());
    }
}
