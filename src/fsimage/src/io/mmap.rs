//! Files as memory.

#![expect(
    unsafe_code,
    reason = "a map is only as safe as its file is left alone, and a signal handler is called by the kernel"
)]

use std::ffi::{c_int, c_void};
use std::fs::File;
use std::io;
use std::ops::Deref;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{Mode, OFlags};

/// A file's bytes, or none for an empty file, which cannot be mapped.
#[derive(Debug)]
pub struct Mapped(Option<memmap2::Mmap>);

impl Deref for Mapped {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.0.as_deref().unwrap_or_default()
    }
}

/// Maps all of `file` for reading.
///
/// Somebody may make the file shorter meanwhile: whoever touches a page beyond its
/// new end gets SIGBUS, and so does whoever touches one that the disk cannot read, or
/// that the host's memory has no room for. A program that has called
/// [`survive_truncation`] says so then, and exits; any other is ended by the signal.
///
/// # Errors
/// When the size of `file` cannot be found out, or the kernel does not map it.
pub fn file(file: &File) -> io::Result<Mapped> {
    if file.metadata()?.len() == 0 {
        return Ok(Mapped(None));
    }
    // SAFETY: the map is private to this process and only ever read. Should another
    // process change the file meanwhile, bytes change under checks that are made on
    // each read; should it make the file shorter, nobody reads on.
    let map = unsafe { memmap2::Mmap::map(file)? };
    Ok(Mapped(Some(map)))
}

/// How a program ends whose mapped file cannot be read any more.
struct Ending {
    /// What its messages begin with.
    prefix: &'static str,
    code: u8,
}

static ENDING: OnceLock<Ending> = OnceLock::new();

/// Whether a thread is about to end the process.
static ENDED: AtomicBool = AtomicBool::new(false);

/// Has this process exit with `code` when a file became shorter that it has mapped, or
/// cannot be read, and a message that begins with `prefix` and names the file.
pub fn survive_truncation(prefix: &'static str, code: u8) {
    if ENDING.set(Ending { prefix, code }).is_err() {
        return;
    }
    // SAFETY: all zeros are a value of it, with no handler, mask and flags, and the
    // function is one of three arguments, as SA_SIGINFO says, that calls only what may
    // be called in a handler.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        let handler: extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void) = on_sigbus;
        action.sa_sigaction = handler as libc::sighandler_t;
        action.sa_flags = libc::SA_SIGINFO;
        libc::sigaction(libc::SIGBUS, &action, std::ptr::null_mut());
    }
}

/// Ends the process if SIGBUS came of a mapped file's missing page.
extern "C" fn on_sigbus(_: c_int, info: *mut libc::siginfo_t, _: *mut c_void) {
    // SAFETY: the kernel gives a handler with SA_SIGINFO a siginfo_t.
    let (code, address) = unsafe { ((*info).si_code, (*info).si_addr() as usize) };
    let mut line = Line::default();
    if let Some(ending) = ENDING.get()
        && code == libc::BUS_ADRERR
        && let Some(name) = line.of_mapped(address)
    {
        while ENDED.swap(true, Ordering::Relaxed) {
            // Another thread says it, and ends this one too.
            // SAFETY: it may be called in a handler.
            unsafe { libc::pause() };
        }
        let after = b" could not be read: it became shorter meanwhile, or its disk or the \
            memory failed\n";
        for part in [ending.prefix.as_bytes(), name, after] {
            // What cannot be said need not be: the exit code tells.
            let _ = rustix::io::write(rustix::stdio::stderr(), part);
        }
        // SAFETY: it may be called in a handler, and does not return.
        unsafe { libc::_exit(i32::from(ending.code)) }
    }
    // Something else: what was touched is touched again, without this handler.
    // SAFETY: it may be called in a handler.
    unsafe {
        libc::signal(libc::SIGBUS, libc::SIG_DFL);
    }
}

/// A line of /proc/self/maps, as much of it as has room. A handler cannot allocate.
struct Line {
    bytes: [u8; 1024],
    len: usize,
}

impl Default for Line {
    fn default() -> Self {
        Self { bytes: [0; 1024], len: 0 }
    }
}

impl Line {
    /// The name of the file that is mapped at `address`, without control characters.
    fn of_mapped(&mut self, address: usize) -> Option<&[u8]> {
        let maps = rustix::fs::open(c"/proc/self/maps", OFlags::RDONLY, Mode::empty()).ok()?;
        let mut buffer = [0; 1024];
        loop {
            let n = rustix::io::read(&maps, &mut buffer).ok().filter(|n| *n > 0)?;
            for byte in &buffer[..n] {
                if *byte == b'\n' {
                    if self.maps(address) {
                        return self.name();
                    }
                    self.len = 0;
                } else if let Some(free) = self.bytes.get_mut(self.len) {
                    *free = *byte;
                    self.len += 1;
                }
            }
        }
    }

    /// Whether the line is that of `address`: it begins `START-END `, in hex.
    fn maps(&self, address: usize) -> bool {
        let mut ends = self.bytes[..self.len].split(|b| *b == b'-' || *b == b' ').map(|hex| {
            let digits = hex.iter().map(|b| (*b as char).to_digit(16));
            digits.fold(0, |sum, digit| sum << 4 | digit.unwrap_or(0) as usize)
        });
        let (start, end) = (ends.next().unwrap_or(0), ends.next().unwrap_or(0));
        (start..end).contains(&address)
    }

    /// The line's last word, which only a file's name begins with a slash.
    fn name(&mut self) -> Option<&[u8]> {
        let line = &mut self.bytes[..self.len];
        let start = line.iter().position(|b| *b == b'/')?;
        let name = &mut line[start..];
        for byte in name.iter_mut().filter(|byte| !(b' '..=b'~').contains(byte)) {
            *byte = b'?';
        }
        Some(name)
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    const CHILD: &str = "ROOTFS_COMPILE_TEST_TRUNCATED";

    /// A process that maps a file, makes it shorter, and reads on, in all its threads.
    #[test]
    fn a_file_that_becomes_shorter_ends_the_process_by_name() {
        if let Some(path) = std::env::var_os(CHILD) {
            survive_truncation("error: ", 7);
            let open = File::options().read(true).write(true).open(path).unwrap();
            let bytes = file(&open).unwrap();
            open.set_len(100).unwrap();
            // Its first page is still there.
            assert_eq!(bytes[99], b'x');
            let read = || std::process::exit(i32::from(bytes[bytes.len() - 1]));
            std::thread::scope(|scope| {
                for _ in 0..8 {
                    scope.spawn(read);
                }
            });
            unreachable!("each thread ends the process");
        }
        let mut victim = tempfile::NamedTempFile::new().unwrap();
        std::io::Write::write_all(&mut victim, &vec![b'x'; 1 << 20]).unwrap();
        let mut child = Command::new(std::env::current_exe().unwrap());
        child.args(["--exact", "--nocapture"]);
        child.arg("io::mmap::tests::a_file_that_becomes_shorter_ends_the_process_by_name");
        let ended = child.env(CHILD, victim.path()).output().unwrap();
        let said = String::from_utf8_lossy(&ended.stderr);
        let expected = format!(
            "error: {} could not be read: it became shorter meanwhile, or its disk or the memory \
             failed\n",
            victim.path().display()
        );
        assert_eq!((ended.status.code(), &*said), (Some(7), &*expected));
    }
}
