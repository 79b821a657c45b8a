//! Stands by a running machine: passes on signals and the terminal's size,
//! keeps the time, and finds out how it ended.

use std::io::{BufRead as _, BufReader};
use std::os::fd::OwnedFd;
use std::process::ExitStatus;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use rustix::process::{Pid, PidfdFlags, Signal};
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGWINCH};
use signal_hook::iterator::Signals;

use super::engine::{Engine, notice};
use super::launch::Launch;
use super::streams::{self, Console, Control, Order, Output};
use super::terminal::{Raw, Terminal};
use super::{MACHINE_FAILED, TIMED_OUT, Timings};

/// How it went.
pub enum Outcome {
    /// With this exit code.
    Ended(u8),
    /// No guest ever said a word; why, as far as one can tell.
    NeverCameUp(String),
}

/// What the supervisor waits for.
pub enum Event {
    /// The guest's init said something.
    Line(String),
    Signal(i32),
    /// Bytes arrived at one of this program's streams.
    Delivered,
    EngineEnded(ExitStatus),
}

/// How long a guest has to obey the order to kill everything.
const LAST_GRACE: Duration = Duration::from_secs(5);
/// How long a machine may take until its init speaks.
const UP_WITH_KVM: Duration = Duration::from_secs(20);
/// The same, when there is something else to try: a KVM that works needs a tenth.
const UP_OR_NEXT: Duration = Duration::from_secs(4);
const UP_IN_SOFTWARE: Duration = Duration::from_secs(120);
/// How many interrupts mean that somebody means it.
const INSISTING: usize = 3;

/// The last word of the guest's init.
enum Status {
    Ended { code: u8, sent: [u64; 3] },
    Failed { code: u8, why: String },
}

/// Starts the machine and stays until it is gone.
pub fn supervise(mut launch: Launch, timings: &mut Timings) -> Result<Outcome> {
    let (events, received) = mpsc::channel();
    let signals = [SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGWINCH];
    forward_signals(Signals::new(signals)?, events.clone());
    let mut child = launch.start()?;
    let pid = Pid::from_child(&child);
    let process = rustix::process::pidfd_open(pid, PidfdFlags::empty()).context("pidfd_open")?;
    timings.host("engine's process started");
    let engine_ended = events.clone();
    thread::spawn(move || {
        if let Ok(status) = child.wait() {
            let _ = engine_ended.send(Event::EngineEnded(status));
        }
    });
    let control = launch.control.try_clone()?;
    forward_lines(launch.control, events.clone());
    let watch = Watch {
        engine: launch.spec.engine,
        has_successor: launch.has_successor,
        terminal: launch.terminal,
        process,
        console: Console::start(launch.console, launch.console_log),
        control: Control::new(control.into()),
        stop_signal: launch.stop_signal,
        outputs: [None, None, None],
        raw: None,
        stop: Stop { timeout: launch.timeout, grace: launch.grace, ..Stop::default() },
        received,
    };
    let ports = Ports {
        stdin: launch.stdin,
        stdout: launch.stdout,
        stderr: launch.stderr,
        tty: launch.tty,
    };
    watch.run(ports, &events, timings)
}

fn forward_signals(mut signals: Signals, events: Sender<Event>) {
    thread::spawn(move || {
        for signal in signals.forever() {
            if events.send(Event::Signal(signal)).is_err() {
                // The machine before; signals are now another supervisor's.
                return;
            }
        }
    });
}

fn forward_lines(control: std::os::unix::net::UnixStream, events: Sender<Event>) {
    thread::spawn(move || {
        for line in BufReader::new(control).split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line).into_owned();
            if events.send(Event::Line(line)).is_err() {
                return;
            }
        }
    });
}

struct Ports {
    stdin: Option<std::os::unix::net::UnixStream>,
    stdout: Option<std::os::unix::net::UnixStream>,
    stderr: Option<std::os::unix::net::UnixStream>,
    tty: Option<std::os::unix::net::UnixStream>,
}

/// When to end a machine that does not end by itself.
#[derive(Default)]
struct Stop {
    /// From the moment that the guest is up.
    timeout: Option<Duration>,
    timed_out: bool,
    /// Between the stop signal and the end.
    grace: Duration,
    interrupts: usize,
    /// When to go one step further, and how far things went.
    at: Option<Instant>,
    step: Step,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Step {
    #[default]
    Running,
    Asked,
    Killing,
}

struct Watch {
    engine: Engine,
    has_successor: bool,
    terminal: Terminal,
    process: OwnedFd,
    console: Console,
    control: Control,
    stop_signal: i32,
    /// stdout, stderr, terminal.
    outputs: [Option<Output>; 3],
    raw: Option<Raw>,
    stop: Stop,
    received: Receiver<Event>,
}

impl Watch {
    fn run(
        mut self,
        ports: Ports,
        events: &Sender<Event>,
        timings: &mut Timings,
    ) -> Result<Outcome> {
        let up_by = match self.engine {
            Engine::Libkrun if self.has_successor => UP_OR_NEXT,
            Engine::Libkrun => UP_WITH_KVM,
            Engine::Qemu => UP_IN_SOFTWARE,
        };
        let up_by = Instant::now() + up_by;
        loop {
            match self.next(Some(up_by)) {
                None => {
                    self.kill();
                    let why = "no guest came up in time".to_owned();
                    return Ok(Outcome::NeverCameUp(self.explain(why)));
                }
                Some(Event::EngineEnded(status)) => {
                    let why = format!("the machine did not come up ({status})");
                    return Ok(Outcome::NeverCameUp(self.explain(why)));
                }
                Some(Event::Signal(signal)) if signal != SIGWINCH => {
                    self.kill();
                    return Ok(Outcome::Ended(128 + signal as u8));
                }
                Some(Event::Line(line)) => {
                    let Some(micros) = line.strip_prefix("hello ") else { continue };
                    let micros = micros.parse().unwrap_or(0);
                    timings.entered(micros);
                    timings.guest(micros, "init runs");
                    break;
                }
                Some(_) => {}
            }
        }
        // From here on, a guest runs.

        self.connect(ports, events)?;
        self.raw = Raw::enter(self.terminal)?;
        // It may have changed while the machine came up.
        self.signal(SIGWINCH);
        if let Some(timeout) = self.stop.timeout {
            self.stop.at = Some(Instant::now() + timeout);
        }
        let status = self.until_it_ends(timings);
        let code = match status {
            Some(Status::Ended { code, sent }) => {
                self.until_delivered(sent);
                code
            }
            Some(Status::Failed { code, why }) => {
                self.raw = None;
                notice(&why);
                code
            }
            None => {
                self.raw = None;
                notice(&self.explain("the machine died".to_owned()));
                MACHINE_FAILED
            }
        };
        // Disks are unmounted and bytes delivered: nothing in it is worth a moment.
        self.kill();
        self.raw = None;
        timings.host("ended");
        Ok(Outcome::Ended(if self.stop.timed_out { TIMED_OUT } else { code }))
    }

    fn connect(&mut self, ports: Ports, events: &Sender<Event>) -> Result<()> {
        use rustix::stdio;
        let start = |port, to, number, control: &Control| match port {
            Some(port) => {
                let events = events.clone();
                let delivered = move || events.send(Event::Delivered).is_ok();
                Output::start(port, to, number, control, delivered).map(Some)
            }
            None => Ok(None),
        };
        self.outputs[0] = start(ports.stdout, stdio::stdout(), 1, &self.control)?;
        self.outputs[1] = start(ports.stderr, stdio::stderr(), 2, &self.control)?;
        if let (Some(tty), Some(to)) = (ports.tty, self.terminal.output()) {
            if self.terminal.stdin {
                streams::input(tty.try_clone()?, &self.control);
            }
            self.outputs[2] = start(Some(tty), to, 3, &self.control)?;
        }
        if let Some(stdin) = ports.stdin {
            streams::input(stdin, &self.control);
        }
        Ok(())
    }

    /// Waits for the guest's last word; none if the machine went without one.
    fn until_it_ends(&mut self, timings: &mut Timings) -> Option<Status> {
        let mut last = None;
        loop {
            match self.next(self.stop.at) {
                None => {
                    if !self.go_further() {
                        return None;
                    }
                }
                Some(Event::Line(line)) => {
                    let mut words = line.splitn(2, ' ');
                    match (words.next(), words.next()) {
                        (Some("run"), Some(micros)) => {
                            timings.guest(micros.parse().unwrap_or(0), "command runs");
                        }
                        (Some(word), Some(rest)) => {
                            if let Some(status) = Status::parse(word, rest, timings) {
                                return Some(status);
                            }
                        }
                        _ => {}
                    }
                }
                Some(Event::Signal(signal)) => self.signal(signal),
                Some(Event::Delivered) => {}
                Some(Event::EngineEnded(_)) => {
                    // Its last word may still be on its way from the other thread.
                    last = last.or(Some(Instant::now() + Duration::from_millis(200)));
                    self.stop.at = last;
                    self.stop.step = Step::Killing;
                }
            }
        }
    }

    /// Waits until this program's streams have taken what the command wrote.
    fn until_delivered(&mut self, sent: [u64; 3]) {
        let done = |watch: &Self| {
            let all = watch.outputs.iter().zip(sent);
            all.into_iter().all(|(output, bytes)| output.as_ref().is_none_or(|o| o.has(bytes)))
        };
        let mut interrupts = 0;
        while !done(self) {
            match self.next(None) {
                Some(Event::Signal(SIGWINCH)) => {}
                Some(Event::Signal(_)) if interrupts > 0 => return,
                Some(Event::Signal(_)) => interrupts += 1,
                None => return,
                Some(_) => {}
            }
        }
    }

    /// The next event; none when `until` has come.
    fn next(&self, until: Option<Instant>) -> Option<Event> {
        match until {
            None => self.received.recv().ok(),
            Some(until) => {
                let left = until.saturating_duration_since(Instant::now());
                self.received.recv_timeout(left).ok()
            }
        }
    }

    fn signal(&mut self, signal: i32) {
        match signal {
            SIGWINCH => {
                if let Some((rows, columns)) = self.terminal.size() {
                    self.control.order(Order::Window(rows, columns));
                }
            }
            SIGTERM => self.ask(self.stop_signal),
            // The terminal is gone, and whoever could end this otherwise with it.
            SIGHUP => self.ask(SIGHUP),
            SIGINT => {
                self.stop.interrupts += 1;
                if self.stop.interrupts >= INSISTING {
                    self.stop.step = Step::Asked;
                    self.go_further();
                } else {
                    self.control.order(Order::Signal(SIGINT));
                }
            }
            other => self.control.order(Order::Signal(other)),
        }
    }

    /// Asks the command to end, once.
    fn ask(&mut self, signal: i32) {
        self.control.order(Order::Signal(signal));
        if self.stop.step == Step::Running {
            self.stop.step = Step::Asked;
            self.stop.at = Some(Instant::now() + self.stop.grace);
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

    fn kill(&self) {
        // It may be gone already.
        let _ = rustix::process::pidfd_send_signal(&self.process, Signal::KILL);
    }

    /// `why`, and what the engine and the kernel said last.
    fn explain(&self, mut why: String) -> String {
        // What they said last may still be in the pipe.
        thread::sleep(Duration::from_millis(20));
        if self.engine == Engine::Libkrun {
            why += ": /dev/kvm opens, but may not be able to run this guest (a nested one often is not)";
        }
        let last = self.console.last_lines();
        if last.is_empty() { why } else { format!("{why}\n    {last}") }
    }
}

impl Status {
    fn parse(word: &str, rest: &str, timings: &Timings) -> Option<Self> {
        if word == "error" {
            let mut parts = rest.splitn(3, ' ');
            let code = parts.next()?.parse().unwrap_or(MACHINE_FAILED);
            let errno: i32 = parts.next()?.parse().unwrap_or(0);
            let what = parts.next().unwrap_or("the guest failed");
            let why = match errno {
                0 => what.to_owned(),
                _ => {
                    // The number means nothing to whoever reads it.
                    let text = std::io::Error::from_raw_os_error(errno).to_string();
                    format!("{what}: {}", text.split(" (os error").next().unwrap_or(&text))
                }
            };
            return Some(Self::Failed { code, why });
        }
        let numbers: Vec<u64> = rest.split(' ').map_while(|n| n.parse().ok()).collect();
        let [number, micros, sent @ ..] = &numbers[..] else { return None };
        let sent = *sent.first_chunk()?;
        let number = u8::try_from(*number).unwrap_or(MACHINE_FAILED);
        timings.guest(*micros, "command ended, disks unmounted");
        match word {
            "exit" => Some(Self::Ended { code: number, sent }),
            "signal" => Some(Self::Ended { code: number.saturating_add(128), sent }),
            _ => None,
        }
    }
}
