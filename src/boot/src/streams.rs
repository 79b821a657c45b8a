//! Bytes between this program's streams and the machine's ports: a thread for
//! each direction, so that one that waits holds up no other.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::BorrowedFd;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, OnceLock};
use std::thread;
use std::time::Duration;

use anyhow::Result;
use fsimage::io::threads;

use super::wire::{Order, Stream};

const BUFFER: usize = 1 << 16;

/// A stream out of the machine.
pub(crate) struct Output {
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    /// Bytes that were written, or dropped because the reader is gone.
    delivered: AtomicU64,
    /// Nothing more will come.
    over: AtomicBool,
    /// Why bytes could not be written: from then on they are dropped.
    refused: OnceLock<io::Error>,
}

impl Output {
    /// Copies `port` to `to`: `stream` of the command.
    /// `tell` hears of all that arrives, and says whether to go on.
    pub(crate) fn start(
        port: UnixStream,
        to: BorrowedFd<'_>,
        stream: Stream,
        control: &Control,
        tell: impl Fn() -> bool + Send + 'static,
    ) -> Result<Self> {
        let mut to = File::from(to.try_clone_to_owned()?);
        let output = Self { state: Arc::default() };
        let state = output.state.clone();
        let control = control.clone();
        threads::spawn("output", move || {
            let mut port = port;
            let mut buffer = vec![0; BUFFER];
            while let Ok(n @ 1..) = port.read(&mut buffer) {
                if state.refused.get().is_none()
                    && let Err(error) = write_all(&mut to, &buffer[..n])
                {
                    state.refused.get_or_init(|| error);
                    // The command learns it as it would from a pipe of the host. A
                    // terminal that is gone sends a signal of its own.
                    if stream != Stream::Terminal {
                        control.order(Order::Close(stream));
                    }
                }
                state.delivered.fetch_add(n as u64, Ordering::Release);
                if !tell() {
                    return;
                }
            }
            state.over.store(true, Ordering::Release);
            tell();
        })?;
        Ok(output)
    }

    /// Whether all of `bytes` arrived, or no more will.
    pub(crate) fn has(&self, bytes: u64) -> bool {
        let state = &self.state;
        state.refused.get().is_some()
            || state.delivered.load(Ordering::Acquire) >= bytes
            || state.over.load(Ordering::Acquire)
    }

    /// Why bytes were lost; a reader that went away lost nothing it wanted.
    pub(crate) fn error(&self) -> Option<&io::Error> {
        self.state.refused.get().filter(|error| error.kind() != io::ErrorKind::BrokenPipe)
    }
}

/// As `Write::write_all`, also for a descriptor that somebody made non-blocking.
fn write_all(to: &mut File, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match to.write(bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(n) => bytes = &bytes[n..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                thread::sleep(Duration::from_millis(1));
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Copies standard input to `port`, and says how long it was when it ends.
pub(crate) fn input(port: UnixStream, control: &Control) -> io::Result<()> {
    let control = control.clone();
    threads::spawn("input", move || {
        let (mut port, mut total) = (port, 0);
        let mut buffer = vec![0; BUFFER];
        let mut stdin = io::stdin().lock();
        loop {
            match stdin.read(&mut buffer) {
                Ok(0) => break,
                Ok(n) if port.write_all(&buffer[..n]).is_err() => return,
                Ok(n) => total += n as u64,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    thread::sleep(Duration::from_millis(1));
                }
                Err(_) => break,
            }
        }
        control.order(Order::InputEnds(total));
        // The port stays open: what is still on its way must arrive.
        thread::park();
    })?;
    Ok(())
}

/// The end of what the guest's kernel and the engine printed.
#[derive(Clone, Default)]
pub(crate) struct Console(Arc<(Mutex<Said>, Condvar)>);

#[derive(Default)]
struct Said {
    last: Vec<u8>,
    /// Nothing more will come.
    over: bool,
}

impl Console {
    const KEPT: usize = 1 << 14;
    /// How long the end of the pipe may take to come once its writers are gone.
    const END: Duration = Duration::from_secs(30);

    /// Reads `pipe`, and copies it to `log`.
    pub(crate) fn start(pipe: File, log: Option<File>) -> io::Result<Self> {
        let console = Self::default();
        let kept = console.clone();
        threads::spawn("console", move || {
            let (said, ended) = &*kept.0;
            let (mut pipe, mut log) = (pipe, log);
            let mut buffer = [0; 4096];
            while let Ok(n @ 1..) = pipe.read(&mut buffer) {
                if let Some(log) = &mut log {
                    // A log that cannot be written must not stop the machine.
                    let _ = log.write_all(&buffer[..n]);
                }
                let mut said = said.lock().expect("no holder panics");
                said.last.extend_from_slice(&buffer[..n]);
                let excess = said.last.len().saturating_sub(Self::KEPT);
                said.last.drain(..excess);
            }
            said.lock().expect("no holder panics").over = true;
            ended.notify_all();
        })?;
        Ok(console)
    }

    /// All that is kept of what an engine said whose process has ended: what was
    /// said last may still be in the pipe, and this waits for it.
    pub(crate) fn last_words(&self) -> String {
        let (said, ended) = &*self.0;
        let said = said.lock().expect("no holder panics");
        let waited = ended.wait_timeout_while(said, Self::END, |said| !said.over);
        let (all, _) = waited.expect("no holder panics");
        String::from_utf8_lossy(&all.last).into_owned()
    }

    /// The last lines of it, for whoever has to find out what went wrong.
    pub(crate) fn last_lines(&self) -> String {
        const LINES: usize = 8;
        let text = self.last_words();
        let lines: Vec<&str> = text.lines().map(str::trim_end).filter(|l| !l.is_empty()).collect();
        lines[lines.len().saturating_sub(LINES)..].join("\n    ")
    }
}

/// The way to the guest's init.
#[derive(Clone)]
pub(crate) struct Control(Arc<UnixStream>);

impl Control {
    pub(crate) fn new(socket: UnixStream) -> io::Result<Self> {
        // A guest that takes no orders must not hold up whoever can end it.
        socket.set_write_timeout(Some(Duration::from_millis(200)))?;
        Ok(Self(Arc::new(socket)))
    }

    pub(crate) fn order(&self, order: Order) {
        // A machine that is gone takes no orders; that it is gone is told elsewhere.
        let _ = (&*self.0).write_all(&order.encode());
    }
}
