//! Becoming the command.

use crate::config::{Config, bare};
use crate::root::{self, Root};
use crate::streams::Streams;
use crate::sys::{self, Str, decimal, join};
use crate::user::User;
use crate::{Doing, Failure, MACHINE};

const NOT_EXECUTABLE: u64 = 126;
const NOT_FOUND: u64 = 127;

/// Starts the command in a process of its own, whose number is returned once
/// it runs.
pub fn start(config: &Config, root: &Root, streams: &mut Streams) -> Result<usize, Failure> {
    let (from_child, to_parent) = sys::pipe().doing(&[b"making a pipe"])?;
    let pid = sys::fork().doing(&[b"starting a process"])?;
    if pid == 0 {
        sys::close(from_child);
        let Err(Failure { code, errno, what }) = become_command(config, root, streams);
        let errno = decimal(errno.unsigned_abs().into());
        let _ = sys::write_all(to_parent, join(&[decimal(code), b" ", errno, b" ", what]));
        sys::exit(1);
    }
    sys::close(to_parent);
    streams.started();
    // A successful exec closes the pipe without a word.
    let mut buffer = [0; 4096];
    let mut len = 0;
    while let Ok(n @ 1..) = sys::read(from_child, &mut buffer[len..]) {
        len += n;
    }
    sys::close(from_child);
    if len == 0 {
        return Ok(pid);
    }
    let mut parts = buffer[..len].splitn(3, |b| *b == b' ');
    let mut next = || parts.next().unwrap_or(b"");
    let code = crate::config::number(next()).unwrap_or(MACHINE);
    let errno = crate::config::number(next()).unwrap_or(0) as i32;
    let what = next();
    let what = join(&[what.strip_suffix(b"\0").unwrap_or(what)]);
    Err(Failure { code, errno, what })
}

fn become_command(
    config: &Config,
    root: &Root,
    streams: &Streams,
) -> Result<core::convert::Infallible, Failure> {
    sys::setsid();
    root::enter(root, config)?;
    if let Some(name) = config.one(b"hostname") {
        sys::set_hostname(bare(name)).doing(&[b"setting the host name"])?;
    }
    let _ = sys::loopback_up();
    let user = User::find(bare(config.one(b"user").unwrap_or(b"\0")))?;
    streams.hand_over(user.uid)?;
    let cwd = config.one(b"cwd").unwrap_or(b"/\0");
    root::make_dirs(cwd)
        .and_then(|()| sys::chdir(cwd))
        .doing(&[b"entering the directory ", bare(cwd)])?;
    if let Some(limit) = config.one(b"nofile").and_then(|n| crate::config::number(bare(n))) {
        sys::open_files_limit(limit);
    }
    let argv = sys::addresses(config.all(b"arg"));
    let homeless = !config.all(b"env").any(|e| e.starts_with(b"HOME="));
    let home = homeless.then(|| join(&[b"HOME=", user.home]));
    let envp = sys::addresses(config.all(b"env").chain(home));
    let Some(name) = config.one(b"arg").filter(|name| name.len() > 1) else {
        let what = join(&[b"neither the image nor the command line names a command"]);
        return Err(Failure { code: MACHINE, errno: 0, what });
    };
    sys::become_user(user.uid, user.gid, user.groups()).doing(&[b"becoming the user"])?;
    let _ = sys::signals(false);
    let path = config.all(b"env").filter_map(|e| e.strip_prefix(b"PATH=")).last();
    Err(execute(name, path.unwrap_or(b"\0"), argv, envp))
}

/// Runs `name` as a shell would find it; says why it could not.
fn execute(name: Str, path: Str, argv: &[*const u8], envp: &[*const u8]) -> Failure {
    let shown = bare(name);
    if shown.contains(&b'/') {
        let errno = sys::exec(name, argv, envp);
        return refused(name, shown, errno);
    }
    let mut worst = None;
    let longest = bare(path).split(|b| *b == b':').map(<[u8]>::len).max().unwrap_or(0);
    let full = sys::take(longest + shown.len() + 2);
    for dir in bare(path).split(|b| *b == b':').filter(|dir| !dir.is_empty()) {
        let len = dir.len() + 1 + shown.len();
        full[..dir.len()].copy_from_slice(dir);
        full[dir.len()] = b'/';
        full[dir.len() + 1..len].copy_from_slice(shown);
        full[len] = 0;
        match sys::exec(&full[..=len], argv, envp) {
            sys::ENOENT | sys::ENOTDIR if sys::may_execute(&full[..=len]).is_err() => {}
            errno => worst = worst.or_else(|| Some((join(&[&full[..len]]), errno))),
        }
    }
    match worst {
        Some((full, errno)) => refused(full, bare(full), errno),
        None => Failure { code: NOT_FOUND, errno: 0, what: join(&[shown, b": not found in PATH"]) },
    }
}

fn refused(path: Str, shown: &[u8], errno: i32) -> Failure {
    match errno {
        sys::ENOENT if sys::may_execute(path).is_ok() => {
            let what = join(&[shown, b": the interpreter it asks for is not in the image"]);
            Failure { code: NOT_FOUND, errno: 0, what }
        }
        sys::ENOENT | sys::ENOTDIR => Failure { code: NOT_FOUND, errno, what: join(&[shown]) },
        _ => Failure { code: NOT_EXECUTABLE, errno, what: join(&[shown]) },
    }
}
