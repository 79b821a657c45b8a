//! System calls, against libc and the host's kernel.

use super::*;

#[test]
fn constants_are_those_of_libc() {
    for (ours, theirs) in [
        (ENOENT, libc::ENOENT),
        (EINTR, libc::EINTR),
        (ENOEXEC, libc::ENOEXEC),
        (EAGAIN, libc::EAGAIN),
        (EACCES, libc::EACCES),
        (EBUSY, libc::EBUSY),
        (EEXIST, libc::EEXIST),
        (ENOTDIR, libc::ENOTDIR),
        (EINVAL, libc::EINVAL),
        (EFBIG, libc::EFBIG),
        (EROFS, libc::EROFS),
        (ELOOP, libc::ELOOP),
        (AT_FDCWD as i32, libc::AT_FDCWD),
        (O_WRONLY as i32, libc::O_WRONLY),
        (O_RDWR as i32, libc::O_RDWR),
        (O_CREAT as i32, libc::O_CREAT),
        (O_EXCL as i32, libc::O_EXCL),
        (O_DIRECTORY as i32, libc::O_DIRECTORY),
        (O_NOCTTY as i32, libc::O_NOCTTY),
        (O_NONBLOCK as i32, libc::O_NONBLOCK),
        (O_CLOEXEC as i32, libc::O_CLOEXEC),
        (SIGKILL as i32, libc::SIGKILL),
        (SIGCHLD as i32, libc::SIGCHLD),
        (POLLIN.into(), libc::POLLIN.into()),
        (POLLOUT.into(), libc::POLLOUT.into()),
    ] {
        assert_eq!(ours, theirs);
    }
}

#[test]
fn a_failed_call_gives_its_errno() {
    assert_eq!(stat(b"/not/there\0").err(), Some(ENOENT));
    assert_eq!(read_into(b"/proc/version/x\0", &mut [0]).err(), Some(ENOTDIR));
    assert_eq!(read_file(b"/proc/self/exe\0", 10).err(), Some(EFBIG));
}

#[test]
fn a_pipe_carries_bytes_until_it_is_closed() {
    let (from, to) = pipe().unwrap();
    nonblocking(from);
    let mut buffer = [0; 8];
    assert_eq!(read(from, &mut buffer), Err(EAGAIN));
    write_all(to, b"bytes").unwrap();
    assert_eq!(read(from, &mut buffer), Ok(5));
    assert_eq!(&buffer[..5], b"bytes");
    close(to);
    assert_eq!(read(from, &mut buffer), Ok(0));
    close(from);
}

#[test]
fn a_directory_is_read_up_to_the_name_that_was_looked_for() {
    let mut names = Vec::new();
    each_name(b"/proc/self\0", |name| {
        names.push(name.to_vec());
        name == b"exe"
    })
    .unwrap();
    assert_eq!(names.last().map(Vec::as_slice), Some(&b"exe"[..]));
    assert!(!names.iter().any(|name| name == b"." || name == b".."));
}

#[test]
fn stat_tells_files_from_directories() {
    let dir = stat(b"/proc\0").unwrap();
    assert!(dir.is_dir() && !dir.is_file());
    let exe = stat(b"/proc/self/exe\0").unwrap();
    assert!(exe.is_file() && exe.size > 1000 && exe.mode & 0o100 != 0);
    assert!(uptime() > 0);
}
