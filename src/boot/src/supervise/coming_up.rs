//! The time in which a machine comes up: until its guest says a word, or is not
//! expected to any more. The rules and their reasons stand in [`crate::choose`].

use std::process::ExitStatus;
use std::time::Instant;

use signal_hook::consts::SIGWINCH;

use super::super::engine::Engine;
use super::super::kvm_finding;
use super::super::liveness::{self, Doubt, Liveness, Sample};
use super::{Event, Outcome, Watch, Word};
use crate::notice::notice;
use crate::timings::Timings;
use crate::wire::code::{self, MACHINE_FAILED};

/// What libkrun says of a KVM that does not know an instruction, or cannot enter.
const KVM_FAILED: [&str; 2] = ["KVM_EXIT_INTERNAL_ERROR", "KVM_EXIT_FAIL_ENTRY"];

impl Watch {
    /// Waits for the first word of the guest's init; how it went if there is none.
    pub(super) fn until_it_speaks(&mut self, timings: &mut Timings) -> Option<Outcome> {
        let mut liveness = Liveness::new(self.engine);
        // libkrun with nothing to follow was asked for, and is waited for.
        let may_give_up = self.has_successor || self.engine == Engine::Qemu;
        let mut doubted = false;
        loop {
            let until = match self.ended {
                Some(_) => self.stop.at,
                None => Some(Instant::now() + liveness::INTERVAL),
            };
            let event = self.next(until);
            if let Some(status) = self.ended
                && (self.control_ended || event.is_none())
            {
                return Some(self.ended_unheard(status));
            }
            match event {
                None => {
                    let doubt = Sample::of(self.pid).and_then(|sample| liveness.judge(sample));
                    let Some(doubt) = doubt else { continue };
                    if may_give_up {
                        self.end_engine();
                        return Some(self.never_came_up(doubt.text(), doubt == Doubt::NeverEnters));
                    }
                    if !doubted {
                        notice(&format!("{}: {}, as it seems; waiting", self.engine, doubt.text()));
                        doubted = true;
                    }
                }
                // The whole life of a guest may be shorter than the way of its words through
                // the other thread: what it said is known when its control port has ended.
                Some(Event::EngineEnded(_)) => self.wait_for_last_words(),
                Some(Event::Signal(signal)) if signal != SIGWINCH => {
                    self.end_engine();
                    return Some(Outcome::Ended(code::SIGNAL + signal as u8));
                }
                Some(Event::Said(Word::Hello(micros))) => {
                    timings.entered(micros);
                    timings.guest(micros, "init runs");
                    if self.engine == Engine::Libkrun {
                        kvm_finding::forget();
                    }
                    return None;
                }
                Some(
                    Event::Signal(_) | Event::Said(_) | Event::Delivered | Event::ControlEnded,
                ) => {}
            }
        }
    }

    /// How it went if the engine ended with `status`, and its guest said nothing.
    fn ended_unheard(&self, status: ExitStatus) -> Outcome {
        if status.code() == Some(MACHINE_FAILED.into()) {
            let said = self.console.last_lines();
            let said = said.strip_prefix("rootfs-boot: ").unwrap_or(&said);
            return Outcome::Refused(said.to_owned());
        }
        let said = self.console.last_words();
        let kvm_failed = KVM_FAILED.iter().any(|word| said.contains(word));
        let why = format!("the machine did not come up ({status})");
        self.never_came_up(&why, kvm_failed)
    }

    fn never_came_up(&self, why: &str, kvm_runs_no_guest: bool) -> Outcome {
        let mut why = why.to_owned();
        if self.engine == Engine::Libkrun {
            why += ": /dev/kvm opens, but may not be able to run this guest (a nested one often is not)";
        }
        Outcome::NeverCameUp { why: self.explain(why), kvm_runs_no_guest }
    }
}
