//! Stands by a running machine: passes on signals and the terminal's size,
//! keeps the time, and finds out how it ended.

mod coming_up;
pub(crate) mod event;
#[cfg(test)]
mod tests;
mod words;

use std::os::fd::{AsFd as _, BorrowedFd};
use std::process::ExitStatus;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use fsimage::io::threads;
use rustix::process::Pid;
use signal_hook::consts::{SIGHUP, SIGINT, SIGKILL, SIGTERM, SIGWINCH};

use self::event::{Event, Status, Word};
use super::engine::Engine;
use super::launch::Launch;
use super::signals::Signals;
use super::streams::{self, Console, Control, Output};
use super::terminal::{Raw, Terminal};
use super::wire::{Order, Stream};
use crate::notice::notice;
use crate::system::ChildProcess;
use crate::timings::Timings;
use crate::wire::code::{self, MACHINE_FAILED, TIMED_OUT};

/// How it went.
pub(crate) enum Outcome {
    /// With this exit code.
    Ended(u8),
    /// The engine cannot make such a machine at all; why.
    Refused(String),
    /// No guest ever said a word.
    NeverCameUp {
        /// As far as one can tell.
        why: String,
        /// Whether it is certain that this host's KVM runs no guest.
        kvm_runs_no_guest: bool,
    },
}

/// How long a guest that was told to kill everything has for its last words, an ended engine
/// has for those that are on their way, and a killed engine has to go, on a busy host too. More
/// SIGINTs end the engine at once.
const LAST_GRACE: Duration = Duration::from_secs(if cfg!(test) { 2 } else { 30 });
/// How long the reader of this program's output may stall before the rest of what a killed
/// command wrote is dropped.
const LAST_DELIVERY: Duration = Duration::from_secs(if cfg!(test) { 1 } else { 5 });
/// So many SIGINTs within this time end the machine by force.
const INSISTING: (usize, Duration) = (3, Duration::from_secs(2));
/// How long the init of a machine with a timeout may take to get to its command, from its
/// first word on. It mounts disks, repairs and grows the upper and reads a few files: on
/// the slowest host, minutes.
const LONGEST_START: Duration = Duration::from_secs(if cfg!(test) { 1 } else { 15 * 60 });

/// Starts the machine and stays until it is gone.
pub(crate) fn supervise(
    mut launch: Launch,
    signals: &Signals,
    timings: &mut Timings,
) -> Result<Outcome> {
    let (events, received) = mpsc::channel();
    signals.lead_to(events.clone());
    let mut child = launch.start()?;
    let pid = Pid::from_child(&child);
    let process = ChildProcess::new(pid).context("pidfd_open")?;
    timings.host("engine's process started");
    let engine_ended = events.clone();
    // If a thread does not start, this returns: the program ends, and the engine with it.
    threads::spawn("engine", move || {
        if let Ok(status) = child.wait() {
            let _ = engine_ended.send(Event::EngineEnded(status));
        }
    })?;
    let control = Control::new(launch.control.try_clone()?)?;
    words::forward(launch.control, launch.verbose, events.clone())?;
    let mut watch = Watch {
        engine: launch.spec.engine,
        has_successor: launch.has_successor,
        terminal: launch.terminal,
        pid,
        process,
        console: Console::start(launch.console, launch.console_log)?,
        control,
        stop_signal: launch.stop_signal,
        outputs: [None, None, None],
        told: Arc::default(),
        raw: None,
        ended: None,
        control_ended: false,
        stop: Stop { timeout: launch.timeout, grace: launch.grace, ..Stop::default() },
        received,
    };
    let ports = Ports {
        stdin: launch.stdin,
        stdout: launch.stdout,
        stderr: launch.stderr,
        tty: launch.tty,
    };
    let outcome = watch.run(ports, &events, timings)?;
    if let Outcome::NeverCameUp { .. } = outcome {
        signals.take_back(&watch.received);
    }
    Ok(outcome)
}

struct Ports {
    stdin: Option<std::os::unix::net::UnixStream>,
    stdout: Option<std::os::unix::net::UnixStream>,
    stderr: Option<std::os::unix::net::UnixStream>,
    tty: Option<std::os::unix::net::UnixStream>,
}

/// When to end a machine that does not end by itself: a state machine, whose next step
/// comes at `at`.
#[derive(Default)]
struct Stop {
    /// From the moment that the command runs.
    timeout: Option<Duration>,
    /// Whether that moment has come.
    runs: bool,
    timed_out: bool,
    /// Between the stop signal and the end.
    grace: Duration,
    interrupts: Vec<Instant>,
    /// When the next step comes, and which was the last.
    at: Option<Instant>,
    step: Step,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Step {
    #[default]
    Running,
    Asked,
    /// The guest was told to kill everything, or its engine has ended.
    Killing,
}

struct Watch {
    engine: Engine,
    has_successor: bool,
    terminal: Terminal,
    pid: Pid,
    process: ChildProcess,
    console: Console,
    control: Control,
    stop_signal: i32,
    /// stdout, stderr, terminal.
    outputs: [Option<Output>; 3],
    /// Whether an [`Event::Delivered`] is on its way.
    told: Arc<AtomicBool>,
    raw: Option<Raw>,
    stop: Stop,
    /// How the engine's process ended, once it has.
    ended: Option<ExitStatus>,
    control_ended: bool,
    received: Receiver<Event>,
}

impl Watch {
    fn run(
        &mut self,
        ports: Ports,
        events: &Sender<Event>,
        timings: &mut Timings,
    ) -> Result<Outcome> {
        if let Some(outcome) = self.until_it_speaks(timings) {
            return Ok(outcome);
        }
        // From here on, a guest runs.

        self.connect_to(ports, [rustix::stdio::stdout(), rustix::stdio::stderr()], events)?;
        self.raw = Raw::enter(self.terminal)?;
        // It may have changed while the machine came up.
        self.signal(SIGWINCH);
        let status = self.until_it_ends(timings);
        let mut code = match status {
            Some(Status::Ended { code, micros, sent }) => {
                timings.guest(micros, "command ended, disks unmounted");
                self.until_delivered(sent);
                code
            }
            Some(Status::Failed { code, why }) => {
                // First: standard error may be one that takes nothing.
                self.end_engine();
                self.raw = None;
                notice(&why);
                code
            }
            None if self.ended.is_none() => {
                self.end_engine();
                self.raw = None;
                notice("the guest did not end when it was told to; its machine was ended");
                code::SIGNAL + SIGKILL as u8
            }
            None => {
                self.raw = None;
                notice(&self.explain("the machine died".to_owned()));
                MACHINE_FAILED
            }
        };
        // Disks are unmounted and bytes delivered: nothing in it is worth a moment.
        self.end_engine();
        self.raw = None;
        for output in self.outputs.iter().flatten() {
            if let Some(error) = output.error() {
                notice(&format!("what the command said could not be written: {error}"));
                code = MACHINE_FAILED;
            }
        }
        if let Some(timeout) = self.stop.timeout.filter(|_| self.stop.timed_out) {
            notice(&format!("ended after the timeout of {timeout:?}"));
        }
        timings.host("ended");
        Ok(Outcome::Ended(if self.stop.timed_out { TIMED_OUT } else { code }))
    }

    fn connect_to(
        &mut self,
        ports: Ports,
        [stdout, stderr]: [BorrowedFd<'_>; 2],
        events: &Sender<Event>,
    ) -> Result<()> {
        let start = |port, to, stream, control: &Control| match port {
            Some(port) => {
                let (events, told) = (events.clone(), self.told.clone());
                // One event is under way at most; whoever takes it sees all that was passed on by then.
                let delivered = move || {
                    told.swap(true, Ordering::AcqRel) || events.send(Event::Delivered).is_ok()
                };
                Output::start(port, to, stream, control, delivered).map(Some)
            }
            None => Ok(None),
        };
        self.outputs[0] = start(ports.stdout, stdout, Stream::Stdout, &self.control)?;
        self.outputs[1] = start(ports.stderr, stderr, Stream::Stderr, &self.control)?;
        if let (Some(tty), Some(to)) = (ports.tty, self.terminal.output()?) {
            if self.terminal.stdin {
                streams::input(tty.try_clone()?, &self.control)?;
            }
            self.outputs[2] = start(Some(tty), to.as_fd(), Stream::Terminal, &self.control)?;
        }
        if let Some(stdin) = ports.stdin {
            streams::input(stdin, &self.control)?;
        }
        Ok(())
    }

    /// Waits for the guest's last word; none if the machine went without one, or
    /// would not go.
    fn until_it_ends(&mut self, timings: &mut Timings) -> Option<Status> {
        if self.stop.timeout.is_some() && self.stop.step == Step::Running {
            self.stop.at = Instant::now().checked_add(LONGEST_START);
        }
        loop {
            match self.next(self.stop.at) {
                None if self.stop.step == Step::Running && !self.stop.runs => {
                    let why = format!(
                        "the guest's init did not start the command within {LONGEST_START:?}; its machine was ended, as there is a timeout"
                    );
                    return Some(Status::Failed { code: MACHINE_FAILED, why });
                }
                None => {
                    if !self.go_further() {
                        return None;
                    }
                }
                Some(Event::Said(Word::Runs(micros))) => {
                    timings.guest(micros, "command runs");
                    self.command_runs();
                }
                Some(Event::Said(Word::Last(status))) => return Some(status),
                Some(Event::Said(Word::Hello(_)) | Event::Delivered) => {}
                Some(Event::Signal(signal)) => self.signal(signal),
                Some(Event::ControlEnded | Event::EngineEnded(_)) => {
                    if self.ended.is_some() && self.control_ended {
                        return None;
                    }
                    if self.ended.is_some() {
                        self.wait_for_last_words();
                    }
                }
            }
        }
    }

    /// The engine's process has ended, but the last words of its guest may still be on their
    /// way through the other thread: waits for them for [`LAST_GRACE`].
    fn wait_for_last_words(&mut self) {
        self.stop.at = Some(Instant::now() + LAST_GRACE);
        self.stop.step = Step::Killing;
    }

    /// The time that a timeout gives begins: a command is not to pay for a machine
    /// that was slow to come up.
    fn command_runs(&mut self) {
        self.stop.runs = true;
        if let Some(timeout) = self.stop.timeout
            && self.stop.step == Step::Running
        {
            // Later than any clock can say is never.
            self.stop.at = Instant::now().checked_add(timeout);
        }
    }

    /// Waits until this program's streams have taken what the command wrote.
    fn until_delivered(&mut self, sent: [u64; 3]) {
        // What a guest says that it sent need not be true.
        let last_of_guest = Instant::now() + LAST_GRACE;
        let mut last_byte = Instant::now();
        while !self.has_delivered(sent) {
            let killing = self.stop.step == Step::Killing;
            let until = match (killing, &self.ended) {
                (false, _) => self.stop.at,
                // Counted from the last byte on, because a slow reader has not gone away.
                (true, Some(_)) => Some(last_byte + LAST_DELIVERY),
                (true, None) => Some(last_of_guest.min(last_byte + LAST_DELIVERY)),
            };
            match self.next(until) {
                None if killing && self.ended.is_none() && Instant::now() >= last_of_guest => {
                    // What has left the machine by now is still delivered.
                    self.end_engine();
                    last_byte = Instant::now();
                }
                None => {
                    // A reader that never reads must not keep this program past the timeout.
                    self.stop.timed_out |= self.stop.step == Step::Running;
                    return;
                }
                Some(Event::Signal(signal)) if signal != SIGWINCH => return,
                Some(Event::Delivered) => last_byte = Instant::now(),
                // What was delivered to sockets is still read from them, though the
                // engine may be gone.
                Some(_) => {}
            }
        }
    }

    fn has_delivered(&self, sent: [u64; 3]) -> bool {
        let mut all = self.outputs.iter().zip(sent);
        all.all(|(output, bytes)| output.as_ref().is_none_or(|o| o.has(bytes)))
    }

    /// The next event; none when `until` has come.
    fn next(&mut self, until: Option<Instant>) -> Option<Event> {
        let event = match until.map(|until| until.saturating_duration_since(Instant::now())) {
            None => self.received.recv().ok(),
            // A stream of bytes must not put the deadline off; other events that came do count.
            Some(Duration::ZERO) => {
                let event = self.received.try_iter().find(|e| !matches!(e, Event::Delivered));
                self.told.store(false, Ordering::Release);
                event
            }
            Some(left) => self.received.recv_timeout(left).ok(),
        };
        match event {
            Some(Event::EngineEnded(status)) => self.ended = Some(status),
            Some(Event::ControlEnded) => self.control_ended = true,
            // What arrives from here on is told anew.
            Some(Event::Delivered) => drop(self.told.swap(false, Ordering::AcqRel)),
            _ => {}
        }
        event
    }

    fn signal(&mut self, signal: i32) {
        match signal {
            SIGWINCH => {
                if let Some((rows, columns)) = self.terminal.size() {
                    self.control.order(Order::Window { rows, columns });
                }
            }
            SIGTERM => self.ask(self.stop_signal),
            // The terminal is gone, and whoever could end this otherwise with it.
            SIGHUP => self.ask(SIGHUP),
            SIGINT => {
                let (count, within) = INSISTING;
                let interrupts = &mut self.stop.interrupts;
                interrupts.push(Instant::now());
                interrupts.retain(|at| at.elapsed() < within);
                if interrupts.len() >= count && self.stop.step == Step::Killing {
                    self.stop.at = Some(Instant::now());
                } else if interrupts.len() >= count {
                    interrupts.clear();
                    self.stop.step = Step::Asked;
                    self.go_further();
                } else {
                    self.control.order(Order::Signal(SIGINT as u32));
                }
            }
            other => self.control.order(Order::Signal(other as u32)),
        }
    }

    /// Asks the command to end, once.
    fn ask(&mut self, signal: i32) {
        self.control.order(Order::Signal(signal as u32));
        if self.stop.step == Step::Running {
            self.stop.step = Step::Asked;
            self.stop.at = Instant::now().checked_add(self.stop.grace);
        }
    }

    /// The time for the present step is over. Returns false when none is left.
    fn go_further(&mut self) -> bool {
        match self.stop.step {
            Step::Running => {
                self.stop.timed_out = true;
                self.ask(self.stop_signal);
            }
            Step::Asked => {
                self.control.order(Order::Kill);
                self.stop.step = Step::Killing;
                self.stop.at = Some(Instant::now() + LAST_GRACE);
            }
            Step::Killing => return false,
        }
        true
    }

    /// Ends the engine's process and waits until it is gone, with all it held: the
    /// next machine may want the same upper or the same ports.
    fn end_engine(&mut self) {
        self.process.kill();
        let until = Instant::now() + LAST_GRACE;
        while self.ended.is_none() {
            if self.next(Some(until)).is_none() {
                return;
            }
        }
    }

    /// `why`, and what the engine, which has ended, and the kernel said last.
    fn explain(&self, why: String) -> String {
        let last = self.console.last_lines();
        if last.is_empty() { why } else { format!("{why}\n    {last}") }
    }
}
