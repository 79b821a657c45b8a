//! Locks of files (flock), and who holds one that is waited for.
//!
//! The kernel gives a lock back when its holder ends, however that happens. So a
//! lock that can be had tells that whoever made the file is gone.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt as _;
use std::sync::mpsc;
use std::time::{Duration, Instant};
use std::{io, thread};

use rustix::fs::{Dev, FlockOperation};
use rustix::io::Errno;

use crate::io::threads;

/// How long a lock is waited for in silence.
const SILENCE: Duration = Duration::from_secs(1);

/// Who else may hold a lock at the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockKind {
    /// Other shared holders may, and no exclusive one.
    Shared,
    /// Nobody else may.
    Exclusive,
}

/// Locks `file`, waiting for whoever has it. After a second, `say` is told `what`
/// is waited for and which process holds it.
///
/// # Errors
/// When the kernel gives no lock at all, as where the file system has none.
pub fn wait(
    file: &File,
    kind: LockKind,
    what: &str,
    say: &(dyn Fn(&str) + Sync),
) -> io::Result<()> {
    if try_lock(file, kind)? {
        return Ok(());
    }
    let operation = match kind {
        LockKind::Shared => FlockOperation::LockShared,
        LockKind::Exclusive => FlockOperation::LockExclusive,
    };
    let (had, waits) = mpsc::channel::<()>();
    thread::scope(|scope| {
        let watch = move || {
            if waits.recv_timeout(SILENCE) == Err(mpsc::RecvTimeoutError::Timeout) {
                say(&format!("waiting for {what}, which {} holds", holder_name(file)));
            }
        };
        // Without a thread there is no word, and the lock is waited for all the same.
        let _ = threads::spawn_scoped(scope, "waiting", watch);
        let result = rustix::io::retry_on_intr(|| rustix::fs::flock(file, operation));
        drop(had);
        Ok(result?)
    })
}

/// Locks `file` if nobody else has it; says whether that is so.
///
/// # Errors
/// When the kernel gives no lock for another reason than that somebody has it, as where the
/// file system has none.
pub fn try_lock(file: &File, kind: LockKind) -> io::Result<bool> {
    let operation = match kind {
        LockKind::Shared => FlockOperation::NonBlockingLockShared,
        LockKind::Exclusive => FlockOperation::NonBlockingLockExclusive,
    };
    match rustix::io::retry_on_intr(|| rustix::fs::flock(file, operation)) {
        Ok(()) => Ok(true),
        Err(Errno::WOULDBLOCK) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Gives the lock of `file` back, which every descriptor has that was duplicated from it.
///
/// # Errors
/// When the kernel refuses, as where the file system has no locks.
pub fn unlock(file: &File) -> io::Result<()> {
    Ok(rustix::fs::flock(file, FlockOperation::Unlock)?)
}

/// Locks `file` exclusively if that is possible within `patience`; says whether it was.
///
/// # Errors
/// When the kernel gives no lock for another reason than that somebody has it, as where the
/// file system has none.
pub fn within(file: &File, patience: Duration) -> io::Result<bool> {
    let start = Instant::now();
    loop {
        if try_lock(file, LockKind::Exclusive)? {
            return Ok(true);
        }
        if start.elapsed() >= patience {
            return Ok(false);
        }
        thread::sleep(Duration::from_millis(5));
    }
}

/// The process that holds a lock of `file`, in words.
pub fn holder_name(file: &File) -> String {
    match holder(file) {
        Some(pid) => format!("process {pid}"),
        None => "another process".to_owned(),
    }
}

/// The process that holds a lock of `file`, as far as /proc/locks tells.
fn holder(file: &File) -> Option<u32> {
    let metadata = file.metadata().ok()?;
    find(&fs::read_to_string("/proc/locks").ok()?, metadata.dev(), metadata.ino())
}

/// The holder of the inode `ino` of `dev` in `locks`, which is /proc/locks.
fn find(locks: &str, dev: u64, ino: u64) -> Option<u32> {
    let device =
        format!("{:02x}:{:02x}", rustix::fs::major(dev as Dev), rustix::fs::minor(dev as Dev));
    let mut by_inode = None;
    for line in locks.lines() {
        // "1: FLOCK  ADVISORY  WRITE 4711 08:02:123 0 EOF"; who waits has "->" behind the number.
        let mut words = line.split_whitespace().skip(1);
        if words.next() != Some("FLOCK") {
            continue;
        }
        let (pid, inode) = (words.nth(2)?, words.next()?);
        let (on, number) = inode.rsplit_once(':')?;
        // Zero stands for a process of another PID namespace.
        let pid = pid.parse().ok().filter(|pid| *pid > 0);
        if number.parse() == Ok(ino) && pid.is_some() {
            if on == device {
                return pid;
            }
            // Some file systems (btrfs, overlayfs) show another device here than stat does.
            by_inode = by_inode.or(pid);
        }
    }
    by_inode
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[test]
    fn the_holder_is_found_in_the_kernels_list() {
        let locks = "1: POSIX  ADVISORY  WRITE 11 08:02:77 0 EOF\n\
                     2: FLOCK  ADVISORY  WRITE 12 08:02:78 0 EOF\n\
                     2: -> FLOCK  ADVISORY  WRITE 13 08:02:77 0 EOF\n\
                     3: FLOCK  ADVISORY  WRITE 14 00:1f:77 0 EOF\n\
                     4: FLOCK  ADVISORY  READ  15 08:02:77 0 EOF\n\
                     5: FLOCK  ADVISORY  READ  0 08:02:79 0 EOF\n";
        let dev = rustix::fs::makedev(8, 2);
        assert_eq!(find(locks, dev, 77), Some(15));
        assert_eq!(find(locks, rustix::fs::makedev(9, 9), 77), Some(14));
        assert_eq!(find(locks, dev, 79), None);
        assert_eq!(find(locks, dev, 80), None);
    }

    #[test]
    fn who_waits_is_told_for_whom() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let held = File::create(&path).unwrap();
        assert!(try_lock(&held, LockKind::Exclusive).unwrap());
        let other = File::open(&path).unwrap();
        assert!(!try_lock(&other, LockKind::Shared).unwrap());
        assert!(!within(&other, Duration::from_millis(1)).unwrap());
        let said = Mutex::new(String::new());
        let say = |text: &str| {
            text.clone_into(&mut said.lock().unwrap());
            // Only now, so that the word comes before the lock however slow the machine is.
            rustix::fs::flock(&held, FlockOperation::Unlock).unwrap();
        };
        wait(&other, LockKind::Exclusive, "the thing", &say).unwrap();
        let expected = format!("waiting for the thing, which process {} holds", std::process::id());
        assert_eq!(*said.lock().unwrap(), expected);
    }
}
