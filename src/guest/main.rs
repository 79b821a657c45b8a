//! PID 1 of the machine: mounts the disks, runs the image's command, and tells
//! the host how it went.
//!
//! It stays on the boot disk, a read-only EROFS of its own with `/init` and
//! `/config`; the command lives in a mount namespace whose root is the overlay.
//! Nothing here comes from a library: raw system calls, memory from an arena.
//!
//! The tests are an ordinary program of the host, with a standard library.

#![cfg_attr(not(test), no_std, no_main)]
#![cfg_attr(test, allow(dead_code, reason = "the tests do not start at `init`"))]

mod arena;
mod calls;
mod command;
mod config;
mod disks;
mod etc;
#[cfg(not(test))]
mod mem;
mod program;
mod root;
mod streams;
mod sys;
mod user;
#[allow(dead_code, reason = "the host uses its own half of the contract")]
#[path = "../boot/src/wire.rs"]
mod wire;

use arena::{decimal, join};
use config::Config;
use streams::{End, Streams};
use wire::{code, port, word};

#[cfg(all(target_arch = "x86_64", not(test)))]
core::arch::global_asm!(".globl _start", "_start:", "xor ebp, ebp", "and rsp, -16", "call init");
#[cfg(all(target_arch = "aarch64", not(test)))]
core::arch::global_asm!(".globl _start", "_start:", "mov x29, #0", "bl init");

/// What failed, the errno (0 if there is none), and the exit code it stands for.
pub struct Failure {
    pub code: u8,
    pub errno: i32,
    pub what: &'static [u8],
}

/// Names what was being done when a call failed.
pub trait Doing<T> {
    fn doing(self, what: &[&[u8]]) -> Result<T, Failure>;
}

impl<T> Doing<T> for sys::Result<T> {
    fn doing(self, what: &[&[u8]]) -> Result<T, Failure> {
        self.map_err(|errno| Failure { code: code::MACHINE_FAILED, errno, what: join(what) })
    }
}

/// Called by `_start` once, with an aligned stack.
// SAFETY: no other symbol has this name; nothing else is linked.
#[cfg_attr(not(test), unsafe(no_mangle))]
extern "C" fn init() -> ! {
    let _ = sys::signals(true);
    early_mounts();
    // The first three descriptors are the command's; nothing else may get them.
    while sys::open(b"/dev/null\0", sys::O_RDWR, 0).is_ok_and(|fd| fd < 2) {}
    let control = match disks::port(port::CONTROL) {
        Some(fd) => fd,
        None => sys::restart_machine(),
    };
    say(control, word::HELLO, &[decimal(sys::uptime())]);
    let ended = run(control);
    let unmounted = root::unmount();
    let time = decimal(sys::uptime());
    if let Err(Failure { errno, what, .. }) = unmounted {
        // What was written is on the disk; its journal is left to the next mount.
        sys::sync();
        warn(control, errno, &[what]);
    }
    match ended {
        Ok(End { how, number, sent: [out, err, tty] }) => {
            let counts: [&[u8]; 3] = [decimal(out), decimal(err), decimal(tty)];
            let (number, sp) = (decimal(u64::from(number)), &b" "[..]);
            let [out, err, tty] = counts;
            say(control, how, &[number, sp, time, sp, out, sp, err, sp, tty]);
        }
        Err(Failure { code, errno, what }) => {
            let errno = decimal(errno.unsigned_abs().into());
            say(control, word::ERROR, &[decimal(code.into()), b" ", errno, b" ", what]);
        }
    }
    // The host ends the machine when everything has arrived; until then, nothing
    // that is still on its way may be lost.
    let _ = sys::poll(&mut [], None);
    sys::restart_machine()
}

/// Everything between the first word to the host and the last.
fn run(control: usize) -> Result<End, Failure> {
    let config = Config::read().doing(&[b"reading the boot disk's /config"])?;
    let root = root::mount(&config, control)?;
    let mut streams = Streams::open(&config, control)?;
    let pid = command::start(&config, &root, &mut streams)?;
    Ok(streams.relay(pid, root.metadata))
}

/// A line for the host: a word of [`wire::word`], and the rest.
pub fn say(control: usize, word: &str, parts: &[&[u8]]) {
    let line = join(&[word.as_bytes(), b" ", join(parts), b"\n"]);
    // With the host gone, nobody is left to tell.
    let _ = sys::write_all(control, &line[..line.len() - 1]);
}

/// Something that was left out and may be missed, for whoever is at the terminal.
pub fn warn(control: usize, errno: i32, parts: &[&[u8]]) {
    say(control, word::WARN, &[decimal(errno.unsigned_abs().into()), b" ", join(parts)]);
}

/// Something that was left out, for a host that wants to know.
pub fn note(control: usize, errno: i32, parts: &[&[u8]]) {
    say(control, word::NOTE, &[decimal(errno.unsigned_abs().into()), b" ", join(parts)]);
}

fn early_mounts() {
    // devtmpfs may be there already, put by the kernel.
    let _ = sys::mount(b"dev\0", b"/dev\0", b"devtmpfs\0", root::NOSUID, b"\0");
    let _ = sys::mount(b"proc\0", b"/proc\0", b"proc\0", root::NOTHING, b"\0");
    let _ = sys::mount(b"sys\0", b"/sys\0", b"sysfs\0", root::NOTHING, b"\0");
}

#[cfg(not(test))]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    sys::restart_machine()
}
