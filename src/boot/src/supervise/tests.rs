//! The order in which an end and last words arrive.

use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};

use super::*;

/// A watch over a machine that ended at once, and where its events go.
fn watch() -> (Watch, Sender<Event>, ExitStatus) {
    let (events, received) = mpsc::channel();
    let mut child = Command::new("true").stdout(Stdio::piped()).spawn().unwrap();
    let pid = Pid::from_child(&child);
    let process = rustix::process::pidfd_open(pid, PidfdFlags::empty()).unwrap();
    let status = child.wait().unwrap();
    let console = OwnedFd::from(child.stdout.take().unwrap()).into();
    let watch = Watch {
        engine: Engine::Qemu,
        has_successor: false,
        terminal: Terminal { stdin: false, stdout: false, stderr: false },
        pid,
        process,
        console: Console::start(console, None).unwrap(),
        control: Control::new(UnixStream::pair().unwrap().0).unwrap(),
        stop_signal: SIGTERM,
        verbose: false,
        outputs: [None, None, None],
        raw: None,
        ended: None,
        control_ended: false,
        stop: Stop::default(),
        received,
    };
    (watch, events, status)
}

fn timings() -> Timings {
    Timings { on: false, started: Instant::now(), last: Instant::now() }
}

#[test]
fn words_of_a_guest_count_that_come_after_the_end_of_its_engine() {
    let (mut watch, events, status) = watch();
    for event in [
        Event::EngineEnded(status),
        Event::Line("hello 1".into()),
        Event::Line("run 2".into()),
        Event::Line("exit 127 3 0 0 0".into()),
        Event::ControlEnded,
    ] {
        events.send(event).unwrap();
    }
    assert!(watch.until_it_speaks(&mut timings()).is_none());
    let status = watch.until_it_ends(&mut timings());
    assert!(matches!(status, Some(Status::Ended { code: 127, sent: [0, 0, 0] })));
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
