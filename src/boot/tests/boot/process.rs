//! Running rootfs-boot, with a limit on how long that may take.

use std::io::{Read as _, Write as _};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};

/// Where everything is.
#[derive(Default)]
pub struct World {
    pub binary: PathBuf,
    pub engine: String,
    pub bundles: PathBuf,
    pub out: PathBuf,
}

/// A run that ended.
pub struct Ran {
    pub code: i32,
    pub out: Vec<u8>,
    pub err: String,
}

/// How long anything may take before it counts as hung. Nothing is ever expected to
/// be faster than that: hosts are busy, and software emulation inside software
/// emulation is slow.
pub const PATIENCE: Duration = Duration::from_secs(900);

impl World {
    pub fn bundle(&self, name: &str) -> PathBuf {
        self.bundles.join(name).join("bundle.vmdk")
    }

    /// rootfs-boot with a bundle and arguments.
    pub fn command(&self, bundle: &str, args: &[&str]) -> Command {
        let mut command = Command::new(&self.binary);
        // An engine among the arguments wins.
        command.env("ROOTFS_BOOT_ENGINE", &self.engine).arg(self.bundle(bundle)).args(args);
        command
    }

    /// Starts it with nothing to read, and both outputs piped.
    pub fn start(&self, bundle: &str, args: &[&str]) -> Result<Child, String> {
        let mut command = self.command(bundle, args);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().map_err(|e| e.to_string())
    }

    /// Runs it to its end.
    pub fn run(&self, bundle: &str, args: &[&str], stdin: &[u8]) -> Result<Ran, String> {
        let mut command = self.command(bundle, args);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|e| format!("{}: {e}", self.binary.display()))?;
        let mut pipe = child.stdin.take().expect("it is piped");
        let stdin = stdin.to_vec();
        // A command need not read all of it.
        thread::spawn(move || drop(pipe.write_all(&stdin)));
        finish(child)
    }

    /// Runs a shell's script as root in hello, and expects exit code 0.
    pub fn script(&self, args: &[&str], script: &str) -> Result<String, String> {
        let mut all = vec!["--user", "0", "--entrypoint", "/bin/sh"];
        all.extend(args);
        all.extend(["--", "-c", script]);
        let ran = self.run("hello", &all, b"")?;
        need(ran.code == 0, || format!("exit {}: {}{}", ran.code, text(&ran.out), ran.err))?;
        Ok(text(&ran.out))
    }
}

/// Waits for a child, and kills it when that takes too long.
pub fn finish(mut child: Child) -> Result<Ran, String> {
    let read = |mut from: Box<dyn std::io::Read + Send>| {
        let (send, receive) = mpsc::channel();
        thread::spawn(move || {
            let mut bytes = Vec::new();
            let _ = from.read_to_end(&mut bytes);
            let _ = send.send(bytes);
        });
        receive
    };
    let out = child.stdout.take().map(|from| read(Box::new(from)));
    let err = child.stderr.take().map(|from| read(Box::new(from)));
    let ended = wait(&mut child);
    let all = |from: Option<mpsc::Receiver<Vec<u8>>>| {
        from.map_or(Ok(Vec::new()), |from| from.recv_timeout(PATIENCE))
    };
    let status = match ended {
        Ok(status) => status,
        Err(why) => {
            let said = [out, err].map(|from| text(&all(from).unwrap_or_default()));
            return Err(format!("{why}; it said {said:?}"));
        }
    };
    let out = all(out).map_err(|_| "standard output stays open")?;
    let err = all(err).map_err(|_| "standard error stays open")?;
    Ok(Ran { code: status, out, err: text(&err) })
}

/// The exit code; a signal is -N.
pub fn wait(child: &mut Child) -> Result<i32, String> {
    use std::os::unix::process::ExitStatusExt as _;
    let until = Instant::now() + PATIENCE;
    while Instant::now() < until {
        if let Some(status) = child.try_wait().map_err(|e| e.to_string())? {
            return Ok(status.code().unwrap_or_else(|| -status.signal().unwrap_or(0)));
        }
        thread::sleep(Duration::from_millis(5));
    }
    let _ = child.kill();
    let _ = child.wait();
    Err(format!("it did not end within {PATIENCE:?}"))
}

/// Reads until `word` has come; fails when the stream ends before, or hangs.
pub fn read_until(from: &mut (impl std::io::Read + AsFd), word: &str) -> Result<String, String> {
    read_until_within(from, word, PATIENCE)
}

fn read_until_within(
    from: &mut (impl std::io::Read + AsFd),
    word: &str,
    limit: Duration,
) -> Result<String, String> {
    let until = Instant::now() + limit;
    let mut all = Vec::new();
    let mut buffer = [0; 4096];
    while !text(&all).contains(word) {
        if !can_read(from, until)? {
            return Err(format!("no {word:?} within {limit:?} behind {:?}", text(&all)));
        }
        match from.read(&mut buffer) {
            Ok(n @ 1..) => all.extend_from_slice(&buffer[..n]),
            end => return Err(format!("{end:?} instead of {word:?} behind {:?}", text(&all))),
        }
    }
    Ok(text(&all))
}

/// All that comes until the stream ends.
pub fn read_rest(from: &mut (impl std::io::Read + AsFd)) -> Result<String, String> {
    let until = Instant::now() + PATIENCE;
    let mut all = Vec::new();
    let mut buffer = [0; 4096];
    while can_read(from, until)? {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(text(&all)),
            Ok(n) => all.extend_from_slice(&buffer[..n]),
            Err(error) => return Err(format!("{error} behind {:?}", text(&all))),
        }
    }
    Err(format!("the stream does not end within {PATIENCE:?}: {:?}", text(&all)))
}

/// Waits until there is something to read, or the end; false if `until` comes first.
fn can_read(from: &impl AsFd, until: Instant) -> Result<bool, String> {
    let left = until.saturating_duration_since(Instant::now());
    let left = left.try_into().map_err(|_| "a time to wait")?;
    let mut fds = [PollFd::new(from, PollFlags::IN)];
    let ready = rustix::io::retry_on_intr(|| rustix::event::poll(&mut fds, Some(&left)));
    ready.map(|n| n > 0).map_err(|e| e.to_string())
}

/// A read that hangs must become a failure that shows what had come; this one asks a
/// pipe that says something else and stays open.
pub fn a_hang_is_reported() -> Result<(), String> {
    let mut child = Command::new("/bin/sh")
        .args(["-c", "echo something else; read line"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|e| e.to_string())?;
    let mut out = child.stdout.take().expect("it is piped");
    read_until(&mut out, "something")?;
    let error = read_until_within(&mut out, "ready", Duration::from_millis(100)).err();
    drop(child.stdin.take());
    same("exit code", wait(&mut child)?, 1)?;
    need(error.as_ref().is_some_and(|e| e.contains("no \"ready\"")), || format!("{error:?}"))
}

/// Loops that want all processors of this machine and more, until they are dropped.
pub struct Busy(Arc<AtomicBool>);

impl Busy {
    pub fn start(loops: usize) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        for _ in 0..loops {
            let over = over.clone();
            thread::spawn(move || while !over.load(Ordering::Relaxed) {});
        }
        Self(over)
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

pub fn send_signal(child: &Child, signal: rustix::process::Signal) -> Result<(), String> {
    let pid = rustix::process::Pid::from_child(child);
    rustix::process::kill_process(pid, signal).map_err(|e| e.to_string())
}

/// Kills the machine, and not what stands by it.
pub fn kill_machine(child: &Child) -> Result<(), String> {
    let parent = child.id().to_string();
    for entry in std::fs::read_dir("/proc").map_err(|e| e.to_string())?.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let stat = std::fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        // Behind the name in parentheses: the state, then the parent.
        let fields = stat.rsplit(')').next().unwrap_or_default();
        if fields.split(' ').nth(2) == Some(&parent) {
            let pid = name.parse().ok().and_then(rustix::process::Pid::from_raw);
            let pid = pid.ok_or_else(|| format!("{name} is not a process"))?;
            return rustix::process::kill_process(pid, rustix::process::Signal::KILL)
                .map_err(|e| e.to_string());
        }
    }
    Err("it has no machine".into())
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

pub fn need(ok: bool, why: impl FnOnce() -> String) -> Result<(), String> {
    if ok { Ok(()) } else { Err(why()) }
}

/// `found` must be `expected`.
pub fn same<T: PartialEq + std::fmt::Debug>(
    what: &str,
    found: T,
    expected: T,
) -> Result<(), String> {
    need(found == expected, || format!("{what}: {found:?} instead of {expected:?}"))
}

pub fn read_file(path: &Path) -> Result<Vec<u8>, String> {
    std::fs::read(path).map_err(|e| format!("{}: {e}", path.display()))
}
