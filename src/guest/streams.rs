//! Bytes between the command and the host, and the host's orders.
//!
//! The command gets pipes and a pseudo-terminal, never a port itself: a port
//! opens once, and images open /dev/stdout again.

use crate::arena::{decimal, join, take};
use crate::config::{Config, bare, number, split};
use crate::disks::Metadata;
use crate::sys::{self, POLLIN, POLLOUT, PollFd};
use crate::wire::{ORDER_SIZE, Order, key, port, stdio, word};
use crate::{Doing, Failure, disks};

/// Bytes that one direction holds.
const BUFFER: usize = 1 << 16;

/// Milliseconds in which nothing happened, after which a little is done for later. What is done takes
/// a tenth of that.
const QUIET: u64 = 2;

/// How the command ended.
pub struct End {
    /// [`word::EXIT`] or [`word::SIGNAL`].
    pub how: &'static str,
    pub number: u32,
    /// Bytes that went to the host: stdout, stderr, terminal.
    pub sent: [u64; 3],
}

pub struct Streams {
    orders: Orders,
    signals: usize,
    stdin: Channel,
    keys: Channel,
    /// stdout, stderr, terminal.
    out: [Channel; 3],
    /// The terminal's side that belongs to the host, and the command's.
    master: Option<usize>,
    slave: Option<usize>,
    /// What the command takes as 0, 1 and 2.
    theirs: [usize; 3],
    is_terminal: [bool; 3],
}

impl Streams {
    /// Opens the ports that the host gave, and what the command gets for them.
    pub fn open(config: &Config, control: usize) -> Result<Self, Failure> {
        let signals = sys::signals(true).doing(&[b"asking for signals"])?;
        let kinds = bare(config.one(key::STDIO).unwrap_or(b"ppp\0"));
        let is_terminal = [0, 1, 2].map(|i| kinds.get(i) == Some(&(stdio::TERMINAL as u8)));
        let mut streams = Self {
            orders: Orders::new(control),
            signals,
            stdin: Channel::default(),
            keys: Channel::default(),
            out: [Channel::default(), Channel::default(), Channel::default()],
            master: None,
            slave: None,
            theirs: [0; 3],
            is_terminal,
        };
        sys::nonblocking(control);
        if is_terminal.contains(&true) {
            let slave = streams.open_terminal(config)?;
            streams.theirs = [slave; 3];
            streams.slave = Some(slave);
        }
        if !is_terminal[0] {
            let (read, write) = sys::pipe().doing(&[b"making a pipe"])?;
            streams.stdin = Channel::new(port(port::STDIN)?, write);
            streams.theirs[0] = read;
        }
        for (i, name) in [(1, port::STDOUT), (2, port::STDERR)] {
            if !is_terminal[i] {
                let (read, write) = sys::pipe().doing(&[b"making a pipe"])?;
                streams.out[i - 1] = Channel::new(read, port(name)?);
                streams.theirs[i] = write;
            }
        }
        Ok(streams)
    }

    fn open_terminal(&mut self, config: &Config) -> Result<usize, Failure> {
        let open = |path| sys::open(path, sys::O_RDWR | sys::O_NOCTTY, 0);
        let master = open(b"/dev/pts/ptmx\0").doing(&[b"making a terminal"])?;
        let n = sys::unlock_pty(master).doing(&[b"making a terminal"])?;
        let slave =
            open(join(&[b"/dev/pts/", decimal(n.into())])).doing(&[b"making a terminal"])?;
        if let Some((rows, columns)) = config.one(key::WINDOW).and_then(|w| split(w, b':')) {
            let narrow = |text| number(text).and_then(|n| u16::try_from(n).ok()).unwrap_or(0);
            let _ = sys::set_window(master, narrow(rows), narrow(bare(columns)));
        }
        let port = port(port::TTY)?;
        self.keys = Channel::new(port, master);
        self.out[2] = Channel::new(master, port);
        self.master = Some(master);
        Ok(slave)
    }

    /// In the command's process: its three descriptors, which are then `uid`'s.
    pub fn hand_over(&self, uid: u32) -> Result<(), Failure> {
        const TTY_GROUP: u32 = 5;
        let unchanged = u32::MAX;
        for (i, fd) in self.theirs.into_iter().enumerate() {
            let group = if self.is_terminal[i] { TTY_GROUP } else { unchanged };
            let give = || {
                sys::fchown(fd, uid, group)?;
                sys::dup_to(fd, i)
            };
            give().doing(&[b"handing over descriptor ", decimal(i as u64)])?;
        }
        match self.is_terminal.iter().position(|t| *t) {
            Some(i) => sys::take_terminal(i).doing(&[b"taking the terminal"]),
            None => Ok(()),
        }
    }

    /// Lets go of what the command has now: its ends are the only ones left. The
    /// terminal is kept, because a session may close it and open it again.
    pub fn started(&mut self) {
        for (fd, is_terminal) in self.theirs.into_iter().zip(self.is_terminal) {
            if !is_terminal {
                sys::close(fd);
            }
        }
    }

    /// Moves bytes and obeys the host until the command `pid` and all that it
    /// started are gone, and the host has what they wrote. While nothing happens, it keeps
    /// more of `metadata` in memory.
    pub fn relay(&mut self, pid: usize, mut metadata: Option<Metadata>) -> End {
        let mut ended = None;
        let mut killed = false;
        loop {
            let mut fds = [PollFd { fd: -1, events: POLLIN, revents: 0 }; 7];
            fds[0].fd = self.signals as i32;
            fds[1].fd = self.orders.control as i32;
            let channels = self.out.iter().chain([&self.stdin, &self.keys]);
            for (slot, channel) in fds[2..].iter_mut().zip(channels) {
                *slot = channel.interest();
            }
            // After a kill, the init waits a second at a time for the host to take what is left,
            // and gives it up when nothing happens in one.
            let limit = if killed { Some(1000) } else { metadata.is_some().then_some(QUIET) };
            let timed_out = sys::poll(&mut fds, limit) == 0;
            if timed_out && !killed {
                metadata.take_if(|metadata| !metadata.keep_more());
            }
            sys::drain(self.signals);
            let alone = loop {
                match sys::reap() {
                    Ok(Some((child, status))) if child == pid => {
                        ended = Some(status);
                        sys::kill(-1, sys::SIGKILL);
                    }
                    Ok(Some(_)) => {}
                    Ok(None) => break false,
                    Err(_) => break true,
                }
            };
            if let Some(slave) = self.slave.take_if(|_| alone && ended.is_some()) {
                sys::close(slave);
            }
            while let Some(order) = self.orders.next() {
                match order {
                    Order::Signal(signal) if ended.is_none() => {
                        sys::kill(pid as isize, signal as usize);
                    }
                    Order::Signal(_) => {}
                    Order::Window { rows, columns } => {
                        if let Some(master) = self.master {
                            let _ = sys::set_window(master, rows, columns);
                        }
                    }
                    Order::InputEnds(bytes) => self.stdin.end_at(bytes),
                    Order::Close(stream) => self.out[stream as usize - 1].abandon(),
                    Order::Kill => {
                        killed = true;
                        sys::kill(-1, sys::SIGKILL);
                    }
                }
            }
            self.stdin.pump();
            self.keys.pump();
            self.out.iter_mut().for_each(Channel::pump);
            if let Some(status) = ended.filter(|_| alone)
                && (timed_out && killed || self.out.iter().all(Channel::is_done))
            {
                let sent = [self.out[0].total, self.out[1].total, self.out[2].total];
                // The lowest seven bits are the signal, those above the exit code.
                return match status & 0x7f {
                    0 => End { how: word::EXIT, number: status >> 8 & 0xff, sent },
                    signal => End { how: word::SIGNAL, number: signal, sent },
                };
            }
        }
    }
}

/// The host's orders, which may arrive in pieces.
struct Orders {
    control: usize,
    order: [u8; ORDER_SIZE],
    len: usize,
}

impl Orders {
    fn new(control: usize) -> Self {
        Self { control, order: [0; ORDER_SIZE], len: 0 }
    }

    /// The next order that is here whole; one that nobody knows is passed over.
    fn next(&mut self) -> Option<Order> {
        loop {
            let n = sys::read(self.control, &mut self.order[self.len..]).ok()?;
            self.len += n;
            if self.len < ORDER_SIZE {
                return None;
            }
            self.len = 0;
            if let Some(order) = Order::decode(self.order) {
                return Some(order);
            }
        }
    }
}

fn port(name: &str) -> Result<usize, Failure> {
    let fd = disks::port(name).ok_or(sys::ENOENT);
    let fd = fd.doing(&[b"looking for the port ", name.as_bytes()])?;
    sys::nonblocking(fd);
    Ok(fd)
}

/// One direction of bytes.
#[derive(Default)]
struct Channel {
    from: Option<usize>,
    to: Option<usize>,
    buffer: &'static mut [u8],
    start: usize,
    end: usize,
    /// Bytes that were passed on, or thrown away because nobody wants them.
    total: u64,
    /// After how many bytes the stream ends, where that is told apart.
    limit: Option<u64>,
}

impl Channel {
    fn new(from: usize, to: usize) -> Self {
        sys::nonblocking(from);
        sys::nonblocking(to);
        Self { from: Some(from), to: Some(to), buffer: take(BUFFER), ..Self::default() }
    }

    fn interest(&self) -> PollFd {
        let (fd, events) = match (self.from, self.to) {
            (_, Some(to)) if self.start < self.end => (to as i32, POLLOUT),
            (Some(from), _) => (from as i32, POLLIN),
            _ => (-1, 0),
        };
        PollFd { fd, events, revents: 0 }
    }

    fn is_done(&self) -> bool {
        self.from.is_none() && self.start == self.end
    }

    /// The stream has `limit` bytes in all.
    fn end_at(&mut self, limit: u64) {
        self.limit = Some(limit);
        self.end_if_over();
    }

    fn end_if_over(&mut self) {
        if self.limit == Some(self.total) {
            self.from = None;
            if let Some(to) = self.to.take() {
                sys::close(to);
            }
        }
    }

    /// Nobody wants it any more: whoever writes next is told.
    fn abandon(&mut self) {
        if let Some(from) = self.from.take() {
            sys::close(from);
        }
        self.start = self.end;
    }

    /// Moves what can be moved now.
    fn pump(&mut self) {
        // Not without end: the other directions have their turn.
        for _ in 0..16 {
            if self.start == self.end {
                let Some(from) = self.from else { return };
                match sys::read(from, self.buffer) {
                    Ok(0) => return self.from = None,
                    Ok(n) => (self.start, self.end) = (0, n),
                    Err(sys::EAGAIN | sys::EINTR) => return,
                    // A terminal that everybody closed.
                    Err(_) => return self.from = None,
                }
            }
            let bytes = &self.buffer[self.start..self.end];
            match self.to.map_or(Ok(bytes.len()), |to| sys::write(to, bytes)) {
                Ok(n) => {
                    self.start += n;
                    self.total += n as u64;
                    self.end_if_over();
                }
                Err(sys::EAGAIN | sys::EINTR) => return,
                // Nobody reads it any more.
                Err(_) => {
                    if let Some(to) = self.to.take() {
                        sys::close(to);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A channel between two pipes, and their other ends: where it reads, where it writes.
    fn channel() -> (Channel, usize, usize) {
        let (from, input) = sys::pipe().unwrap();
        let (output, to) = sys::pipe().unwrap();
        sys::nonblocking(output);
        (Channel::new(from, to), input, output)
    }

    /// What `fd` has now; none where nobody writes to it any more.
    fn arrived(fd: usize) -> Option<Vec<u8>> {
        let mut buffer = vec![0; 2 * BUFFER];
        match sys::read(fd, &mut buffer) {
            Ok(0) => None,
            Ok(n) => Some(buffer[..n].to_vec()),
            Err(errno) => {
                assert_eq!(errno, sys::EAGAIN);
                Some(Vec::new())
            }
        }
    }

    #[test]
    fn an_order_may_arrive_in_pieces() {
        let (read, write) = sys::pipe().unwrap();
        sys::nonblocking(read);
        let mut orders = Orders::new(read);
        assert_eq!(orders.next(), None);
        let bytes = Order::Signal(15).encode();
        sys::write_all(write, &bytes[..4]).unwrap();
        assert_eq!(orders.next(), None);
        sys::write_all(write, &bytes[4..]).unwrap();
        sys::write_all(write, &Order::Kill.encode()[..1]).unwrap();
        assert_eq!(orders.next(), Some(Order::Signal(15)));
        assert_eq!(orders.next(), None);
        sys::write_all(write, &Order::Kill.encode()[1..]).unwrap();
        assert_eq!(orders.next(), Some(Order::Kill));
    }

    #[test]
    fn an_order_that_nobody_knows_is_passed_over() {
        let (read, write) = sys::pipe().unwrap();
        sys::nonblocking(read);
        sys::write_all(write, &[b'X'; ORDER_SIZE]).unwrap();
        sys::write_all(write, &Order::InputEnds(3).encode()).unwrap();
        assert_eq!(Orders::new(read).next(), Some(Order::InputEnds(3)));
    }

    #[test]
    fn a_channel_moves_bytes_and_counts_them() {
        let (mut channel, input, output) = channel();
        sys::write_all(input, b"bytes").unwrap();
        assert_eq!(channel.interest().events, POLLIN);
        channel.pump();
        assert_eq!(arrived(output), Some(b"bytes".to_vec()));
        assert_eq!((channel.total, channel.is_done()), (5, false));
        sys::close(input);
        channel.pump();
        assert!(channel.is_done());
        assert_eq!(channel.interest().fd, -1);
    }

    /// Back-pressure: a reader that does not take what is there holds the channel up, and
    /// what it holds is not lost.
    #[test]
    fn a_channel_waits_for_a_reader_that_is_slow() {
        let (mut channel, input, output) = channel();
        sys::nonblocking(input);
        let (mut given, mut taken) = (0, 0);
        while let Ok(n) = sys::write(input, &[7; 4096]) {
            given += n;
            channel.pump();
        }
        sys::close(input);
        let interest = channel.interest();
        assert_eq!((interest.fd, interest.events), (channel.to.unwrap() as i32, POLLOUT));
        while !channel.is_done() {
            taken += arrived(output).unwrap().len();
            channel.pump();
        }
        taken += arrived(output).unwrap().len();
        assert_eq!((taken, channel.total), (given, given as u64));
    }

    #[test]
    fn a_stream_ends_after_as_many_bytes_as_were_told() {
        let (mut channel, input, output) = channel();
        channel.end_at(5);
        sys::write_all(input, b"byt").unwrap();
        channel.pump();
        assert_eq!(arrived(output), Some(b"byt".to_vec()));
        sys::write_all(input, b"es").unwrap();
        channel.pump();
        assert_eq!(arrived(output), Some(b"es".to_vec()));
        assert_eq!(arrived(output), None);
        assert!(channel.is_done());
    }

    #[test]
    fn the_end_may_be_told_when_all_bytes_are_there() {
        let (mut channel, input, output) = channel();
        sys::write_all(input, b"bytes").unwrap();
        channel.pump();
        channel.end_at(5);
        assert_eq!((arrived(output), arrived(output)), (Some(b"bytes".to_vec()), None));
    }

    #[test]
    fn an_abandoned_channel_is_done_and_its_writer_is_told() {
        let (mut channel, input, _) = channel();
        sys::write_all(input, b"bytes").unwrap();
        channel.abandon();
        assert!(channel.is_done());
        // EPIPE; the tests' runtime ignores SIGPIPE.
        assert_eq!(sys::write(input, b"more"), Err(libc::EPIPE));
    }

    #[test]
    fn bytes_that_nobody_reads_are_thrown_away() {
        let (mut channel, input, output) = channel();
        sys::close(output);
        sys::write_all(input, b"bytes").unwrap();
        channel.pump();
        assert_eq!((channel.to, channel.total), (None, 5));
        sys::close(input);
        channel.pump();
        assert!(channel.is_done());
    }
}
