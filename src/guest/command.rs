//! Becoming the command.

use crate::arena::{self, Str, decimal, join};
use crate::config::{Config, bare};
use crate::root::{self, Root};
use crate::streams::Streams;
use crate::sys;
use crate::user::User;
use crate::wire::{code, key, word};
use crate::{Doing, Failure, program, say};

/// What a process says that is about to be the command; a failure begins with a digit.
const READY: &[u8] = b"ready";

/// Starts the command in a process of its own, whose number is returned once
/// it runs. The host is told just before.
pub fn start(config: &Config, root: &Root, streams: &mut Streams) -> Result<usize, Failure> {
    let (from_child, to_parent) = sys::pipe().doing(&[b"making a pipe"])?;
    let (wait, go) = sys::pipe().doing(&[b"making a pipe"])?;
    let pid = sys::fork().doing(&[b"starting a process"])?;
    if pid == 0 {
        sys::close(from_child);
        sys::close(go);
        let ready = || {
            let _ = sys::write_all(to_parent, READY);
            // Ends when the parent lets go.
            let _ = sys::read(wait, &mut [0]);
        };
        let Err(Failure { code, errno, what }) = become_command(config, root, streams, ready);
        let errno = decimal(errno.unsigned_abs().into());
        let _ = sys::write_all(to_parent, join(&[decimal(code.into()), b" ", errno, b" ", what]));
        sys::exit(1);
    }
    sys::close(to_parent);
    sys::close(wait);
    streams.started();
    let mut buffer = [0; 4096];
    let mut len = sys::read(from_child, &mut buffer).unwrap_or(0);
    if buffer[..len] == *READY {
        // Said before the image's own code runs, which could keep PID 1 from it.
        say(root.control, word::RUN, &[decimal(sys::uptime())]);
        len = 0;
    }
    sys::close(go);
    // A successful exec closes the pipe without a word.
    while let Ok(n @ 1..) = sys::read(from_child, &mut buffer[len..]) {
        len += n;
    }
    sys::close(from_child);
    if len == 0 {
        return Ok(pid);
    }
    let mut parts = buffer[..len].splitn(3, |b| *b == b' ');
    let mut next = || parts.next().unwrap_or(b"");
    let code = crate::config::number(next()).and_then(|n| u8::try_from(n).ok());
    let code = code.unwrap_or(code::MACHINE_FAILED);
    let errno = crate::config::number(next()).unwrap_or(0) as i32;
    let what = next();
    let what = join(&[what.strip_suffix(b"\0").unwrap_or(what)]);
    Err(Failure { code, errno, what })
}

fn become_command(
    config: &Config,
    root: &Root,
    streams: &Streams,
    ready: impl Fn(),
) -> Result<core::convert::Infallible, Failure> {
    sys::setsid();
    let hostname = root::enter(root, config)?;
    sys::set_hostname(bare(hostname)).doing(&[b"setting the host name"])?;
    let _ = sys::loopback_up();
    let user = User::find(bare(config.one(key::USER).unwrap_or(b"\0")))?;
    streams.hand_over(user.uid)?;
    let cwd = config.one(key::CWD).unwrap_or(b"/\0");
    root::make_dirs(cwd)
        .and_then(|()| sys::chdir(cwd))
        .doing(&[b"entering the directory ", bare(cwd)])?;
    root::seal(root, config)?;
    if let Some(limit) = config.one(key::NOFILE).and_then(|n| crate::config::number(bare(n))) {
        sys::open_files_limit(limit);
    }
    let argv = arena::addresses(config.all(key::ARG));
    let has = |name: &[u8]| config.all(key::ENV).any(|e| e.starts_with(name));
    let home = (!has(b"HOME=")).then(|| join(&[b"HOME=", user.home]));
    let hostname = (!has(b"HOSTNAME=")).then(|| join(&[b"HOSTNAME=", hostname]));
    let envp = arena::addresses(config.all(key::ENV).chain(home).chain(hostname));
    let Some(name) = config.one(key::ARG).filter(|name| name.len() > 1) else {
        let what = join(&[b"neither the image nor the command line names a command"]);
        return Err(Failure { code: code::MACHINE_FAILED, errno: 0, what });
    };
    sys::become_user(user.uid, user.gid, user.groups()).doing(&[b"becoming the user"])?;
    let _ = sys::signals(false);
    let path = config.all(key::ENV).filter_map(|e| e.strip_prefix(b"PATH=")).last();
    let second = config.all(key::ARG).nth(1);
    let plain = config.all(key::ARG).skip(1).any(program::needs_no_pid_1);
    let run = |path: Str| match program::init_system(path, second) {
        Some(failure) if !plain => Attempt::Never(failure),
        _ => Attempt::Failed(sys::exec(path, argv, envp)),
    };
    ready();
    Err(execute(name, path.unwrap_or(b"\0"), run))
}

/// What came of starting a program; one that started is not here any more.
enum Attempt {
    Failed(i32),
    /// It must not be started at all.
    Never(Failure),
}

/// Runs `name` as a shell would find it; says why it could not.
fn execute(name: Str, path: Str, run: impl Fn(Str) -> Attempt) -> Failure {
    let shown = bare(name);
    if shown.contains(&b'/') {
        return match run(name) {
            Attempt::Failed(errno) => program::refused(name, errno),
            Attempt::Never(failure) => failure,
        };
    }
    let mut worst = None;
    let longest = bare(path).split(|b| *b == b':').map(<[u8]>::len).max().unwrap_or(0);
    // One buffer for all: a PATH may name any number of directories.
    let full = arena::take(longest + shown.len() + 2);
    for dir in bare(path).split(|b| *b == b':').filter(|dir| !dir.is_empty()) {
        let len = dir.len() + 1 + shown.len();
        full[..dir.len()].copy_from_slice(dir);
        full[dir.len()] = b'/';
        full[dir.len() + 1..len].copy_from_slice(shown);
        full[len] = 0;
        if matches!(sys::stat(&full[..=len]), Err(sys::ENOENT | sys::ENOTDIR)) {
            continue;
        }
        let full = join(&[&full[..len]]);
        match run(full) {
            Attempt::Never(failure) => return failure,
            Attempt::Failed(errno) => worst = worst.or(Some((full, errno))),
        }
    }
    match worst {
        Some((full, errno)) => program::refused(full, errno),
        None => {
            let what = join(&[shown, b": not found in PATH"]);
            Failure { code: code::NOT_FOUND, errno: 0, what }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    /// What is started for `name`, as long as the kernel refuses it with `errno`; and the
    /// failure.
    fn search(name: Str, path: Str, errno: i32) -> (Vec<Str>, Failure) {
        let tried = RefCell::new(Vec::new());
        let failure = execute(name, path, |path| {
            tried.borrow_mut().push(path);
            Attempt::Failed(errno)
        });
        (tried.into_inner(), failure)
    }

    #[test]
    fn a_name_is_looked_for_in_path_from_its_beginning_on() {
        let (tried, failure) =
            search(b"mountinfo\0", b"/not/there::/proc/self:/proc/1\0", sys::EACCES);
        assert_eq!(tried, [&b"/proc/self/mountinfo\0"[..], b"/proc/1/mountinfo\0"]);
        // The first one that is there says what is wrong.
        assert_eq!(failure.code, code::NOT_EXECUTABLE);
        assert_eq!(failure.what, b"/proc/self/mountinfo\0");
    }

    #[test]
    fn a_name_with_a_slash_is_not_looked_for() {
        let (tried, failure) = search(b"./mountinfo\0", b"/proc/self\0", sys::ENOENT);
        assert_eq!(tried, [b"./mountinfo\0"]);
        assert_eq!((failure.code, failure.errno), (code::NOT_FOUND, sys::ENOENT));
    }

    #[test]
    fn what_is_nowhere_is_named() {
        let (tried, failure) = search(b"no-such-program\0", b"/proc/self:/proc\0", sys::ENOENT);
        assert!(tried.is_empty());
        assert_eq!(failure.code, code::NOT_FOUND);
        assert_eq!(failure.what, b"no-such-program: not found in PATH\0");
    }

    #[test]
    fn what_must_not_start_ends_the_search() {
        let tried = RefCell::new(0);
        let failure = execute(b"mountinfo\0", b"/proc/self:/proc/1\0", |_| {
            *tried.borrow_mut() += 1;
            Attempt::Never(Failure { code: code::MACHINE_FAILED, errno: 0, what: b"no\0" })
        });
        assert_eq!((tried.into_inner(), failure.what), (1, &b"no\0"[..]));
    }
}
