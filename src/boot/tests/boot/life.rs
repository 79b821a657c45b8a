//! How a command starts, talks and ends.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;
use std::process::Stdio;

use rustix::process::Signal;

use crate::process::{
    Busy, World, finish, need, read_file, read_rest, read_until, same, send_signal, text,
};

const SH: [&str; 2] = ["--entrypoint", "/bin/sh"];

pub fn exit_codes(world: &World) -> Result<(), String> {
    let cases: [(&[&str], i32, &str); 8] = [
        (&["--", "you"], 0, ""),
        (&["--entrypoint", "/bin/sh", "--", "-c", "exit 7"], 7, ""),
        (&["--entrypoint", "/bin/sh", "--", "-c", "kill -9 $$"], 137, ""),
        (&["--entrypoint", "/etc/motd"], 126, "/etc/motd: Permission denied"),
        (&["--entrypoint", "/no/such"], 127, "/no/such: No such file"),
        (&["--entrypoint", "nosuch"], 127, "nosuch: not found in PATH"),
        (
            &["--timeout", "1", "--entrypoint", "/bin/sleep", "1000"],
            124,
            "after the timeout of 1s\n",
        ),
        (&["--user", "nobody"], 125, "/etc/passwd knows no user nobody"),
    ];
    for (args, code, says) in cases {
        let ran = world.run("hello", args, b"")?;
        same(&format!("exit code of {args:?} ({})", ran.err.trim()), ran.code, code)?;
        need(ran.err.contains(says), || format!("{args:?} says {:?}, not {says:?}", ran.err))?;
        if says.is_empty() {
            same(&format!("what {args:?} says"), &*ran.err, "")?;
        }
    }
    Ok(())
}

/// Two megabytes there and back, byte for byte, and the two outputs apart.
pub fn streams(world: &World) -> Result<(), String> {
    let mut state = 1u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 56) as u8
    };
    let bytes: Vec<u8> = (0..2_000_000).map(|_| next()).collect();
    let mut args = SH.to_vec();
    args.extend(["--", "-c", "cat; echo 'to stderr' >&2; echo again >/dev/stderr"]);
    let ran = world.run("hello", &args, &bytes)?;
    same("exit code", ran.code, 0)?;
    need(ran.out == bytes, || format!("{} bytes came back, or others", ran.out.len()))?;
    same("stderr", &*ran.err, "to stderr\nagain\n")?;
    // The end of what fills the command's pipe to the brim must not be missed.
    let full = [b'x'; 65_536];
    let ran = world.run("hello", &["--entrypoint", "/bin/wc", "--", "-c"], &full)?;
    same("bytes counted", &*text(&ran.out), "65536\n")?;
    // Opened again by name, by a user who is not root, as daemons do with their logs.
    args.pop();
    args.push("echo one >/dev/stdout; cat /dev/stdin; echo two >>/dev/stdout; id -u");
    let ran = world.run("hello", &args, b"in\n")?;
    same("what went through /dev", &*text(&ran.out), "one\nin\ntwo\n1000\n")
}

/// A reader that goes away ends the command as it would on the host.
pub fn closed_stdout(world: &World) -> Result<(), String> {
    let mut args = SH.to_vec();
    args.extend(["--", "-c", "yes; echo $? >&2"]);
    let mut child = world.start("hello", &args)?;
    let mut out = child.stdout.take().expect("it is piped");
    read_until(&mut out, "y\ny\n")?;
    drop(out);
    let ran = finish(child)?;
    same("exit code", ran.code, 0)?;
    same("how yes ended", &*ran.err, "141\n")
}

/// What cannot be written is no success, and who never reads holds nothing up for ever.
pub fn stdout_that_takes_nothing(world: &World) -> Result<(), String> {
    let full = std::fs::File::options().write(true).open("/dev/full").map_err(|e| e.to_string())?;
    let mut command = world.command("hello", &[]);
    command.stdin(Stdio::null()).stdout(full).stderr(Stdio::piped());
    let ran = finish(command.spawn().map_err(|e| e.to_string())?)?;
    same("exit code", ran.code, 125)?;
    need(ran.err.contains("could not be written: No space left"), || ran.err.clone())?;

    let args =
        ["--timeout", "2", "--stop-timeout", "1", "--entrypoint", "/bin/sh", "--", "-c", "yes"];
    let mut child = world.start("hello", &args)?;
    let unread = child.stdout.take();
    same("exit code of what nobody reads", finish(child)?.code, 124)?;
    drop(unread);
    Ok(())
}

/// Phases of both sides, in the order in which they happen, and the kernel's own words.
pub fn timings_and_console(world: &World) -> Result<(), String> {
    let log = world.out.join("console");
    let args = ["--timings", "--verify", "--console-log", log.to_str().ok_or("a path")?];
    let ran = world.run("hello", &args, b"")?;
    same(&format!("exit code ({})", ran.err), ran.code, 0)?;
    let mut at = 0;
    for phase in [
        "bundle opened and checked",
        "upper ready",
        "boot disk made",
        "engine's process started",
        "guest entered",
        "init runs",
        "command runs",
        "command ended, disks unmounted",
        "ended",
    ] {
        let found = ran.err[at..].find(&format!("  {phase}\n"));
        at += found.ok_or_else(|| format!("{phase:?} is missing or out of order: {}", ran.err))?;
    }
    // Not only what goes wrong: the kernel says what it does.
    let said = text(&read_file(&log)?);
    need(said.contains("Run /init as init process"), || format!("the console's log: {said:?}"))
}

/// What the options set, all in one machine.
pub fn options(world: &World) -> Result<(), String> {
    let file = world.out.join("variables");
    std::fs::write(&file, "# a comment\nFROM_FILE=a b=c\n\nBOTH=file\n")
        .map_err(|e| e.to_string())?;
    let args = [
        "--cpus",
        "2",
        "--memory",
        "384MiB",
        "--env",
        "BOTH=option",
        "--env",
        "EMPTY=",
        "--env",
        "NOT_SET_HERE",
        "--env-file",
        file.to_str().ok_or("a path")?,
        "--workdir",
        "/made/for/it",
        "--hostname",
        "some.name",
        "--tmpfs",
        "/srv/mem:4MiB",
        "--tmpfs",
        "/tmp:1MiB",
    ];
    let script = "nproc; while read name kb rest; do [ $name = MemTotal: ] && echo $kb; done </proc/meminfo; \
        echo $FROM_FILE, $BOTH, ${EMPTY-unset}, ${NOT_SET_HERE-unset}, $LANG, $HOSTNAME, $HOME; pwd; hostname; cat /etc/hostname; \
        df -k /srv/mem | tail -1 | while read a b c; do echo $b; done; df -k /tmp | tail -1 | while read a b c; do echo $b; done; \
        stat -c '%a %u' /tmp /dev/shm /srv/mem; grep some.name /etc/hosts; ping -c 1 -W 600 127.0.0.1 | grep -c '1 packets received'; ulimit -n";
    let out = world.script(&args, script)?;
    let lines: Vec<&str> = out.lines().collect();
    let kb: u64 = lines.get(1).and_then(|l| l.parse().ok()).ok_or_else(|| out.clone())?;
    need((300_000..420_000).contains(&kb), || format!("{kb} KiB of memory"))?;
    let mut rest = lines.clone();
    rest.remove(1);
    let expected = [
        "2",
        "a b=c, option, , unset, C.UTF-8, some.name, /root",
        "/made/for/it",
        "some.name",
        "some.name",
        "4096",
        "1024",
        "1777 0",
        "1777 0",
        "755 0",
        "127.0.1.1\tsome.name",
        "1",
        "1048576",
    ];
    same("what the guest finds", rest, expected.to_vec())
}

pub fn users(world: &World) -> Result<(), String> {
    let who = "echo $(id -u) $(id -g) $(id -G) $HOME; echo > /dev/null; touch /home/hello/mine && stat -c %u /home/hello/mine";
    let cases = [
        ("hello", "1000 1000 1000 /home/hello\n1000\n"),
        ("1000", "1000 1000 1000 /home/hello\n1000\n"),
        ("hello:42", "1000 42 42 /home/hello\n1000\n"),
        ("0:hello", "0 1000 1000 /root\n0\n"),
    ];
    for (user, expected) in cases {
        let ran = world.run("hello", &["--user", user, SH[0], SH[1], "--", "-c", who], b"")?;
        same(&format!("--user {user} ({})", ran.err.trim()), &*text(&ran.out), expected)?;
    }
    // Unknown to the image, and in no group: still somebody.
    let ran = world.run(
        "hello",
        &["--user", "4242", SH[0], SH[1], "--", "-c", "id -u; id -g; echo $HOME"],
        b"",
    )?;
    same("--user 4242", &*text(&ran.out), "4242\n0\n/\n")
}

/// SIGTERM becomes the image's stop signal; who ignores it is killed after a while.
pub fn stop_signal(world: &World) -> Result<(), String> {
    let obeys = "trap 'echo stopping; exit 3' INT; echo ready; while :; do sleep 0.1; done";
    let ignores = "trap '' INT TERM; echo ready; while :; do sleep 0.1; done";
    // Who obeys may be slow to, and who does not is killed at last.
    for (script, grace, code, says) in [(obeys, "900", 3, "stopping\n"), (ignores, "1", 137, "")] {
        let args = [SH[0], SH[1], "--stop-timeout", grace, "--", "-c", script];
        let mut child = world.start("hello", &args)?;
        let mut out = child.stdout.take().expect("it is piped");
        read_until(&mut out, "ready\n")?;
        send_signal(&child, Signal::TERM)?;
        let rest = read_rest(&mut out)?;
        let ran = finish(child)?;
        same(&format!("exit code ({})", ran.err), ran.code, code)?;
        same("last words", &*rest, says)?;
    }
    Ok(())
}

/// A machine comes up and does its work beside loops that leave it little of a
/// processor, and no engine is given up for another: libkrun gives up a KVM that works
/// after four seconds no more.
pub fn beside_busy_loops(world: &World) -> Result<(), String> {
    let _busy = Busy::start(8);
    let mut args = vec!["--timings"];
    if world.engine == "libkrun" {
        args.extend(["--engine", "auto"]);
    }
    let ran = world.run("hello", &args, b"")?;
    same(&format!("exit code ({})", ran.err), ran.code, 0)?;
    need(ran.out.starts_with(b"hello, world: "), || text(&ran.out))?;
    same("engines", ran.err.matches("engine's process started").count(), 1)?;
    need(!ran.err.contains("instead"), || ran.err.clone())?;
    let args = ["--timeout", "1", "--entrypoint", "/bin/sleep", "--", "100000"];
    let ran = world.run("hello", &args, b"")?;
    same(&format!("exit code at the timeout ({})", ran.err), ran.code, 124)
}

/// A guest that comes up on KVM makes an earlier finding wrong, whatever it was about.
pub fn finding_is_forgotten(world: &World) -> Result<(), String> {
    // A relative one counts as none.
    let dir = std::path::absolute(world.out.join("run")).map_err(|e| e.to_string())?;
    let finding = dir.join("rootfs-boot/kvm-runs-no-guest");
    let private = |path: &Path| DirBuilder::new().recursive(true).mode(0o700).create(path);
    private(&dir.join("rootfs-boot")).map_err(|e| e.to_string())?;
    std::fs::write(&finding, "of another boot\n").map_err(|e| e.to_string())?;
    let mut command = world.command("hello", &[]);
    command.env("XDG_RUNTIME_DIR", &dir).stdin(Stdio::null());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let ran = finish(command.spawn().map_err(|e| e.to_string())?)?;
    same(&format!("exit code ({})", ran.err), ran.code, 0)?;
    same("whether the finding is there", finding.exists(), world.engine == "qemu")
}

/// A machine whose guest never says a word is told from a command that failed.
pub fn broken_kernel(world: &World) -> Result<(), String> {
    let library = world.bundles.join("broken.so");
    let ran = world.run("hello", &["--krunfw", library.to_str().ok_or("a path")?], b"")?;
    same(&format!("exit code ({})", ran.err.trim()), ran.code, 125)?;
    need(ran.err.contains("the machine did not come up"), || ran.err.clone())?;
    let kvm = ran.err.contains("/dev/kvm opens, but may not be able to run this guest");
    need(kvm == (world.engine == "libkrun"), || format!("what it says of KVM: {}", ran.err))
}
