//! The contract between rootfs-boot and the guest's init; docs/wire.md says what each part means.
//!
//! This file is a module of both programs, so that neither side can change it alone. The
//! init has no standard library, and nothing here needs one.

#![cfg_attr(doc, doc = "\n\n", doc = include_str!("../../../docs/wire.md"))]

/// Bytes of the file of records, `/config` of the boot disk.
pub const MAX_CONFIG: usize = 2 << 20;

/// Keys of records.
pub mod key {
    /// The command and its arguments.
    pub const ARG: &str = "arg";
    /// A variable, `NAME=VALUE`.
    pub const ENV: &str = "env";
    /// `USER[:GROUP]`.
    pub const USER: &str = "user";
    /// The working directory.
    pub const CWD: &str = "cwd";
    /// The machine's name.
    pub const HOSTNAME: &str = "hostname";
    /// The name wins over the image's.
    pub const HOSTNAME_ASKED: &str = "hostname-asked";
    /// The beginning of /etc/hosts.
    pub const HOSTS_FIRST: &str = "hosts-first";
    /// The text of /etc/resolv.conf.
    pub const RESOLV: &str = "resolv";
    /// The text wins over the image's.
    pub const RESOLV_ASKED: &str = "resolv-asked";
    /// Files that a process may have open.
    pub const NOFILE: &str = "nofile";
    /// `WHEN:SIZE:PATH`, see [`when`](super::when).
    pub const TMPFS: &str = "tmpfs";
    /// A directory that has to be there.
    pub const VOLUME: &str = "volume";
    /// The root is made read-only.
    pub const READ_ONLY: &str = "read-only";
    /// Writes go to memory.
    pub const IN_MEMORY: &str = "in-memory";
    /// A letter for each of descriptors 0, 1, 2, see [`stdio`](super::stdio).
    pub const STDIO: &str = "stdio";
    /// `ROWS:COLUMNS` of the terminal.
    pub const WINDOW: &str = "window";
    /// Bytes at the start of the disk `rootfs` to read at once and to keep in memory.
    pub const READ_AHEAD: &str = "read-ahead";
    /// `MODE:TAG:PATH`, see [`share`](super::share).
    pub const SHARE: &str = "share";
    /// The upper's file system is smaller than its disk.
    pub const GROW: &str = "grow";
}

/// When a tmpfs is mounted.
pub mod when {
    /// Whatever the image has there.
    pub const ALWAYS: &str = "always";
    /// Unless the image has something there.
    pub const IF_EMPTY: &str = "if-empty";
}

/// What a standard stream is.
pub mod stdio {
    /// The terminal.
    pub const TERMINAL: char = 't';
    /// A pipe, which has a port of its own.
    pub const PIPE: char = 'p';
}

/// How a directory of the host is mounted.
pub mod share {
    /// It can only be read.
    pub const READ_ONLY: &str = "ro";
    /// It can be written to.
    pub const READ_WRITE: &str = "rw";
}

/// Disks, by their serials. The init looks for a serial; the kernel knows no serials and
/// finds the boot disk by its place among them.
pub mod disk {
    /// fsmeta and layers.
    pub const ROOTFS: &str = "rootfs";
    /// The upper.
    pub const UPPER: &str = "upper";
    /// `/init` and `/config`.
    pub const BOOT: &str = "boot";
    /// In the order in which the guest's kernel finds them: the first is `/dev/vda`.
    pub const ORDER: [&str; 3] = [ROOTFS, UPPER, BOOT];
    /// The kernel's name of the boot disk.
    pub const BOOT_DEVICE: &str = "/dev/vdc";
}

/// Ports, by their names.
pub mod port {
    /// Words and orders.
    pub const CONTROL: &str = "rootfs.control";
    /// Standard input, where it is a pipe.
    pub const STDIN: &str = "rootfs.stdin";
    /// Standard output, where it is a pipe.
    pub const STDOUT: &str = "rootfs.stdout";
    /// Standard error, where it is a pipe.
    pub const STDERR: &str = "rootfs.stderr";
    /// The terminal, where one of the three is one.
    pub const TTY: &str = "rootfs.tty";
}

/// First words of the lines that the init says.
pub mod word {
    /// `hello MICROS`: the init runs.
    pub const HELLO: &str = "hello";
    /// `run MICROS`: the command is about to run.
    pub const RUN: &str = "run";
    /// `note ERRNO TEXT`: something was left out.
    pub const NOTE: &str = "note";
    /// `warn ERRNO TEXT`: something failed.
    pub const WARN: &str = "warn";
    /// `exit CODE MICROS OUT ERR TTY`: the command ended.
    pub const EXIT: &str = "exit";
    /// `signal N MICROS OUT ERR TTY`: a signal ended the command.
    pub const SIGNAL: &str = "signal";
    /// `error CODE ERRNO TEXT`: the command could not be run.
    pub const ERROR: &str = "error";
}

/// Exit codes that are not the command's.
pub mod code {
    /// The time that `--timeout` gives was over.
    pub const TIMED_OUT: u8 = 124;
    /// The machine failed, whatever the command was.
    pub const MACHINE_FAILED: u8 = 125;
    /// The command cannot be executed.
    pub const NOT_EXECUTABLE: u8 = 126;
    /// The command does not exist.
    pub const NOT_FOUND: u8 = 127;
    /// Added to the number of the signal that ended the command.
    pub const SIGNAL: u8 = 128;
}

/// A stream that the init sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Stdout = 1,
    /// Standard error.
    Stderr = 2,
    /// The terminal.
    Terminal = 3,
}

impl Stream {
    /// All of them, as the last word counts their bytes.
    pub const ALL: [Self; 3] = [Self::Stdout, Self::Stderr, Self::Terminal];
}

/// What the host tells the init.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Send the command this signal.
    Signal(u32),
    /// The terminal has this size now.
    Window {
        /// Lines of text.
        rows: u16,
        /// Characters of a line.
        columns: u16,
    },
    /// Standard input ends after this many bytes in all.
    InputEnds(u64),
    /// Nobody reads this stream any more.
    Close(Stream),
    /// End everything now.
    Kill,
}

/// Bytes of an order: a letter, and a number of 64 bits, little-endian.
pub const ORDER_SIZE: usize = 9;

impl Order {
    /// The order as it goes over the control port.
    pub fn encode(self) -> [u8; ORDER_SIZE] {
        let (letter, number) = match self {
            Self::Signal(signal) => (b'S', u64::from(signal)),
            Self::Window { rows, columns } => (b'W', u64::from(rows) << 16 | u64::from(columns)),
            Self::InputEnds(bytes) => (b'E', bytes),
            Self::Close(stream) => (b'C', stream as u64),
            Self::Kill => (b'K', 0),
        };
        let mut order = [letter; ORDER_SIZE];
        order[1..].copy_from_slice(&number.to_le_bytes());
        order
    }

    /// The order that `bytes` are; `None` if there is none like that.
    pub fn decode(bytes: [u8; ORDER_SIZE]) -> Option<Self> {
        let [letter, number @ ..] = bytes;
        let number = u64::from_le_bytes(number);
        match letter {
            b'S' => u32::try_from(number).ok().map(Self::Signal),
            b'W' => {
                let both = u32::try_from(number).ok()?;
                Some(Self::Window { rows: (both >> 16) as u16, columns: both as u16 })
            }
            b'E' => Some(Self::InputEnds(number)),
            b'C' => {
                Stream::ALL.into_iter().find(|stream| *stream as u64 == number).map(Self::Close)
            }
            b'K' if number == 0 => Some(Self::Kill),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_is_read_as_it_was_given() {
        let mut orders = vec![Order::Kill];
        for n in [0, 1, 15, u32::MAX] {
            orders.push(Order::Signal(n));
            orders.push(Order::InputEnds(u64::from(n) << 32 | 7));
            orders.push(Order::Window { rows: n as u16, columns: (n >> 16) as u16 });
        }
        orders.extend(Stream::ALL.map(Order::Close));
        for order in orders {
            assert_eq!(Order::decode(order.encode()), Some(order));
        }
    }

    #[test]
    fn bytes_of_an_order() {
        assert_eq!(Order::Window { rows: 0x102, columns: 3 }.encode(), *b"W\x03\0\x02\x01\0\0\0\0");
        assert_eq!(Order::Signal(15).encode(), *b"S\x0f\0\0\0\0\0\0\0");
        assert_eq!(Order::InputEnds(4).encode(), *b"E\x04\0\0\0\0\0\0\0");
        assert_eq!(Order::Close(Stream::Terminal).encode(), *b"C\x03\0\0\0\0\0\0\0");
        assert_eq!(Order::Kill.encode(), *b"K\0\0\0\0\0\0\0\0");
    }

    #[test]
    fn what_is_not_an_order_is_not_obeyed() {
        for bytes in [
            b"X\0\0\0\0\0\0\0\0",
            b"K\x01\0\0\0\0\0\0\0",
            b"C\0\0\0\0\0\0\0\0",
            b"C\x04\0\0\0\0\0\0\0",
            b"S\0\0\0\0\x01\0\0\0",
            b"W\0\0\0\0\x01\0\0\0",
        ] {
            assert_eq!(Order::decode(*bytes), None, "{bytes:?}");
        }
    }

    #[test]
    fn the_kernel_finds_the_boot_disk_where_it_is_put() {
        let place = disk::ORDER.iter().position(|serial| *serial == disk::BOOT).unwrap();
        let letter = char::from(b'a' + place as u8);
        assert_eq!(disk::BOOT_DEVICE, format!("/dev/vd{letter}"));
    }
}
