//! What only libkrun has: the host's directories and network.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::MetadataExt as _;
use std::time::{Duration, Instant};

use crate::process::{PATIENCE, World, finish, need, read_until, same, text};

/// Another engine must name the one that can.
fn refused(world: &World, args: &[&str]) -> Result<(), String> {
    let ran = world.run("hello", args, b"")?;
    same("exit code", ran.code, 125)?;
    need(ran.err.contains("--engine libkrun"), || ran.err.clone())
}

pub fn volume(world: &World) -> Result<(), String> {
    let dir = world.out.join("volume");
    std::fs::create_dir_all(&dir).map_err(|e| e.to_string())?;
    std::fs::write(dir.join("from-host"), "written on the host\n").map_err(|e| e.to_string())?;
    let host = dir.to_str().ok_or("a path")?;
    let (rw, ro) = (format!("{host}:/mnt/rw"), format!("{host}:/mnt/ro:ro"));
    if world.engine != "libkrun" {
        return refused(world, &["--volume", &rw]);
    }
    let script = "cat /mnt/rw/from-host /mnt/ro/from-host; echo 'written in the guest' >/mnt/rw/from-guest; chmod 640 /mnt/rw/from-guest; \
        cat /mnt/ro/from-guest; touch /mnt/ro/x 2>/dev/null || echo refused";
    let out = world.script(&["--volume", &rw, "--volume", &ro], script)?;
    let expected = "written on the host\nwritten on the host\nwritten in the guest\nrefused\n";
    same("what the guest sees", &*out, expected)?;
    let path = dir.join("from-guest");
    let found = std::fs::read_to_string(&path).map_err(|e| e.to_string())?;
    same("what the host sees", &*found, "written in the guest\n")?;
    same("its mode", path.metadata().map_err(|e| e.to_string())?.mode() & 0o777, 0o640)
}

/// The next client, unless none comes.
fn accept(listener: &TcpListener) -> std::io::Result<TcpStream> {
    listener.set_nonblocking(true)?;
    let until = Instant::now() + PATIENCE;
    loop {
        match listener.accept() {
            Ok((client, _)) => {
                client.set_nonblocking(false)?;
                return Ok(client);
            }
            Err(error) if error.kind() != ErrorKind::WouldBlock => return Err(error),
            Err(error) if Instant::now() > until => return Err(error),
            Err(_) => std::thread::sleep(Duration::from_millis(20)),
        }
    }
}

pub fn net_and_publish(world: &World) -> Result<(), String> {
    if world.engine != "libkrun" {
        refused(world, &["--net"])?;
        return refused(world, &["--publish", "18080:8080"]);
    }
    // Out: a server of the host's, which answers a guest's client.
    let listener = TcpListener::bind("127.0.0.1:0").map_err(|e| e.to_string())?;
    let port = listener.local_addr().map_err(|e| e.to_string())?.port();
    let server = std::thread::spawn(move || -> std::io::Result<String> {
        let mut client = accept(&listener)?;
        client.set_read_timeout(Some(PATIENCE))?;
        client.write_all(b"from the host\n")?;
        let mut line = [0; 15];
        client.read_exact(&mut line)?;
        Ok(text(&line))
    });
    let script = format!("echo from the guest | nc 127.0.0.1 {port}");
    let out = world.script(&["--net"], &script)?;
    same("what the guest got", &*out, "from the host\n")?;
    let heard = server.join().map_err(|_| "the server died")?.map_err(|e| e.to_string())?;
    same("what the host got", &*heard, "from the guest\n")?;

    // In: a server of the guest's on a published port.
    let args = [
        "--publish",
        "18080:8080",
        "--entrypoint",
        "/bin/sh",
        "--",
        "-c",
        "echo ready; echo served | nc -l -p 8080",
    ];
    let mut child = world.start("hello", &args)?;
    read_until(child.stdout.as_mut().expect("it is piped"), "ready\n")?;
    let until = Instant::now() + PATIENCE;
    let mut answer = String::new();
    while !answer.contains("served") && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(200));
        if let Ok(mut client) = TcpStream::connect("127.0.0.1:18080") {
            client.set_read_timeout(Some(PATIENCE)).map_err(|e| e.to_string())?;
            let mut line = [0; 7];
            if client.read_exact(&mut line).is_ok() {
                answer = text(&line);
            }
        }
    }
    same("the answer on the published port", &*answer, "served\n")?;
    let ran = finish(child)?;
    same(&format!("exit code ({})", ran.err), ran.code, 0)
}
