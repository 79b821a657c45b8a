//! Programs that cannot be run, and why: what the kernel's errno leaves open is
//! read from the file itself.

use crate::Failure;
use crate::arena::{Str, decimal, join};
use crate::config::bare;
use crate::root::links;
use crate::sys::{self, EACCES, ELOOP, ENOENT, ENOEXEC, ENOTDIR};
use crate::wire::code;

/// Interpreters of interpreters: as many as the kernel follows.
const MOST_INTERPRETERS: usize = 5;
/// Bytes of a file that are looked at, beside its program headers.
const HEAD: usize = 512;
const PATH_BYTES: u64 = 4096;
/// Program headers of an ELF that are looked at.
const MOST_SEGMENTS: u64 = 256;

/// Why `path` cannot be started, if it is an init system: those work as process 1
/// alone, and some end at once without a word where they are another. `second` is
/// its first argument.
pub fn init_system(path: Str, second: Option<Str>) -> Option<Failure> {
    let applet = second.map(bare) == Some(b"init");
    let found = links(path).any(|at| is_init(bare(at)));
    if !(found || applet && base(bare(path)) == b"busybox") || sys::may_execute(path).is_err() {
        return None;
    }
    let what = join(&[
        bare(path),
        b": an init system has to be process 1 of its machine, which is rootfs-boot's own init \
          so far; name the service itself as the command",
    ]);
    Some(Failure { code: code::MACHINE_FAILED, errno: 0, what })
}

/// Whether an argument makes an init system do something that any process can.
pub fn needs_no_pid_1(arg: Str) -> bool {
    matches!(bare(arg), b"--version" | b"--help" | b"-h" | b"--user" | b"--test")
}

fn is_init(path: &[u8]) -> bool {
    let dir = path.strip_suffix(base(path)).unwrap_or(path);
    match base(path) {
        b"systemd" | b"openrc-init" | b"runit-init" => true,
        // Elsewhere, it may be anything of that name.
        b"init" => matches!(dir, b"/sbin/" | b"/usr/sbin/" | b"/bin/" | b"/usr/bin/"),
        _ => false,
    }
}

fn base(path: &[u8]) -> &[u8] {
    path.rsplit(|b| *b == b'/').next().unwrap_or(path)
}

/// What `errno`, with which the kernel refused to run `path`, means. The codes are
/// a shell's.
pub fn refused(path: Str, errno: i32) -> Failure {
    let shown = bare(path);
    let fails = |code, what: &[&[u8]]| Failure { code, errno: 0, what: join(&[shown, join(what)]) };
    let of_interpreter = sys::may_execute(path).is_ok();
    match errno {
        ENOENT if of_interpreter => match missing(path, ENOENT) {
            Some(interpreter) if interpreter.ends_with(b"\r") => fails(
                code::NOT_FOUND,
                &[
                    b": its interpreter ",
                    interpreter.trim_ascii_end(),
                    b"\\r is not in the image: the lines end as on Windows",
                ],
            ),
            Some(interpreter) => fails(
                code::NOT_FOUND,
                &[b": its interpreter ", interpreter, b" is not in the image"],
            ),
            None => fails(code::NOT_FOUND, &[b": the interpreter it asks for is not in the image"]),
        },
        ENOENT | ENOTDIR => Failure { code: code::NOT_FOUND, errno, what: join(&[shown]) },
        EACCES if sys::stat(path).is_ok_and(|stat| stat.is_dir()) => {
            fails(code::NOT_EXECUTABLE, &[b" is a directory"])
        }
        EACCES | ELOOP if of_interpreter => match missing(path, EACCES) {
            Some(interpreter) => {
                let what = join(&[shown, b": its interpreter ", interpreter]);
                Failure { code: code::NOT_EXECUTABLE, errno, what }
            }
            None => Failure { code: code::NOT_EXECUTABLE, errno, what: join(&[shown]) },
        },
        ENOEXEC => fails(code::NOT_EXECUTABLE, &[b": ", foreign(path, 0)]),
        _ => Failure { code: code::NOT_EXECUTABLE, errno, what: join(&[shown]) },
    }
}

/// The interpreter, of `path` or of its interpreter, that fails with `errno`.
fn missing(path: Str, errno: i32) -> Option<&'static [u8]> {
    let mut at = path;
    for _ in 0..MOST_INTERPRETERS {
        let interpreter = Head::read(at)?.interpreter()?;
        at = join(&[interpreter]);
        match sys::may_execute(at) {
            Ok(()) => {}
            Err(found) => return (found == errno || errno == ENOENT).then_some(interpreter),
        }
    }
    None
}

/// Why the kernel knows no way to run `path`.
fn foreign(path: Str, depth: usize) -> &'static [u8] {
    let Some(head) = Head::read(path) else {
        return b"not a program that Linux can run";
    };
    match head.bytes {
        [] => b"an empty file is not a program",
        [0x7f, b'E', b'L', b'F', ..] => head.machine(),
        [b'#', b'!', ..] => match head.interpreter() {
            None => b"its #! line names no interpreter",
            Some(_) if depth == MOST_INTERPRETERS => b"too many interpreters of interpreters",
            Some(interpreter) => {
                let at = join(&[interpreter]);
                bare(join(&[b"its interpreter ", interpreter, b": ", foreign(at, depth + 1)]))
            }
        },
        text if !text.contains(&0) => {
            b"a script without a #! line that names its interpreter; add one, or start it by /bin/sh"
        }
        _ => b"not a program that Linux can run",
    }
}

/// The beginning of a file, which stays open.
struct Head {
    fd: usize,
    bytes: &'static [u8],
}

impl Head {
    fn read(path: Str) -> Option<Self> {
        let fd = sys::open(path, sys::O_NONBLOCK, 0).ok()?;
        let buffer = crate::arena::take(HEAD);
        let len = sys::read_at(fd, buffer, 0).ok()?;
        Some(Self { fd, bytes: &buffer[..len] })
    }

    /// A number in `bytes` of the ELF, which says itself in which order they are.
    fn number(&self, bytes: &[u8], at: usize, len: usize) -> Option<u64> {
        let bytes = bytes.get(at..at.checked_add(len)?)?;
        let big = self.bytes.get(5) == Some(&2);
        let add = |n: u64, byte: &u8| n << 8 | u64::from(*byte);
        Some(if big { bytes.iter().fold(0, add) } else { bytes.iter().rev().fold(0, add) })
    }

    /// What a `#!` line or a program header of type PT_INTERP names.
    fn interpreter(&self) -> Option<&'static [u8]> {
        if let [b'#', b'!', rest @ ..] = self.bytes {
            let line = rest.split(|b| matches!(b, b'\n' | 0)).next()?;
            let mut words = line.split(|b| matches!(b, b' ' | b'\t')).filter(|w| !w.is_empty());
            return words.next();
        }
        const PT_INTERP: u64 = 3;
        // Offset and size of the table; of a segment's offset and size; of a number.
        let (table, count, size, offset, bytes, word) = match self.bytes.get(4)? {
            2 => (32, 56, 54, 8, 32, 8),
            _ => (28, 44, 42, 4, 16, 4),
        };
        let header = |at, len| self.number(self.bytes, at, len);
        let (table, count, size) = (header(table, word)?, header(count, 2)?, header(size, 2)?);
        for i in 0..count.min(MOST_SEGMENTS) {
            let segment = self.part(table.checked_add(i * size)?, 56)?;
            let field = |at, len| self.number(segment, at, len);
            if field(0, 4)? == PT_INTERP {
                let len = field(bytes, word)?.min(PATH_BYTES);
                let text = self.part(field(offset, word)?, len as usize)?;
                return text.split(|b| *b == 0).next();
            }
        }
        None
    }

    fn part(&self, at: u64, len: usize) -> Option<&'static [u8]> {
        let buffer = crate::arena::take(len);
        let len = sys::read_at(self.fd, buffer, at).ok()?;
        Some(&buffer[..len])
    }

    /// For whom an ELF was made, in the words of its e_machine.
    fn machine(&self) -> &'static [u8] {
        const HERE: (&[u8], u64) =
            if cfg!(target_arch = "x86_64") { (b"x86-64", 62) } else { (b"aarch64", 183) };
        let machine = self.number(self.bytes, 18, 2).unwrap_or(0);
        let is_64_bit = self.bytes.get(4) == Some(&2);
        if machine == HERE.1 && is_64_bit {
            return b"a damaged program, or not a program at all";
        }
        let bits: &[u8] = if is_64_bit { b"64" } else { b"32" };
        let name: &[u8] = match machine {
            3 => b"i386",
            8 => b"mips",
            20 | 21 => b"powerpc",
            22 => b"s390",
            40 => b"arm",
            62 => b"x86-64",
            183 => b"aarch64",
            243 => b"riscv",
            258 => b"loongarch",
            other => join(&[b"machine ", decimal(other)]),
        };
        let (name, here) = (name.strip_suffix(b"\0").unwrap_or(name), HERE.0);
        bare(join(&[b"a program for ", name, b" (", bits, b" bits), and this machine is ", here]))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::os::unix::ffi::OsStrExt as _;

    use super::*;

    /// The beginning of a file that holds these bytes.
    fn head(bytes: &[u8]) -> Head {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(bytes).unwrap();
        let head = Head::read(join(&[file.path().as_os_str().as_bytes()]));
        head.unwrap_or_else(|| panic!("the file is there"))
    }

    #[test]
    fn an_interpreter_is_the_first_word_of_a_script() {
        for (text, interpreter) in [
            (&b"#!/bin/sh\n"[..], Some(&b"/bin/sh"[..])),
            (b"#! \t/usr/bin/env python3\nx", Some(b"/usr/bin/env")),
            (b"#!/bin/sh\r\n", Some(b"/bin/sh\r")),
            (b"#!/bin/sh", Some(b"/bin/sh")),
            (b"#!\n/bin/sh", None),
            (b"#!", None),
            (b"echo", None),
            (b"", None),
        ] {
            assert_eq!(head(text).interpreter(), interpreter, "{text:?}");
        }
    }

    #[test]
    fn an_elf_names_its_loader_and_its_machine() {
        // The tests themselves are a program of this machine, linked with its libc.
        let Some(own) = Head::read(b"/proc/self/exe\0") else { panic!("this program is there") };
        let loader = own.interpreter().expect("it is linked dynamically");
        assert!(loader.starts_with(b"/lib"), "{}", loader.escape_ascii());
        assert_eq!(own.machine(), b"a damaged program, or not a program at all");
        let mut elf = [0; 64];
        elf[..6].copy_from_slice(b"\x7fELF\x01\x01");
        for (machine, name) in [(3, &b"i386 (32 bits)"[..]), (999u16, b"machine 999 (32 bits)")] {
            elf[18..20].copy_from_slice(&machine.to_le_bytes());
            let said = head(&elf).machine().strip_prefix(b"a program for ").unwrap();
            assert!(said.starts_with(name), "{}", said.escape_ascii());
        }
    }

    /// Numbers of a hostile header are read as far as the file goes, and no further.
    #[test]
    fn a_header_that_leads_nowhere_names_no_interpreter() {
        let mut elf = [0xff; 64];
        elf[..6].copy_from_slice(b"\x7fELF\x02\x01");
        assert_eq!(head(&elf).interpreter(), None);
        assert_eq!(head(&elf[..20]).interpreter(), None);
        assert_eq!(head(&elf[..4]).interpreter(), None);
    }

    #[test]
    fn init_systems_are_known_by_name_and_place() {
        for path in [&b"/lib/systemd/systemd"[..], b"/sbin/init", b"/usr/bin/init", b"openrc-init"]
        {
            assert!(is_init(path), "{}", path.escape_ascii());
        }
        for path in [&b"/app/init"[..], b"init", b"/sbin/initd", b"/usr/bin/systemd-run", b""] {
            assert!(!is_init(path), "{}", path.escape_ascii());
        }
        assert!(needs_no_pid_1(b"--version\0") && !needs_no_pid_1(b"--versions\0"));
    }
}
