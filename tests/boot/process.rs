//! Running rootfs-boot, with a limit on how long that may take.

use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

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

/// Software emulation inside software emulation is slow.
pub const PATIENCE: Duration = Duration::from_secs(600);

impl World {
    pub fn bundle(&self, name: &str) -> PathBuf {
        self.bundles.join(name).join("bundle.vmdk")
    }

    /// rootfs-boot with a bundle and arguments.
    pub fn command(&self, bundle: &str, args: &[&str]) -> Command {
        let mut command = Command::new(&self.binary);
        command.arg(self.bundle(bundle)).args(["--engine", &self.engine]).args(args);
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
    let status = wait(&mut child)?;
    let all = |from: Option<mpsc::Receiver<Vec<u8>>>| {
        from.map_or(Ok(Vec::new()), |from| from.recv_timeout(PATIENCE))
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

/// Reads until `word` has come; fails when the stream ends before.
pub fn read_until(from: &mut impl std::io::Read, word: &str) -> Result<String, String> {
    let mut all = Vec::new();
    let mut buffer = [0; 4096];
    while !text(&all).contains(word) {
        match from.read(&mut buffer) {
            Ok(n @ 1..) => all.extend_from_slice(&buffer[..n]),
            end => return Err(format!("{end:?} instead of {word:?} behind {:?}", text(&all))),
        }
    }
    Ok(text(&all))
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
            let pid = pid.ok_or_else(|| format!("{name} is no process"))?;
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
