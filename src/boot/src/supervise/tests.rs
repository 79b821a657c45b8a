//! The order in which an end and last words arrive, and what a guest may put off.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::thread;

use rustix::process::Signal;

use super::*;

/// A watch over a machine that ended at once, and where its events go.
fn watch() -> (Watch, Sender<Event>, ExitStatus) {
    let mut child = Command::new("true").stdout(Stdio::null()).spawn().unwrap();
    let (watch, events) = watch_over(Pid::from_child(&child));
    (watch, events, child.wait().unwrap())
}

fn watch_over(pid: Pid) -> (Watch, Sender<Event>) {
    let (events, received) = mpsc::channel();
    let watch = Watch {
        engine: Engine::Qemu,
        has_successor: false,
        terminal: Terminal { stdin: false, stdout: false, stderr: false },
        pid,
        process: ChildProcess::new(pid).unwrap(),
        console: Console::start(File::open("/dev/null").unwrap(), None).unwrap(),
        control: Control::new(UnixStream::pair().unwrap().0).unwrap(),
        stop_signal: SIGTERM,
        outputs: [None, None, None],
        told: Arc::default(),
        raw: None,
        ended: None,
        control_ended: false,
        stop: Stop::default(),
        received,
    };
    (watch, events)
}

/// A watch over a machine that does what `script` does, whose standard output is that of
/// the guest's command.
fn watch_over_script(script: &str) -> (Watch, Sender<Event>) {
    let (port, theirs) = UnixStream::pair().unwrap();
    let mut command = Command::new("sh");
    command.args(["-c", script]).stdin(Stdio::null()).stdout(OwnedFd::from(theirs));
    let mut child = command.spawn().unwrap();
    drop(command);
    let (mut watch, events) = watch_over(Pid::from_child(&child));
    let ended = events.clone();
    thread::spawn(move || ended.send(Event::EngineEnded(child.wait().unwrap())));
    let ports = Ports { stdin: None, stdout: Some(port), stderr: None, tty: None };
    let nowhere = File::options().write(true).open("/dev/null").unwrap();
    watch.connect_to(ports, [nowhere.as_fd(); 2], &events).unwrap();
    (watch, events)
}

fn timings() -> Timings {
    Timings::new(false, Instant::now())
}

#[test]
fn words_of_a_guest_count_that_come_after_the_end_of_its_engine() {
    let (mut watch, events, status) = watch();
    let last = Status::Ended { code: 127, micros: 3, sent: [0, 0, 0] };
    for event in [
        Event::EngineEnded(status),
        Event::Said(Word::Hello(1)),
        Event::Said(Word::Runs(2)),
        Event::Said(Word::Last(last.clone())),
        Event::ControlEnded,
    ] {
        events.send(event).unwrap();
    }
    assert!(watch.until_it_speaks(&mut timings()).is_none());
    assert_eq!(watch.until_it_ends(&mut timings()), Some(last));
}

#[test]
fn an_engine_whose_guest_says_nothing_did_not_come_up() {
    for control_ends_first in [false, true] {
        let (mut watch, events, status) = watch();
        let mut ends = [Event::EngineEnded(status), Event::ControlEnded];
        if control_ends_first {
            ends.reverse();
        }
        ends.into_iter().for_each(|event| events.send(event).unwrap());
        let outcome = watch.until_it_speaks(&mut timings());
        assert!(matches!(outcome, Some(Outcome::NeverCameUp { .. })));
    }
}

#[test]
fn what_a_killed_guest_says_that_it_sent_puts_the_end_off_only_so_long() {
    let (mut watch, _events) = watch_over_script("while :; do echo still here; sleep 0.1; done");
    watch.stop.step = Step::Killing;
    watch.until_delivered([u64::MAX, 0, 0]);
    watch.end_engine();
}

#[test]
fn a_flood_of_bytes_is_one_event_and_puts_no_time_off() {
    let (mut watch, _events) = watch_over_script("exec yes");
    assert!(matches!(watch.received.recv(), Ok(Event::Delivered)));
    thread::sleep(Duration::from_millis(200));
    assert_eq!(watch.received.try_iter().count(), 0);
    watch.told.store(false, Ordering::Release);
    watch.stop.runs = true;
    watch.stop.at = Some(Instant::now() + Duration::from_millis(200));
    // Asks, kills, and gives up.
    assert_eq!(watch.until_it_ends(&mut timings()), None);
    assert!(watch.stop.timed_out);
    watch.end_engine();
}

#[test]
fn a_command_that_is_never_started_is_not_waited_for() {
    let (mut watch, _events, _) = watch();
    watch.stop.timeout = Some(Duration::from_secs(1000));
    let ended = watch.until_it_ends(&mut timings());
    assert!(matches!(ended, Some(Status::Failed { code: MACHINE_FAILED, .. })));
}

#[test]
fn a_signal_that_comes_between_two_machines_is_not_lost() {
    // In a process of its own, which it ends.
    const VARIABLE: &str = "SIGNAL_BETWEEN_MACHINES";
    let (_, module) = module_path!().split_once("::").unwrap();
    let name = format!("{module}::a_signal_that_comes_between_two_machines_is_not_lost");
    let Ok(when) = std::env::var(VARIABLE) else {
        for when in ["before", "after"] {
            let mut child = Command::new(std::env::current_exe().unwrap());
            child.args(["--exact", &name]).env(VARIABLE, when).stdout(Stdio::null());
            let status = child.status().unwrap();
            assert_eq!(
                std::os::unix::process::ExitStatusExt::signal(&status),
                Some(SIGTERM),
                "{when}"
            );
        }
        return;
    };
    let signals = Signals::start().unwrap();
    let (events, received) = mpsc::channel();
    signals.lead_to(events);
    let term = || rustix::process::kill_process(rustix::process::getpid(), Signal::TERM).unwrap();
    if when == "before" {
        term();
        thread::sleep(Duration::from_millis(300));
    }
    signals.take_back(&received);
    drop(received);
    if when == "after" {
        term();
    }
    thread::sleep(Duration::from_secs(60));
}
