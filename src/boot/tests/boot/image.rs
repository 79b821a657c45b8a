//! What an image has in the places that every machine fills, and the programs that
//! it cannot run. The bundles are made by tests/e2e/checks/boot_images.py.

use std::process::Stdio;

use rustix::process::Signal;

use crate::process::{Ran, World, finish, need, read_until, same, send_signal, text};

fn sh(world: &World, bundle: &str, args: &[&str], script: &str) -> Result<Ran, String> {
    let mut all = vec!["--user", "0", "--entrypoint", "/bin/sh"];
    all.extend(args);
    all.extend(["--", "-c", script]);
    world.run(bundle, &all, b"")
}

/// What patches wrote stays, ours adds what is missing, and options win over both.
pub fn etc_files(world: &World) -> Result<(), String> {
    let script = "cat /etc/hosts /etc/resolv.conf /etc/hostname; hostname; echo $HOSTNAME; stat -c '%a %u' /etc/hosts";
    let ran = sh(world, "own-etc", &[], script)?;
    let expected = "10.9.8.7\tpatched\n127.0.0.1 localhost\n127.0.1.1\tnamed-here\n\
        nameserver 9.9.9.9\nnamed-here\nnamed-here\nnamed-here\n640 1000\n";
    same(&format!("the image's own ({})", ran.err), &*text(&ran.out), expected)?;

    let options = [
        "--add-host",
        "db:10.0.0.1",
        "--add-host",
        "patched=[fe80::1]",
        "--dns",
        "1.1.1.1",
        "--dns",
        "2606:4700::1111",
        "--hostname",
        "asked",
    ];
    let ran = sh(world, "own-etc", &options, script)?;
    let expected = "10.0.0.1\tdb\nfe80::1\tpatched\n10.9.8.7\tpatched\n127.0.0.1 localhost\n127.0.1.1\tasked\n\
        nameserver 1.1.1.1\nnameserver 2606:4700::1111\nasked\nasked\nasked\n640 1000\n";
    same(&format!("with options ({})", ran.err), &*text(&ran.out), expected)?;

    // An empty file, as builders leave it, a distribution's "localhost" and a link into
    // a /run that is new say nothing; what the link leads to is made, as runc does.
    let script =
        "cat /etc/hosts /etc/hostname; hostname; cat /etc/resolv.conf; readlink /etc/resolv.conf";
    let ran = sh(world, "empty-etc", &["--dns", "9.9.9.9"], script)?;
    let expected = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n\
        ff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n127.0.1.1\tempty-etc\nempty-etc\nempty-etc\n\
        nameserver 9.9.9.9\n../run/systemd/resolve/stub-resolv.conf\n";
    same(&format!("where the image says nothing ({})", ran.err), &*text(&ran.out), expected)
}

/// A default mount that cannot be is left out; one that was asked for is an error.
pub fn odd_places(world: &World) -> Result<(), String> {
    let script = "cat /tmp; readlink /run; ls -A /etc/hosts; readlink /etc/hostname; test -c /dev/null && echo device";
    let expected = "a file\n/nowhere\ninside\n/dev/null\ndevice\n";
    let ran = sh(world, "odd-places", &[], script)?;
    same("what it sees", &*text(&ran.out), expected)?;
    same("what is said", &*ran.err, "")?;
    let ran = sh(world, "odd-places", &["--verbose"], script)?;
    same("what it sees with --verbose", &*text(&ran.out), expected)?;
    for note in [
        "no tmpfs on /tmp: Not a directory\n",
        "no tmpfs on /run: No such file or directory\n",
        "/etc/hosts of the image is not a file; it stays\n",
        "no /etc/resolv.conf of the machine's own: No such file or directory\n",
        "/etc/hostname of the image is not a file; it stays\n",
    ] {
        need(ran.err.contains(note), || format!("no note {note:?}: {}", ran.err))?;
    }
    let ran = sh(world, "odd-places", &["--tmpfs", "/tmp"], script)?;
    same("exit code of a tmpfs that was asked for", ran.code, 125)?;
    need(ran.err.contains("mounting a tmpfs on /tmp: Not a directory"), || ran.err)?;

    // Its StopSignal is one that nobody knows.
    let script = "trap 'exit 3' TERM; echo ready; while :; do sleep 0.1; done";
    let args = ["--entrypoint", "/bin/sh", "--", "-c", script];
    let mut command = world.command("odd-places", &args);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|e| e.to_string())?;
    read_until(child.stdout.as_mut().expect("it is piped"), "ready\n")?;
    send_signal(&child, Signal::TERM)?;
    same("exit code after SIGTERM", finish(child)?.code, 3)
}

/// Fifos in the place of the files that the init reads hold nothing up, and volumes that
/// cannot be are left out.
pub fn fifos(world: &World) -> Result<(), String> {
    let script = "test -p /etc/passwd && test -p /etc/group && test -d /srv/data && echo there; \
        touch /srv/data/file /etc/file; ls /srv/data /etc/file";
    let left_out =
        "rootfs-boot: the image's volume /etc/motd is left out: Not a directory\n".to_owned();
    let ran = sh(world, "fifos", &["--timeout", "300"], script)?;
    same("what it says", &*text(&ran.out), "there\n/etc/file\n\n/srv/data:\nfile\n")?;
    same("what is said", &*ran.err, &*left_out)?;
    let script = "touch /srv/data/file && echo written; \
        for file in /etc/file /etc/motd; do touch $file 2>/dev/null || echo sealed; done";
    let ran = sh(world, "fifos", &["--read-only"], script)?;
    same("what it can write", &*text(&ran.out), "written\nsealed\nsealed\n")?;
    same("what is said", &*ran.err, &*left_out)?;
    let ran = world.run("fifos", &["--user", "hello"], b"")?;
    same("exit code", ran.code, 125)?;
    need(ran.err.contains("/etc/passwd knows no user hello"), || ran.err)
}

/// Each says what is wrong with it; the codes are a shell's.
pub fn programs(world: &World) -> Result<(), String> {
    let cases = [
        ("script", 126, "/opt/p/script: a script without a #! line"),
        ("empty", 126, "/opt/p/empty: an empty file"),
        (
            "aarch64",
            126,
            "/opt/p/aarch64: a program for aarch64 (64 bits), and this machine is x86-64",
        ),
        ("s390", 126, "/opt/p/s390: a program for s390 (64 bits)"),
        ("i386", 126, "/opt/p/i386: a program for i386 (32 bits)"),
        ("data", 126, "/opt/p/data: not a program that Linux can run"),
        (
            "by-script",
            126,
            "/opt/p/by-script: its interpreter /opt/p/aarch64: a program for aarch64",
        ),
        ("no-name", 126, "/opt/p/no-name: its #! line names no interpreter"),
        (
            "not-executable",
            126,
            "/opt/p/not-executable: its interpreter /etc/motd: Permission denied",
        ),
        (
            "no-interpreter",
            127,
            "/opt/p/no-interpreter: its interpreter /bin/nosuch is not in the image",
        ),
        (
            "windows",
            127,
            "its interpreter /bin/sh\\r is not in the image: the lines end as on Windows",
        ),
        ("loader", 127, "/opt/p/loader: its interpreter /lib/nosuch-ld.so.1 is not in the image"),
        ("", 126, "/opt/p/ is a directory"),
        ("none", 127, "/opt/p/none: No such file or directory"),
    ];
    for (name, code, says) in cases {
        let path = format!("/opt/p/{name}");
        let ran = world.run("programs", &["--entrypoint", &path], b"")?;
        same(&format!("exit code of {path} ({})", ran.err.trim()), ran.code, code)?;
        need(ran.err.contains(says), || format!("{path} says {:?}, not {says:?}", ran.err))?;
    }
    Ok(())
}

/// What works as process 1 alone is refused, and what it does as another is not.
pub fn init_systems(world: &World) -> Result<(), String> {
    let cases: [(&[&str], bool); 6] = [
        (&["/sbin/init"], true),
        (&["init"], true),
        (&["busybox", "init"], true),
        (&["/opt/p/to-init"], true),
        (&["/usr/lib/systemd/systemd", "--system"], true),
        (&["/usr/lib/systemd/systemd", "--version"], false),
    ];
    for (command, refused) in cases {
        let mut args = vec!["--entrypoint", ""];
        args.extend(command);
        let ran = world.run("programs", &args, b"")?;
        let said = ran.err.contains("an init system has to be process 1");
        need(said == refused && (ran.code == 125) == refused, || {
            format!("{command:?}: exit {}: {}", ran.code, ran.err)
        })?;
    }
    Ok(())
}
