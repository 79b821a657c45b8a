//! What the guest sees on its disks, and what stays of what it writes.

use std::collections::BTreeSet;
use std::fs::File;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, SeekFrom};
use rustix::process::Signal;

use crate::process::{
    PATIENCE, Ran, World, finish, need, read_file, read_until, same, send_signal, text,
};

/// Files that every machine has of its own.
const OWN: [&[u8]; 3] = [b"/etc/hosts", b"/etc/hostname", b"/etc/resolv.conf"];

fn lines(bytes: &[u8]) -> BTreeSet<Vec<u8>> {
    let lines = bytes.split(|b| *b == b'\n').filter(|line| !line.is_empty());
    lines.filter(|line| !OWN.iter().any(|own| line.ends_with(own))).map(<[u8]>::to_vec).collect()
}

/// The sums that the guest made must be those of `NAME.sums`.
fn same_sums(world: &World, name: &str, ran: &Ran) -> Result<(), String> {
    same(&format!("exit code ({})", ran.err.trim()), ran.code, 0)?;
    let expected = lines(&read_file(&world.bundles.join(format!("{name}.sums")))?);
    let found = lines(&ran.out);
    need(expected.len() > 20, || format!("only {} files to compare", expected.len()))?;
    let show = |set: BTreeSet<&Vec<u8>>| {
        set.iter().take(5).map(|l| l.escape_ascii().to_string()).collect::<Vec<_>>().join(", ")
    };
    let missing = show(expected.difference(&found).collect());
    let extra = show(found.difference(&expected).collect());
    need(found == expected, || format!("missing: {missing}; too much: {extra}"))
}

/// Mounts, identity, environment and every byte, as the image says.
pub fn hello_as_it_is(world: &World) -> Result<(), String> {
    let ran = world.run("hello", &[], b"")?;
    let greeting =
        "hello, world: a kernel reads this from EROFS (75 programs, user 1000, /home/hello)\n";
    same(&format!("what it says ({})", ran.err.trim()), &*text(&ran.out), greeting)?;
    let ran = world.run("hello", &["--", "you"], b"")?;
    need(ran.out.starts_with(b"hello, you: "), || text(&ran.out))?;

    let script = "id -u; id -g; echo $(env | sort); pwd; hostname; ls -d /data && touch /data/x; \
        cat /proc/mounts | while read what at kind options rest; do echo $what $at $kind; done";
    let ran = world.run("hello", &["--entrypoint", "/bin/sh", "--", "-c", script], b"")?;
    let out = text(&ran.out);
    let expected = "1000\n1000\nHOME=/home/hello HOSTNAME=hello LANG=C.UTF-8 PATH=/usr/sbin:/usr/bin:/sbin:/bin PWD=/home/hello SHLVL=1\n\
        /home/hello\nhello\n/data\n";
    need(out.starts_with(expected), || format!("{out}{}", ran.err))?;
    same_mounts(&out)?;

    // Its tmpfs would hide what the image may have there.
    let script = "busybox find / -xdev -type f -exec sha256sum {} +";
    let args = ["--user", "0", "--tmpfs", "none", "--entrypoint", "/bin/sh", "--", "-c", script];
    same_sums(world, "hello", &world.run("hello", &args, b"")?)
}

/// What /proc/mounts must hold, among the rest of `out`.
fn same_mounts(out: &str) -> Result<(), String> {
    for mount in [
        "overlay / overlay",
        "proc /proc proc",
        "sysfs /sys sysfs",
        "devtmpfs /dev devtmpfs",
        "devpts /dev/pts devpts",
        "tmpfs /tmp tmpfs",
        "tmpfs /run tmpfs",
        "tmpfs /dev/shm tmpfs",
    ] {
        need(out.lines().any(|line| line == mount), || format!("no mount {mount:?}: {out}"))?;
    }
    Ok(())
}

pub fn python_slim(world: &World) -> Result<(), String> {
    let imports = "import json, ssl, sqlite3, ctypes, os; print(os.getuid(), os.getcwd(), os.environ['HOME'], ssl.OPENSSL_VERSION[:7])";
    let ran = world.run("python-slim", &["--", "-c", imports], b"")?;
    same(
        &format!("python ({})", ran.err.trim()),
        &*text(&ran.out),
        "10001 /app /home/app OpenSSL\n",
    )?;
    let script = "id; env | sort; pwd; hostname; cut -d' ' -f1-3 /proc/mounts";
    let ran = world.run("python-slim", &["--entrypoint", "/bin/sh", "--", "-c", script], b"")?;
    let out = text(&ran.out);
    let expected = "uid=10001(app) gid=10001(app) groups=10001(app)\nHOME=/home/app\nHOSTNAME=python-slim\nPATH=/opt/venv/bin:/usr/bin:/bin\n\
        PWD=/app\n/app\npython-slim\n";
    need(out.starts_with(expected), || format!("{out}{}", ran.err))?;
    // Debian keeps /run/lock there, which a tmpfs would hide.
    let covered = |path: &str| out.contains(&format!("tmpfs {path} tmpfs\n"));
    need(covered("/tmp") && !covered("/run"), || out.clone())?;
    // The image's own command.
    let ran = world.run("python-slim", &[], b"")?;
    need(text(&ran.out).contains("Flask 3.0.3"), || format!("{}{}", text(&ran.out), ran.err))?;
    let script = "find / -xdev -type f -exec sha256sum {} +";
    let args = ["--user", "0", "--tmpfs", "none", "--entrypoint", "/bin/sh", "--", "-c", script];
    same_sums(world, "python-slim", &world.run("python-slim", &args, b"")?)
}

/// A new mode, owner or time of a large file copies none of its data, and a renamed directory none of
/// its files. The next machine with the same upper finds all of it.
pub fn metadata_alone_is_copied(world: &World) -> Result<(), String> {
    let path = world.out.join("metadata-alone.clean.ext4");
    let _ = std::fs::remove_file(&path);
    let shell = [
        "--user",
        "0",
        "--upper",
        path.to_str().ok_or("a path")?,
        "--entrypoint",
        "/bin/sh",
        "--",
        "-c",
    ];
    let run = |script: &str| {
        let ran = world.run("python-slim", &[&shell[..], &[script]].concat(), b"")?;
        need(ran.code == 0, || format!("exit {}: {}", ran.code, ran.err))?;
        Ok::<_, String>(text(&ran.out))
    };
    let change = "set -e; used() { sync; df -Pk / | awk 'END {print $3}'; }; large=$(readlink -f /usr/bin/python3); \
        test $(stat -c %s $large) -gt 4000000; sha256sum <$large >/sum; before=$(used); \
        chmod 4711 $large; chown 7:8 $large; touch -c -d @1000000000 $large; mv /usr/share /usr/moved; \
        test $(($(used) - before)) -lt 1000; sha256sum <$large | cmp - /sum; stat -c '%a %u:%g %Y' $large";
    // An owner takes the bits away that a program's owner gave.
    same("the changes", &*run(change)?, "711 7:8 1000000000\n")?;
    let look = "set -e; large=$(readlink -f /usr/bin/python3); stat -c '%a %u:%g %Y' $large; sha256sum <$large | cmp - /sum; \
        test ! -e /usr/share; find /usr/moved -type f | wc -l >/count; test $(cat /count) -gt 500; \
        find /usr/moved -type f -exec cat {} + | wc -c >/bytes; test $(cat /bytes) -gt 1000000; \
        cp $large /copy; echo more >>$large; (cat /copy; echo more) | cmp - $large; stat -c %a $large";
    same("the next run", &*run(look)?, "711 7:8 1000000000\n711\n")
}

/// The image's metadata lies in the guest's memory, and stays there when caches are dropped.
pub fn metadata_stays(world: &World) -> Result<(), String> {
    let size =
        world.bundles.join("python-slim/fsmeta.erofs").metadata().map_err(|e| e.to_string())?.len();
    // PID 1 maps it little by little. /proc/1/smaps counts pages in KiB.
    let expected = size.div_ceil(4096) * 4;
    let script = format!(
        "mapped() {{ awk '/ \\/dev\\/vd/ {{found = 1}} found && /^Rss/ {{print $2; exit}}' /proc/1/smaps; }}; \
        until test \"$(mapped)\" = {expected}; do sleep 0.05; done; echo 3 >/proc/sys/vm/drop_caches; mapped"
    );
    let args = ["--user", "0", "--entrypoint", "/bin/sh", "--", "-c", &script];
    let ran = world.run("python-slim", &args, b"")?;
    same(
        &format!("pages of metadata ({})", ran.err.trim()),
        &*text(&ran.out),
        &*format!("{expected}\n"),
    )
}

/// Without --upper, nothing stays and nothing of the bundle changes.
pub fn clone_is_gone(world: &World) -> Result<(), String> {
    let dir = world.bundles.join("hello");
    let names = || -> Result<BTreeSet<_>, String> {
        let entries = std::fs::read_dir(&dir).map_err(|e| e.to_string())?;
        Ok(entries.filter_map(|e| Some(e.ok()?.file_name())).collect())
    };
    let state = || -> Result<Vec<_>, String> {
        let mut all = Vec::new();
        for name in ["bundle.json", "bundle.vmdk", "fsmeta.erofs", "upper.ext4"] {
            let m = dir.join(name).metadata().map_err(|e| e.to_string())?;
            all.push((name, m.ino(), m.size(), m.mtime(), m.mtime_nsec(), m.blocks()));
        }
        Ok(all)
    };
    let contents = || -> Result<Vec<_>, String> {
        let mut paths =
            vec![dir.join("fsmeta.erofs"), dir.join("bundle.json"), dir.join("bundle.vmdk")];
        let layers = std::fs::read_dir(dir.join("layers")).map_err(|e| e.to_string())?;
        paths.extend(layers.filter_map(|e| Some(e.ok()?.path())));
        paths.iter().map(|path| Ok((path.clone(), read_file(path)?))).collect()
    };
    let before = (names()?, state()?, contents()?);
    let write =
        "test ! -e /data/written && echo x >/data/written && rm /etc/motd && sync && echo done";
    same("the first run", &*world.script(&[], write)?, "done\n")?;
    same("the second run", &*world.script(&[], write)?, "done\n")?;
    need(before == (names()?, state()?, contents()?), || "the bundle changed".into())
}

pub fn upper_is_kept(world: &World) -> Result<(), String> {
    let path = world.out.join("kept.clean.ext4");
    let upper = ["--upper", path.to_str().ok_or("a path")?];
    let _ = std::fs::remove_file(&path);
    world.script(&upper, "echo kept >/data/file && mkdir /data/dir && ln /data/file /data/dir/link && chmod 2751 /data/dir")?;
    let out = world.script(&upper, "cat /data/dir/link; stat -c '%a %h' /data/dir /data/file")?;
    same("the second run", &*out, "kept\n2751 2\n644 2\n")?;

    // While one machine writes it, no other may.
    let args = [
        upper[0],
        upper[1],
        "--entrypoint",
        "/bin/sh",
        "--",
        "-c",
        "echo ready; read line; exit 4",
    ];
    let mut command = world.command("hello", &args);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut first = command.spawn().map_err(|e| e.to_string())?;
    read_until(first.stdout.as_mut().expect("it is piped"), "ready\n")?;
    let second = world.run("hello", &upper, b"")?;
    same("exit code of a second machine", second.code, 125)?;
    need(second.err.contains("another machine is using it"), || second.err.clone())?;
    drop(first.stdin.take());
    same("exit code of the first", finish(first)?.code, 4)?;

    let other = world.run("python-slim", &upper, b"")?;
    same("exit code with another bundle", other.code, 125)?;
    need(other.err.contains("made for another bundle"), || other.err.clone())
}

pub fn upper_grows(world: &World) -> Result<(), String> {
    let path = world.out.join("grown.clean.ext4");
    let _ = std::fs::remove_file(&path);
    let upper = ["--upper", path.to_str().ok_or("a path")?, "--upper-size", "24GiB"];
    let size = "df -k / | tail -1 | while read a b c; do echo $((b / 1048576)); done; echo x >>/data/x; cat /data/x | wc -l";
    // Some of it is the file system's own.
    same("the first run", &*world.script(&upper, size)?, "23\n1\n")?;
    same("the second run", &*world.script(&upper[..2], size)?, "23\n2\n")?;
    let metadata = path.metadata().map_err(|e| e.to_string())?;
    same("bytes", metadata.size(), 24 << 30)?;
    need(metadata.blocks() * 512 < 64 << 20, || format!("{} blocks on disk", metadata.blocks()))?;
    let smaller = world.run("hello", &["--upper", upper[1], "--upper-size", "1GiB"], b"")?;
    same("exit code when it is to shrink", smaller.code, 125)?;
    need(smaller.err.contains("cannot shrink"), || smaller.err.clone())
}

/// What was synced survives; the journal puts the rest in order.
pub fn upper_after_kill(world: &World) -> Result<(), String> {
    let path = world.out.join("killed.recover.ext4");
    let _ = std::fs::remove_file(&path);
    let script = "echo synced >/data/synced; sync; i=0; while :; do i=$((i+1)); echo $i >/data/f$i; [ $i = 50 ] && echo busy; done";
    let upper = ["--upper", path.to_str().ok_or("a path")?];
    let args = [upper[0], upper[1], "--user", "0", "--entrypoint", "/bin/sh", "--", "-c", script];
    let mut child = world.start("hello", &args)?;
    let mut out = child.stdout.take().expect("it is piped");
    read_until(&mut out, "busy\n")?;
    send_signal(&child, Signal::KILL)?;
    same("how it ended", finish(child)?.code, -9)?;
    // The machine goes with it, and with the machine its hold on the upper.
    let upper_file = File::open(&path).map_err(|e| e.to_string())?;
    let killed = Instant::now();
    while rustix::fs::flock(&upper_file, FlockOperation::NonBlockingLockExclusive).is_err() {
        need(killed.elapsed() < PATIENCE, || "the machine outlives its supervisor".into())?;
        std::thread::sleep(Duration::from_millis(20));
    }
    copy_sparse(&path, &world.out.join("killed-raw.recover.ext4")).map_err(|e| e.to_string())?;
    drop(upper_file);
    let out = world.script(&upper, "cat /data/synced; ls /data >/dev/null")?;
    same("the next run", &*out, "synced\n")
}

/// A file of gigabytes of holes, without filling them.
fn copy_sparse(from: &Path, to: &Path) -> std::io::Result<()> {
    let (from, to) = (File::open(from)?, File::create(to)?);
    let size = from.metadata()?.len();
    to.set_len(size)?;
    let mut at = 0;
    while let Ok(data) = rustix::fs::seek(&from, SeekFrom::Data(at)) {
        at = rustix::fs::seek(&from, SeekFrom::Hole(data))?;
        let mut bytes = vec![0; (at - data) as usize];
        from.read_exact_at(&mut bytes, data)?;
        to.write_all_at(&bytes, data)?;
    }
    Ok(())
}

/// Everything can be written, in memory.
pub fn ephemeral(world: &World) -> Result<(), String> {
    let script = "echo new >/etc/motd && rm -r /var/cache && mkdir /var/cache && ls -A /var/cache && cat /etc/motd; stat -c %a / /data; grep -c ' /.*scratch' /proc/mounts";
    same("what it sees", &*world.script(&["--ephemeral"], script)?, "new\n755\n2775\n1\n")
}

/// As docker's --read-only has it: EROFS, but for tmpfs and the image's volumes,
/// and for directories that are made before the command starts.
pub fn read_only(world: &World) -> Result<(), String> {
    let script = "for f in /new /etc/motd /etc/hosts /etc/resolv.conf /etc/hostname /srv/work/new /usr/x; do \
        (echo x >$f) 2>&1 | grep -o 'Read-only file system' || echo \"$f was written\"; done; \
        rm /etc/motd 2>&1 | grep -o 'Read-only file system'; pwd; \
        for f in /data/x /tmp/x /run/x /dev/shm/x /mem/x /dev/null; do echo x >$f && echo fine; done";
    let expected = "Read-only file system\n".repeat(8) + "/srv/work\n" + &"fine\n".repeat(6);
    let args = ["--read-only", "--workdir", "/srv/work", "--tmpfs", "/mem"];
    same("what can be written", world.script(&args, script)?, expected)
}

/// The kernel's overlayfs over what was compiled, and what it leaves in the upper.
/// A name of a linked file that is changed becomes a file of its own: overlayfs
/// without an index knows no better.
pub fn overlay(world: &World) -> Result<(), String> {
    let path = world.out.join("overlay.clean.ext4");
    let _ = std::fs::remove_file(&path);
    let upper = ["--upper", path.to_str().ok_or("a path")?];
    let change = "set -e; rm /etc/shadow; rm -r /var/cache/app; mkdir /var/cache/app; echo own >/var/cache/app/own; \
        echo new >/etc/n; mv /etc/n /etc/motd; chmod 4711 /lib/app/probe; echo more >>/usr/share/doc/hello/README; \
        ln /home/hello/notes /home/hello/second; mv /usr/share/doc/hello/readme /usr/share/doc/hello/renamed; mv /home/hello /home/moved";
    same("the changes", &*world.script(&upper, change)?, "")?;
    let look = "ls /etc/shadow 2>&1 | grep -c 'No such'; ls /var/cache/app; cat /etc/motd; stat -c '%a %h' /lib/app/probe; \
        tail -n 1 /usr/share/doc/hello/README; stat -c %h /home/moved/notes; cat /home/moved/second; ls /usr/share/doc/hello";
    let expected = "1\nown\nnew\n4711 1\nmore\n2\nmine\nREADME\nREADME.en\nna?ve\nrenamed\nzeros\n";
    same("the next run", &*world.script(&upper, look)?, expected)
}
