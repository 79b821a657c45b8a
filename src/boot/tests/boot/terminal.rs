//! A person at a terminal, or what looks like one to rootfs-boot.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::process::{Child, Stdio};

use rustix::process::Signal;
use rustix::pty::OpenptFlags;
use rustix::termios::{Termios, Winsize};

use crate::process::{World, kill_machine, need, read_until, same, send_signal, wait};

struct Pty {
    master: File,
    slave: File,
}

impl Pty {
    fn new() -> Result<Self, String> {
        let open = || -> Result<Self, rustix::io::Errno> {
            let master = rustix::pty::openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY)?;
            rustix::pty::grantpt(&master)?;
            rustix::pty::unlockpt(&master)?;
            let path = rustix::pty::ptsname(&master, Vec::new())?;
            let flags = rustix::fs::OFlags::RDWR | rustix::fs::OFlags::NOCTTY;
            let slave = rustix::fs::open(path, flags, rustix::fs::Mode::empty())?;
            Ok(Self { master: master.into(), slave: slave.into() })
        };
        open().map_err(|e| format!("a pseudo-terminal: {e}"))
    }

    fn start(&self, world: &World, args: &[&str]) -> Result<Child, String> {
        let end = || -> Result<Stdio, String> {
            Ok(self.slave.try_clone().map_err(|e| e.to_string())?.into())
        };
        let mut command = world.command("hello", args);
        command.env("TERM", "vt220").stdin(end()?).stdout(end()?).stderr(end()?);
        command.spawn().map_err(|e| e.to_string())
    }

    fn resize(&self, rows: u16, columns: u16) -> Result<(), String> {
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        rustix::termios::tcsetwinsize(&self.master, size).map_err(|e| e.to_string())
    }

    fn type_line(&mut self, text: &str) -> Result<(), String> {
        self.master.write_all(text.as_bytes()).map_err(|e| e.to_string())
    }

    fn modes(&self) -> Result<Termios, String> {
        rustix::termios::tcgetattr(&self.slave).map_err(|e| e.to_string())
    }
}

fn same_modes(a: &Termios, b: &Termios) -> bool {
    (a.input_modes, a.output_modes, a.control_modes, a.local_modes)
        == (b.input_modes, b.output_modes, b.control_modes, b.local_modes)
}

/// A session at a shell: what it is, its size, a new size, ^C, the exit code.
pub fn shell(world: &World) -> Result<(), String> {
    let mut pty = Pty::new()?;
    pty.resize(33, 99)?;
    let before = pty.modes()?;
    let mut child = pty.start(world, &["--entrypoint", "/bin/sh", "--", "-i"])?;
    // Typed too early, it would be echoed by the host's side.
    read_until(&mut pty.master, "$ ")?;
    pty.type_line(
        "tty; stty size; echo $TERM; test -t 0 && test -t 1 && test -t 2 && echo 'a-ter'minal\n",
    )?;
    let said = read_until(&mut pty.master, "a-terminal")?;
    need(said.contains("/dev/pts/0\r\n33 99\r\nvt220\r\n"), || {
        format!("not what was expected: {said:?}")
    })?;
    pty.resize(44, 111)?;
    send_signal(&child, Signal::WINCH)?;
    pty.type_line("until test \"$(stty size)\" = '44 111'; do sleep 0.1; done; echo 're'sized\n")?;
    read_until(&mut pty.master, "resized")?;
    // ^C before there is what it is to interrupt would be the shell's own.
    pty.type_line("sh -c 'trap \"exit 130\" INT; echo re\"\"ady; while :; do sleep 1; done'\n")?;
    read_until(&mut pty.master, "ready")?;
    pty.type_line("\x03")?;
    pty.type_line("echo 'is al'ive $?\n")?;
    read_until(&mut pty.master, "is alive 130")?;
    need(!same_modes(&pty.modes()?, &before), || "the terminal was never raw".into())?;
    pty.type_line("exit 9\n")?;
    same("exit code", wait(&mut child)?, 9)?;
    need(same_modes(&pty.modes()?, &before), || "the terminal stays raw".into())
}

/// However it ends, the terminal is as it was.
pub fn comes_back(world: &World) -> Result<(), String> {
    const READY: &str = "echo rea''dy; sleep 100000";
    let cases: [(&[&str], &str, Option<Signal>, i32); 6] = [
        (&["--entrypoint", "/bin/sh", "--", "-c", "echo rea''dy; exit 5"], "ready", None, 5),
        (&["--entrypoint", "/bin/sh", "--", "-c", READY], "ready", Some(Signal::TERM), 130),
        (&["--entrypoint", "/bin/sh", "--", "-c", READY], "ready", Some(Signal::HUP), 129),
        // The machine dies without a word.
        (&["--entrypoint", "/bin/sh", "--", "-c", READY], "ready", Some(Signal::KILL), 125),
        // Whether it says its word before the time is over depends on the machine.
        (&["--timeout", "1", "--entrypoint", "/bin/sh", "--", "-c", READY], "", None, 124),
        (&["--entrypoint", "ready"], "ready", None, 127),
    ];
    for (args, word, signal, code) in cases {
        let mut pty = Pty::new()?;
        let before = pty.modes()?;
        let mut child = pty.start(world, args)?;
        read_until(&mut pty.master, word)?;
        match signal {
            Some(Signal::KILL) => kill_machine(&child)?,
            Some(signal) => send_signal(&child, signal)?,
            None => {}
        }
        // Whatever is still said must not wait for a reader.
        let mut master = pty.master.try_clone().map_err(|e| e.to_string())?;
        std::thread::spawn(move || while let Ok(1..) = master.read(&mut [0; 4096]) {});
        same(&format!("exit code of {args:?}"), wait(&mut child)?, code)?;
        need(same_modes(&pty.modes()?, &before), || {
            format!("the terminal stays raw after {args:?}")
        })?;
    }
    Ok(())
}
