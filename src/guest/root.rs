//! The command's root: overlay over EROFS and ext4, and what is mounted in it.

use crate::arena::{self, Str, decimal, join, octal};
use crate::config::{Config, bare, number, split};
use crate::disks::Metadata;
use crate::etc::{self, Own};
use crate::sys;
use crate::wire::{disk, key, share, when};
use crate::{Doing, Failure, disks, note, warn};

const RDONLY: usize = 1;
pub const NOSUID: usize = 2;
const NODEV: usize = 4;
const NOEXEC: usize = 8;
/// Neither devices nor programs nor setuid.
pub const NOTHING: usize = NOSUID | NODEV | NOEXEC;

/// Volumes that cannot be made and are named.
const MOST_WARNINGS: usize = 20;

/// What PID 1 made for the command's root.
pub struct Root {
    pub own: [Own; 3],
    /// The mount tree of /dev/pts.
    pts: usize,
    /// Where notes go.
    pub control: usize,
    pub metadata: Option<Metadata>,
}

/// Mounts the disks and joins them, and prepares what lies over the image.
pub fn mount(config: &Config, control: usize) -> Result<Root, Failure> {
    let rootfs = disks::disk(disk::ROOTFS).doing(&[b"looking for the disk rootfs"])?;
    sys::mount(rootfs, b"/lower\0", b"erofs\0", RDONLY, b"\0").doing(&[b"mounting the image"])?;
    let ahead = config.one(key::READ_AHEAD).and_then(|text| number(bare(text)));
    let metadata = ahead.and_then(|bytes| Metadata::read_ahead(rootfs, bytes).ok());
    let upper = disks::disk(disk::UPPER).doing(&[b"looking for the disk upper"])?;
    if config.has(key::IN_MEMORY) {
        // What the compiler baked into the upper stays visible below a new one in memory.
        sys::mount(upper, b"/upper\0", b"ext4\0", RDONLY, b"noload\0")
            .doing(&[b"mounting the upper"])?;
        scratch().doing(&[b"making an upper in memory"])?;
        let layers = b"lowerdir=/upper/upper:/lower,upperdir=/scratch/upper,workdir=/scratch/work";
        overlay(layers)?;
    } else {
        sys::mount(upper, b"/upper\0", b"ext4\0", 0, b"\0").doing(&[b"mounting the upper"])?;
        if config.has(key::GROW) {
            grow(upper).doing(&[b"growing the upper"])?;
        }
        overlay(b"lowerdir=/lower,upperdir=/upper/upper,workdir=/upper/work")?;
    }
    let own = etc::make()?;
    let _ = sys::mkdir(b"/dev/pts\0", 0o755);
    let _ = sys::mkdir(b"/dev/shm\0", 0o755);
    let _ = sys::chmod(b"/dev/shm\0", 0o1777);
    let options = b"gid=5,mode=620,ptmxmode=666\0";
    sys::mount(b"devpts\0", b"/dev/pts\0", b"devpts\0", NOSUID | NOEXEC, options)
        .doing(&[b"mounting /dev/pts"])?;
    let pts = sys::detached(b"/dev/pts\0").doing(&[b"sharing /dev/pts"])?;
    Ok(Root { own, pts, control, metadata })
}

/// Mounts the command's root. Where only a file's metadata changes, or a directory's name, the upper
/// gets that alone, and nothing is copied. Nobody else writes to the upper or to the layers below it,
/// so what its marks lead to is what this kernel meant.
fn overlay(layers: Str) -> Result<(), Failure> {
    let mount = |options| sys::mount(b"overlay\0", b"/root\0", b"overlay\0", 0, options);
    let mounted = match mount(join(&[layers, b",metacopy=on,redirect_dir=on\0"])) {
        // A kernel may have neither.
        Err(sys::EINVAL) => mount(join(&[layers, b"\0"])),
        mounted => mounted,
    };
    mounted.doing(&[b"mounting the overlay"])
}

/// A tmpfs with an upper whose root looks like the image's.
fn scratch() -> sys::Result<()> {
    sys::mount(b"scratch\0", b"/scratch\0", b"tmpfs\0", 0, b"mode=755\0")?;
    let like = sys::stat(b"/upper/upper\0")?;
    sys::mkdir(b"/scratch/work\0", 0o700)?;
    sys::mkdir(b"/scratch/upper\0", 0o755)?;
    sys::chown(b"/scratch/upper\0", like.uid, like.gid)?;
    sys::chmod(b"/scratch/upper\0", usize::from(like.mode & 0o7777))
}

/// Makes the ext4 as large as its disk.
fn grow(device: Str) -> sys::Result<()> {
    const BLOCK: u64 = 4096;
    let blocks = disks::size(device)? / BLOCK;
    let fd = sys::open(b"/upper\0", sys::O_DIRECTORY, 0)?;
    let result = sys::resize_ext4(fd, blocks);
    sys::close(fd);
    result
}

/// In the command's process: makes the overlay its root, with all that a
/// container finds in its own. Returns the machine's name.
pub fn enter(root: &Root, config: &Config) -> Result<Str, Failure> {
    sys::unshare_mounts().doing(&[b"leaving PID 1's mounts"])?;
    let enter = || -> sys::Result<()> {
        sys::chdir(b"/root\0")?;
        sys::pivot_root(b".\0", b".\0")?;
        const DETACH: usize = 2;
        sys::umount(b".\0", DETACH)?;
        sys::chdir(b"/\0")
    };
    enter().doing(&[b"entering the image"])?;
    on(b"/proc\0", b"proc\0", NOTHING, b"\0")?;
    on(b"/sys\0", b"sysfs\0", NOTHING, b"\0")?;
    on(b"/dev\0", b"devtmpfs\0", NOSUID, b"mode=755\0")?;
    // Not every kernel has them, and few commands look.
    let _ = sys::mount(b"cgroup\0", b"/sys/fs/cgroup\0", b"cgroup2\0", NOTHING, b"\0");
    let _ = sys::mkdir(b"/dev/mqueue\0", 0o755);
    let _ = sys::mount(b"mqueue\0", b"/dev/mqueue\0", b"mqueue\0", NOTHING, b"\0");
    sys::attach(root.pts, b"/dev/pts\0").doing(&[b"mounting /dev/pts"])?;
    for (path, target) in [
        (&b"/dev/fd\0"[..], &b"/proc/self/fd\0"[..]),
        (b"/dev/stdin\0", b"/proc/self/fd/0\0"),
        (b"/dev/stdout\0", b"/proc/self/fd/1\0"),
        (b"/dev/stderr\0", b"/proc/self/fd/2\0"),
    ] {
        let _ = sys::symlink(target, path);
    }
    // devtmpfs has a node of its own that leads to the first devpts only.
    let _ = sys::attach_file(b"/dev/pts/ptmx\0", b"/dev/ptmx\0");
    for tmpfs in config.all(key::TMPFS) {
        memory(tmpfs, root.control)?;
    }
    let name = etc::fill(root, config);
    for share in config.all(key::SHARE) {
        share_of_host(share)?;
    }
    // What is said takes memory.
    let mut to_say = MOST_WARNINGS;
    for dir in config.all(key::VOLUME) {
        match make_dirs(dir) {
            Err(errno) if to_say > 0 => {
                to_say -= 1;
                warn(root.control, errno, &[b"the image's volume ", bare(dir), b" is left out"]);
            }
            _ => {}
        }
    }
    for (path, value) in [
        (&b"/proc/sys/net/ipv4/ip_unprivileged_port_start\0"[..], &b"0"[..]),
        (b"/proc/sys/net/ipv4/ping_group_range\0", b"0 2147483647"),
    ] {
        // As containers have it; a kernel without network has no such files.
        if let Ok(fd) = sys::open(path, sys::O_WRONLY, 0) {
            let _ = sys::write_all(fd, value);
            sys::close(fd);
        }
    }
    Ok(name)
}

/// The last change to the command's root: nothing more can be written there, if
/// that was asked for, but to what lies on mounts of its own. The image's volumes
/// are such mounts, as docker makes each of them one.
pub fn seal(root: &Root, config: &Config) -> Result<(), Failure> {
    if !config.has(key::READ_ONLY) {
        return Ok(());
    }
    // One that is not a directory was left out.
    for dir in config.all(key::VOLUME).filter(|dir| sys::stat(dir).is_ok_and(|s| s.is_dir())) {
        // Bound before the root is sealed: a mount keeps the flags that it began with.
        sys::attach_file(dir, dir).doing(&[b"mounting the volume ", bare(dir)])?;
    }
    sys::seal(b"/\0").doing(&[b"making the root read-only"])?;
    for own in &root.own {
        // Where the image's own file stayed, there is no mount.
        let _ = sys::seal(own.path);
    }
    Ok(())
}

/// Mounts a file system of the kernel's own, on a directory that is made if need be.
fn on(path: Str, kind: Str, flags: usize, options: Str) -> Result<(), Failure> {
    let mount = || {
        make_dirs(path)?;
        sys::mount(kind, path, kind, flags, options)
    };
    mount().doing(&[b"mounting ", bare(path)])
}

/// A tmpfs from a record `always|if-empty:SIZE:PATH`, with the mode and owner of
/// what it covers. What an image keeps in its own /run or /tmp is not covered
/// unless somebody asked for it, and where no directory can be, nothing is mounted.
fn memory(record: Str, control: usize) -> Result<(), Failure> {
    let parts = split(record, b':').and_then(|(when, rest)| Some((when, split(rest, b':')?)));
    let Some((when, (size, path))) = parts else { return Ok(()) };
    let make = || {
        let is_new = sys::stat(path).is_err();
        make_dirs(path)?;
        if is_new && matches!(bare(path), b"/tmp" | b"/dev/shm") {
            // Everybody's, in an image that has none of its own too.
            sys::chmod(path, 0o1777)?;
        }
        let like = sys::stat(path)?;
        let mut empty = true;
        sys::each_name(path, |_| {
            empty = false;
            true
        })?;
        if when == when::IF_EMPTY.as_bytes() && !empty {
            return Ok(());
        }
        let size = if size.is_empty() { b"50%" } else { size };
        let (mode, uid, gid) =
            (octal(like.mode & 0o7777), decimal(like.uid.into()), decimal(like.gid.into()));
        let options = join(&[b"size=", size, b",mode=", mode, b",uid=", uid, b",gid=", gid]);
        sys::mount(b"tmpfs\0", path, b"tmpfs\0", NOSUID | NODEV, options)
    };
    match make() {
        Err(errno) if when == when::IF_EMPTY.as_bytes() => {
            note(control, errno, &[b"no tmpfs on ", bare(path)]);
            Ok(())
        }
        made => made.doing(&[b"mounting a tmpfs on ", bare(path)]),
    }
}

/// A directory of the host from a record `ro|rw:TAG:PATH`.
fn share_of_host(record: Str) -> Result<(), Failure> {
    let parts = split(record, b':').and_then(|(mode, rest)| Some((mode, split(rest, b':')?)));
    let Some((mode, (tag, path))) = parts else { return Ok(()) };
    let flags = if mode == share::READ_ONLY.as_bytes() { RDONLY } else { 0 };
    let mount = || {
        make_dirs(path)?;
        sys::mount(join(&[tag]), path, b"virtiofs\0", flags | NOSUID | NODEV, b"\0")
    };
    mount().doing(&[b"mounting the host's directory on ", bare(path)])
}

/// `path`, and where it leads if it is a symbolic link, one link after the other,
/// as many as the kernel follows.
pub fn links(path: Str) -> impl Iterator<Item = Str> {
    const MOST_LINKS: usize = 40;
    const PATH_BYTES: usize = 4096;
    let next = |path: &Str| {
        let mut buffer = [0; PATH_BYTES];
        let target = sys::read_link(path, &mut buffer).ok()?;
        if target.starts_with(b"/") {
            return Some(join(&[target]));
        }
        let dir = path.iter().rposition(|b| *b == b'/').map_or(0, |slash| slash + 1);
        Some(join(&[&path[..dir], target]))
    };
    core::iter::successors(Some(path), next).take(1 + MOST_LINKS)
}

/// Makes `path` and what leads there, 0755 and root's.
pub fn make_dirs(path: Str) -> sys::Result<()> {
    let part = arena::take(path.len());
    part.copy_from_slice(path);
    for end in 1..path.len() {
        if path[end] != b'/' && path[end] != 0 {
            continue;
        }
        part[end] = 0;
        let made = sys::mkdir(&part[..=end], 0o755);
        part[end] = path[end];
        match made {
            // A file system that cannot be written may have it all the same.
            Ok(()) | Err(sys::EEXIST | sys::EROFS | sys::ENOENT) => {}
            Err(errno) => return Err(errno),
        }
    }
    if sys::stat(path)?.is_dir() { Ok(()) } else { Err(sys::ENOTDIR) }
}

/// Takes the disks down, so that the upper is clean, and proves it.
pub fn unmount() -> Result<(), Failure> {
    sys::sync();
    for path in [&b"/root\0"[..], b"/scratch\0", b"/upper\0", b"/lower\0"] {
        // What failed to come up is not there to take down.
        let _ = again(|| match sys::umount(path, 0) {
            Err(sys::EINVAL | sys::ENOENT) => Ok(()),
            other => other,
        });
    }
    let Ok(upper) = disks::disk(disk::UPPER) else { return Ok(()) };
    // The command's own mounts go with its last process, a moment later: only
    // when nobody holds the disk, the journal is closed.
    let free = again(|| sys::open(upper, sys::O_EXCL, 0));
    free.map(sys::close).doing(&[b"unmounting the upper"])
}

fn again<T>(mut attempt: impl FnMut() -> sys::Result<T>) -> sys::Result<T> {
    for _ in 0..1000 {
        match attempt() {
            Err(sys::EBUSY) => drop(sys::poll(&mut [], Some(2))),
            other => return other,
        }
    }
    Err(sys::EBUSY)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::ffi::OsStrExt as _;
    use std::os::unix::fs::symlink;

    use tempfile::TempDir;

    use super::*;

    fn path(dir: &TempDir, name: &str) -> Str {
        join(&[dir.path().join(name).as_os_str().as_bytes()])
    }

    #[test]
    fn directories_on_the_way_are_made() {
        let scratch = TempDir::new().unwrap();
        assert_eq!(make_dirs(path(&scratch, "a/b//c/")), Ok(()));
        assert_eq!(make_dirs(path(&scratch, "a/b/c")), Ok(()));
        assert!(scratch.path().join("a/b/c").is_dir());
        fs::write(scratch.path().join("a/file"), b"").unwrap();
        assert_eq!(make_dirs(path(&scratch, "a/file")), Err(sys::ENOTDIR));
        assert_eq!(make_dirs(path(&scratch, "a/file/x")), Err(sys::ENOTDIR));
    }

    #[test]
    fn links_are_followed_one_after_the_other() {
        let scratch = TempDir::new().unwrap();
        let link = |target: &str, name| {
            symlink(target, scratch.path().join(name)).unwrap();
        };
        link("second", "first");
        link("/not/there", "second");
        let found: Vec<_> = links(path(&scratch, "first")).collect();
        assert_eq!(found, [path(&scratch, "first"), path(&scratch, "second"), b"/not/there\0"]);
        // A circle ends where the kernel would give up.
        link("circle", "circle");
        assert_eq!(links(path(&scratch, "circle")).count(), 41);
    }
}
