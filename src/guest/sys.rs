//! System calls.

use core::arch::asm;

use crate::arena::take;
use crate::calls as nr;

/// What a system call gave, or the errno.
pub type Result<T> = core::result::Result<T, i32>;

pub const ENOENT: i32 = 2;
pub const EINTR: i32 = 4;
pub const ENOEXEC: i32 = 8;
pub const EAGAIN: i32 = 11;
pub const EACCES: i32 = 13;
pub const EBUSY: i32 = 16;
pub const EEXIST: i32 = 17;
pub const ENOTDIR: i32 = 20;
pub const EINVAL: i32 = 22;
pub const EFBIG: i32 = 27;
pub const EROFS: i32 = 30;
pub const ELOOP: i32 = 40;

pub const AT_FDCWD: isize = -100;
pub const O_WRONLY: usize = 0o1;
pub const O_RDWR: usize = 0o2;
pub const O_CREAT: usize = 0o100;
pub const O_EXCL: usize = 0o200;
pub const O_DIRECTORY: usize = if cfg!(target_arch = "x86_64") { 0o200000 } else { 0o40000 };
pub const O_NOCTTY: usize = 0o400;
pub const O_NONBLOCK: usize = 0o4000;
pub const O_CLOEXEC: usize = 0o2000000;

pub const SIGKILL: usize = 9;
pub const SIGCHLD: usize = 17;

fn call(nr: usize, args: [usize; 6]) -> Result<usize> {
    let ret: isize;
    // SAFETY: the kernel's calling convention of each architecture. What the
    // pointers among `args` point to is the concern of the wrappers below, which
    // pass only live slices and NUL-terminated strings.
    #[cfg(target_arch = "x86_64")]
    unsafe {
        asm!("syscall", inlateout("rax") nr as isize => ret, in("rdi") args[0], in("rsi") args[1],
            in("rdx") args[2], in("r10") args[3], in("r8") args[4], in("r9") args[5],
            lateout("rcx") _, lateout("r11") _, options(nostack));
    }
    // SAFETY: as above.
    #[cfg(target_arch = "aarch64")]
    unsafe {
        asm!("svc 0", in("x8") nr, inlateout("x0") args[0] as isize => ret, in("x1") args[1],
            in("x2") args[2], in("x3") args[3], in("x4") args[4], in("x5") args[5], options(nostack));
    }
    if ret < 0 { Err(-ret as i32) } else { Ok(ret as usize) }
}

fn ptr(bytes: &[u8]) -> usize {
    debug_assert!(bytes.last() == Some(&0));
    bytes.as_ptr() as usize
}

pub fn open(path: &[u8], flags: usize, mode: usize) -> Result<usize> {
    call(nr::OPENAT, [AT_FDCWD as usize, ptr(path), flags | O_CLOEXEC, mode, 0, 0])
}

/// Calls `see` with each name in a directory until it returns true.
pub fn each_name(path: &[u8], mut see: impl FnMut(&[u8]) -> bool) -> Result<()> {
    let fd = open(path, O_DIRECTORY, 0)?;
    let mut buffer = [0u8; 4096];
    'all: loop {
        let len =
            match call(nr::GETDENTS64, [fd, buffer.as_mut_ptr() as usize, buffer.len(), 0, 0, 0]) {
                Ok(0) | Err(_) => break,
                Ok(len) => len,
            };
        let mut rest = &buffer[..len];
        // struct linux_dirent64: the record's length at 16, its name from 19 on.
        while rest.len() > 19 {
            let size = usize::from(u16::from_ne_bytes([rest[16], rest[17]]));
            let name = &rest[19..size];
            let name = &name[..name.iter().position(|b| *b == 0).unwrap_or(name.len())];
            if name != b"." && name != b".." && see(name) {
                break 'all;
            }
            rest = &rest[size..];
        }
    }
    close(fd);
    Ok(())
}

pub fn close(fd: usize) {
    let _ = call(nr::CLOSE, [fd, 0, 0, 0, 0, 0]);
}

pub fn read(fd: usize, buffer: &mut [u8]) -> Result<usize> {
    call(nr::READ, [fd, buffer.as_mut_ptr() as usize, buffer.len(), 0, 0, 0])
}

/// Reads at an offset, as much as there is in one go.
pub fn read_at(fd: usize, buffer: &mut [u8], at: u64) -> Result<usize> {
    call(nr::PREAD64, [fd, buffer.as_mut_ptr() as usize, buffer.len(), at as usize, 0, 0])
}

/// Begins to read a part of a file into the kernel's memory.
pub fn read_ahead(fd: usize, at: usize, len: usize) {
    let _ = call(nr::READAHEAD, [fd, at, len, 0, 0, 0]);
}

/// Maps the beginning of a file for reading, for as long as this process lives.
pub fn map(fd: usize, len: usize) -> Result<usize> {
    const PROT_READ: usize = 1;
    const MAP_SHARED: usize = 1;
    call(nr::MMAP, [0, len, PROT_READ, MAP_SHARED, fd, 0])
}

/// Reads a part of what [`map`] mapped, whose address is `at`, and maps its pages.
pub fn populate(at: usize, len: usize) -> Result<()> {
    const MADV_POPULATE_READ: usize = 22;
    call(nr::MADVISE, [at, len, MADV_POPULATE_READ, 0, 0, 0]).map(drop)
}

pub fn write(fd: usize, bytes: &[u8]) -> Result<usize> {
    call(nr::WRITE, [fd, bytes.as_ptr() as usize, bytes.len(), 0, 0, 0])
}

pub fn write_all(fd: usize, mut bytes: &[u8]) -> Result<()> {
    while !bytes.is_empty() {
        match write(fd, bytes) {
            Ok(n) => bytes = &bytes[n..],
            Err(EINTR | EAGAIN) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

/// The first bytes of a file, as many as `buffer` takes.
pub fn read_into<'b>(path: &[u8], buffer: &'b mut [u8]) -> Result<&'b [u8]> {
    // No fifo of an image holds this up.
    let fd = open(path, O_NONBLOCK, 0)?;
    let mut len = 0;
    while len < buffer.len() {
        match read(fd, &mut buffer[len..]) {
            Ok(0) => break,
            Ok(n) => len += n,
            Err(EINTR) => {}
            Err(errno) => {
                close(fd);
                return Err(errno);
            }
        }
    }
    close(fd);
    Ok(&buffer[..len])
}

/// All of a file, for good; larger than `limit` is an error.
pub fn read_file(path: &[u8], limit: usize) -> Result<&'static [u8]> {
    let size = stat(path)?.size;
    if size > limit as u64 {
        return Err(EFBIG);
    }
    read_into(path, take(size as usize))
}

pub fn mount(source: &[u8], target: &[u8], kind: &[u8], flags: usize, data: &[u8]) -> Result<()> {
    call(nr::MOUNT, [ptr(source), ptr(target), ptr(kind), flags, ptr(data), 0]).map(drop)
}

pub fn umount(target: &[u8], flags: usize) -> Result<()> {
    call(nr::UMOUNT2, [ptr(target), flags, 0, 0, 0, 0]).map(drop)
}

pub fn pivot_root(new: &[u8], old: &[u8]) -> Result<()> {
    call(nr::PIVOT_ROOT, [ptr(new), ptr(old), 0, 0, 0, 0]).map(drop)
}

/// The mount at `path` (or that directory or file of it) as a mount of its own,
/// which [`attach`] puts somewhere, in another root as well.
pub fn detached(path: &[u8]) -> Result<usize> {
    const OPEN_TREE_CLONE: usize = 1;
    call(nr::OPEN_TREE, [AT_FDCWD as usize, ptr(path), OPEN_TREE_CLONE | O_CLOEXEC, 0, 0, 0])
}

/// Mounts what [`detached`] gave on `path`, symbolic links followed.
pub fn attach(tree: usize, path: &[u8]) -> Result<()> {
    const F_EMPTY_PATH: usize = 0x04;
    const T_SYMLINKS: usize = 0x10;
    let flags = F_EMPTY_PATH | T_SYMLINKS;
    call(nr::MOVE_MOUNT, [tree, ptr(b"\0"), AT_FDCWD as usize, ptr(path), flags, 0]).map(drop)
}

/// Shows the file or directory `source` at `target` as well.
pub fn attach_file(source: &[u8], target: &[u8]) -> Result<()> {
    const BIND: usize = 4096;
    mount(source, target, b"\0", BIND, b"\0")
}

/// Makes the mount at `path`, symbolic links followed, read-only; other mounts of
/// the same file system stay as they are.
pub fn seal(path: &[u8]) -> Result<()> {
    const RDONLY_REMOUNT_BIND: usize = 1 | 32 | 4096;
    mount(b"\0", path, b"\0", RDONLY_REMOUNT_BIND, b"\0")
}

/// Makes the ext4 that `fd` lies on as large as `blocks`.
pub fn resize_ext4(fd: usize, blocks: u64) -> Result<()> {
    const EXT4_IOC_RESIZE_FS: usize = 0x4008_6610;
    call(nr::IOCTL, [fd, EXT4_IOC_RESIZE_FS, &raw const blocks as usize, 0, 0, 0]).map(drop)
}

pub fn mkdir(path: &[u8], mode: usize) -> Result<()> {
    call(nr::MKDIRAT, [AT_FDCWD as usize, ptr(path), mode, 0, 0, 0]).map(drop)
}

pub fn symlink(target: &[u8], path: &[u8]) -> Result<()> {
    call(nr::SYMLINKAT, [ptr(target), AT_FDCWD as usize, ptr(path), 0, 0, 0]).map(drop)
}

/// Where the symbolic link `path` leads, or EINVAL.
pub fn read_link<'b>(path: &[u8], buffer: &'b mut [u8]) -> Result<&'b [u8]> {
    let args = [AT_FDCWD as usize, ptr(path), buffer.as_mut_ptr() as usize, buffer.len(), 0, 0];
    call(nr::READLINKAT, args).map(|len| &buffer[..len])
}

pub fn chmod(path: &[u8], mode: usize) -> Result<()> {
    call(nr::FCHMODAT, [AT_FDCWD as usize, ptr(path), mode, 0, 0, 0]).map(drop)
}

pub fn chown(path: &[u8], uid: u32, gid: u32) -> Result<()> {
    call(nr::FCHOWNAT, [AT_FDCWD as usize, ptr(path), uid as usize, gid as usize, 0, 0]).map(drop)
}

pub fn fchown(fd: usize, uid: u32, gid: u32) -> Result<()> {
    call(nr::FCHOWN, [fd, uid as usize, gid as usize, 0, 0, 0]).map(drop)
}

pub fn fchmod(fd: usize, mode: usize) -> Result<()> {
    call(nr::FCHMOD, [fd, mode, 0, 0, 0, 0]).map(drop)
}

pub fn may_execute(path: &[u8]) -> Result<()> {
    const X_OK: usize = 1;
    call(nr::FACCESSAT, [AT_FDCWD as usize, ptr(path), X_OK, 0, 0, 0]).map(drop)
}

/// What is known of a file.
pub struct Stat {
    /// With the type's bits.
    pub mode: u16,
    pub uid: u32,
    pub gid: u32,
    pub size: u64,
}

impl Stat {
    pub fn is_dir(&self) -> bool {
        self.mode & 0o170000 == 0o040000
    }

    pub fn is_file(&self) -> bool {
        self.mode & 0o170000 == 0o100000
    }
}

/// Follows symbolic links.
pub fn stat(path: &[u8]) -> Result<Stat> {
    const BASIC: usize = 0x7ff;
    // struct statx: uid at 20, gid at 24, mode at 28, size at 40.
    let mut out = [0u8; 256];
    call(nr::STATX, [AT_FDCWD as usize, ptr(path), 0, BASIC, out.as_mut_ptr() as usize, 0])?;
    let word = |at: usize| u32::from_ne_bytes([out[at], out[at + 1], out[at + 2], out[at + 3]]);
    let mode = u16::from_ne_bytes([out[28], out[29]]);
    let size = u64::from(word(40)) | u64::from(word(44)) << 32;
    Ok(Stat { mode, uid: word(20), gid: word(24), size })
}

pub fn chdir(path: &[u8]) -> Result<()> {
    call(nr::CHDIR, [ptr(path), 0, 0, 0, 0, 0]).map(drop)
}

pub fn set_hostname(name: &[u8]) -> Result<()> {
    call(nr::SETHOSTNAME, [name.as_ptr() as usize, name.len(), 0, 0, 0, 0]).map(drop)
}

/// A new process: 0 in the child.
pub fn fork() -> Result<usize> {
    call(nr::CLONE, [SIGCHLD, 0, 0, 0, 0, 0])
}

pub fn unshare_mounts() -> Result<()> {
    const CLONE_NEWNS: usize = 0x20000;
    call(nr::UNSHARE, [CLONE_NEWNS, 0, 0, 0, 0, 0]).map(drop)
}

/// Replaces this process; returns only the errno. The lists end with null.
pub fn exec(path: &[u8], argv: &[*const u8], envp: &[*const u8]) -> i32 {
    let args = [ptr(path), argv.as_ptr() as usize, envp.as_ptr() as usize, 0, 0, 0];
    call(nr::EXECVE, args).err().unwrap_or(0)
}

/// The next child that ended, and how; none if all that are left still run.
pub fn reap() -> Result<Option<(usize, u32)>> {
    const WNOHANG: usize = 1;
    let mut status = 0u32;
    let pid = call(nr::WAIT4, [usize::MAX, &raw mut status as usize, WNOHANG, 0, 0, 0])?;
    Ok((pid != 0).then_some((pid, status)))
}

pub fn kill(pid: isize, signal: usize) {
    let _ = call(nr::KILL, [pid as usize, signal, 0, 0, 0, 0]);
}

pub fn setsid() {
    let _ = call(nr::SETSID, [0; 6]);
}

pub fn become_user(uid: u32, gid: u32, groups: &[u32]) -> Result<()> {
    call(nr::SETGROUPS, [groups.len(), groups.as_ptr() as usize, 0, 0, 0, 0])?;
    call(nr::SETGID, [gid as usize, 0, 0, 0, 0, 0])?;
    call(nr::SETUID, [uid as usize, 0, 0, 0, 0, 0]).map(drop)
}

/// Sets rows and columns of a terminal, from either side of a pty.
pub fn set_window(fd: usize, rows: u16, columns: u16) -> Result<()> {
    const TIOCSWINSZ: usize = 0x5414;
    let size = [rows, columns, 0, 0];
    call(nr::IOCTL, [fd, TIOCSWINSZ, size.as_ptr() as usize, 0, 0, 0]).map(drop)
}

/// Lets the other side of the pty `master` be opened, and returns its number.
pub fn unlock_pty(master: usize) -> Result<u32> {
    const TIOCGPTN: usize = 0x8004_5430;
    const TIOCSPTLCK: usize = 0x4004_5431;
    let (unlocked, mut number) = (0i32, 0u32);
    call(nr::IOCTL, [master, TIOCSPTLCK, &raw const unlocked as usize, 0, 0, 0])?;
    call(nr::IOCTL, [master, TIOCGPTN, &raw mut number as usize, 0, 0, 0])?;
    Ok(number)
}

/// Brings the loopback interface up.
pub fn loopback_up() -> Result<()> {
    const AF_INET: usize = 2;
    const SOCK_DGRAM_CLOEXEC: usize = 2 | O_CLOEXEC;
    const SIOCSIFFLAGS: usize = 0x8914;
    const IFF_UP: u16 = 1;
    // struct ifreq: 16 bytes of name, then the flags.
    let mut request = [0u8; 40];
    request[..2].copy_from_slice(b"lo");
    request[16..18].copy_from_slice(&IFF_UP.to_ne_bytes());
    let socket = call(nr::SOCKET, [AF_INET, SOCK_DGRAM_CLOEXEC, 0, 0, 0, 0])?;
    let result = call(nr::IOCTL, [socket, SIOCSIFFLAGS, request.as_ptr() as usize, 0, 0, 0]);
    close(socket);
    result.map(drop)
}

pub fn take_terminal(fd: usize) -> Result<()> {
    const TIOCSCTTY: usize = 0x540e;
    call(nr::IOCTL, [fd, TIOCSCTTY, 0, 0, 0, 0]).map(drop)
}

pub fn dup_to(fd: usize, to: usize) -> Result<()> {
    call(nr::DUP3, [fd, to, 0, 0, 0, 0]).map(drop)
}

/// Both ends are closed on exec.
pub fn pipe() -> Result<(usize, usize)> {
    let mut fds = [0i32; 2];
    call(nr::PIPE2, [fds.as_mut_ptr() as usize, O_CLOEXEC, 0, 0, 0, 0])?;
    Ok((fds[0] as usize, fds[1] as usize))
}

pub fn nonblocking(fd: usize) {
    const F_SETFL: usize = 4;
    let _ = call(nr::FCNTL, [fd, F_SETFL, O_NONBLOCK, 0, 0, 0]);
}

/// Blocks every signal and returns a descriptor that tells of SIGCHLD; or, with
/// `block` false, unblocks all.
pub fn signals(block: bool) -> Result<usize> {
    const SIG_SETMASK: usize = 2;
    let mask: u64 = if block { u64::MAX } else { 0 };
    call(nr::RT_SIGPROCMASK, [SIG_SETMASK, &raw const mask as usize, 0, 8, 0, 0])?;
    if !block {
        return Ok(0);
    }
    let child: u64 = 1 << (SIGCHLD - 1);
    call(nr::SIGNALFD4, [usize::MAX, &raw const child as usize, 8, O_CLOEXEC | O_NONBLOCK, 0, 0])
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct PollFd {
    pub fd: i32,
    pub events: i16,
    pub revents: i16,
}

pub const POLLIN: i16 = 1;
pub const POLLOUT: i16 = 4;

/// Waits until one of `fds` is ready, or for `millis`.
/// How many are.
pub fn poll(fds: &mut [PollFd], millis: Option<u64>) -> usize {
    // The kernel writes back what is left of it.
    let mut time = millis.map(|ms| [ms / 1000, ms % 1000 * 1_000_000]);
    let time = time.as_mut().map_or(0, |t| t.as_mut_ptr() as usize);
    call(nr::PPOLL, [fds.as_mut_ptr() as usize, fds.len(), time, 0, 0, 0]).unwrap_or(1)
}

/// Reads whatever `fd`, which does not block, has now.
pub fn drain(fd: usize) {
    let mut buffer = [0; 1024];
    while matches!(read(fd, &mut buffer), Ok(n) if n > 0) {}
}

pub fn open_files_limit(limit: u64) {
    const RLIMIT_NOFILE: usize = 7;
    let pair = [limit, limit];
    let _ = call(nr::PRLIMIT64, [0, RLIMIT_NOFILE, pair.as_ptr() as usize, 0, 0, 0]);
}

/// Microseconds since the kernel started.
pub fn uptime() -> u64 {
    const CLOCK_BOOTTIME: usize = 7;
    let mut time = [0u64; 2];
    let _ = call(nr::CLOCK_GETTIME, [CLOCK_BOOTTIME, time.as_mut_ptr() as usize, 0, 0, 0, 0]);
    time[0] * 1_000_000 + time[1] / 1000
}

pub fn sync() {
    let _ = call(nr::SYNC, [0; 6]);
}

pub fn restart_machine() -> ! {
    const MAGIC: [usize; 2] = [0xfee1_dead, 0x2812_1969];
    const RESTART: usize = 0x0123_4567;
    let _ = call(nr::REBOOT, [MAGIC[0], MAGIC[1], RESTART, 0, 0, 0]);
    exit(1)
}

pub fn exit(code: usize) -> ! {
    loop {
        let _ = call(nr::EXIT_GROUP, [code, 0, 0, 0, 0, 0]);
    }
}

#[cfg(test)]
mod tests;
