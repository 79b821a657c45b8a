//! Whether a machine whose guest has not said a word yet gets anywhere, by what
//! the host's kernel counts for the engine's process.
//!
//! A clock on the wall cannot tell a broken machine from a busy host. What
//! /proc/PID/task/TID/stat says can, and every user may read it of processes of
//! their own, without debugfs and without an ioctl of KVM's.

use std::fs;
use std::path::Path;
use std::time::Duration;

use fsimage::io::dir;
use rustix::process::Pid;

use super::engine::Engine;

/// How long the supervisor lets pass between two looks.
pub(crate) const INTERVAL: Duration = Duration::from_millis(100);
/// The unit of times in /proc: USER_HZ is 100 on x86-64 and on aarch64.
const TICKS_PER_SECOND: u64 = 100;
/// How the names of libkrun's threads begin that call KVM_RUN.
const VCPU: &str = "fc_vcpu ";

/// Ticks after which a vCPU must have run some of the guest's own code. A KVM that
/// works brings a guest up in a tenth of them. In an emulated machine on a host with
/// ten programs for each processor, the vCPU had taken 31 ticks before the guest was
/// seen to run, and 85 when it had run for two.
const ENOUGH_TO_ENTER: u64 = 3 * TICKS_PER_SECOND;
/// The part of a vCPU's time that is the guest's own in a KVM that works, at the very
/// least: one in 28 in that emulated machine at first, and none where KVM emulates.
const GUEST_SHARE: u64 = 200;
/// Looks in a row, a minute of them, at a process all of whose threads sleep.
const STILL: u32 = 600;
/// Ticks without a word when there is something else to try, and when there is not:
/// a thousand times what a guest needs.
const ENDLESS_WITH_KVM: u64 = 120 * TICKS_PER_SECOND;
const ENDLESS_IN_SOFTWARE: u64 = 1800 * TICKS_PER_SECOND;

/// What the kernel has counted for a process so far, in ticks.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sample {
    /// Processor time of the whole process.
    cpu: u64,
    /// That of its vCPUs, and the part in which they ran the guest's code.
    vcpu: u64,
    guest: u64,
    /// No thread runs, waits for a processor, or waits for a disk.
    asleep: bool,
}

/// Why a machine is not expected to come up any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Doubt {
    /// KVM takes time and never enters the guest: it emulates its instructions
    /// one by one, until it meets one that it does not know.
    NeverEnters,
    /// Nothing at all happens.
    Still,
    /// The guest runs on and on.
    Endless,
}

impl Doubt {
    pub(crate) fn text(self) -> &'static str {
        match self {
            Self::NeverEnters => "KVM runs none of the guest's code",
            Self::Still => "the machine stands still and its guest never said a word",
            Self::Endless => "the guest computes without end and never said a word",
        }
    }
}

/// What was seen of one engine's process so far.
pub(crate) struct Liveness {
    engine: Engine,
    cpu: u64,
    still: u32,
}

impl Liveness {
    pub(crate) fn new(engine: Engine) -> Self {
        Self { engine, cpu: 0, still: 0 }
    }

    /// Judges what is counted by now. It is called every [`INTERVAL`] or, where this
    /// program has to wait for a processor itself, later: nothing here depends on
    /// how much later.
    pub(crate) fn judge(&mut self, now: Sample) -> Option<Doubt> {
        // A tick may be what an idle engine needs for its timers.
        let idle = now.asleep && now.cpu <= self.cpu + 1;
        self.still = if idle { self.still + 1 } else { 0 };
        self.cpu = now.cpu;
        let endless = match self.engine {
            Engine::Libkrun => ENDLESS_WITH_KVM,
            Engine::Qemu => ENDLESS_IN_SOFTWARE,
        };
        // qemu has no thread that is a vCPU of KVM's, and so never this doubt.
        if now.vcpu >= ENOUGH_TO_ENTER && now.guest * GUEST_SHARE < now.vcpu {
            Some(Doubt::NeverEnters)
        } else if self.still >= STILL {
            Some(Doubt::Still)
        } else if now.cpu >= endless {
            Some(Doubt::Endless)
        } else {
            None
        }
    }
}

impl Sample {
    /// What is counted for process `pid`; none if it is gone or /proc says nothing.
    pub(crate) fn of(pid: Pid) -> Option<Self> {
        let dir = format!("/proc/{}", pid.as_raw_pid());
        let whole = fs::read_to_string(format!("{dir}/stat")).ok()?;
        let mut sample = Self { cpu: Thread::parse(&whole)?.cpu, asleep: true, ..Self::default() };
        let threads = Path::new(&dir).join("task");
        for thread in dir::names(&threads).ok()? {
            // A thread may end while its siblings are looked at.
            let Ok(stat) = fs::read_to_string(threads.join(thread).join("stat")) else { continue };
            sample.add(&Thread::parse(&stat)?);
        }
        Some(sample)
    }

    fn add(&mut self, thread: &Thread<'_>) {
        self.asleep &= thread.state == "S";
        if thread.name.starts_with(VCPU) {
            self.vcpu += thread.cpu;
            self.guest += thread.guest;
        }
    }
}

/// A line of /proc/PID/stat or of one of its threads, see proc_pid_stat(5).
struct Thread<'a> {
    name: &'a str,
    state: &'a str,
    cpu: u64,
    guest: u64,
}

impl<'a> Thread<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        // A name may hold anything, parentheses and spaces too.
        let (head, fields) = line.rsplit_once(')')?;
        let (_, name) = head.split_once('(')?;
        // The first behind the name is field 3.
        let fields: Vec<&str> = fields.split_ascii_whitespace().collect();
        let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
        let (user, system) = (number(14)?, number(15)?);
        Some(Self { name, state: fields.first()?, cpu: user + system, guest: number(43)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(cpu: u64, vcpu: u64, guest: u64, asleep: bool) -> Sample {
        Sample { cpu, vcpu, guest, asleep }
    }

    fn first_doubt(
        engine: Engine,
        samples: impl Iterator<Item = Sample>,
    ) -> Option<(usize, Doubt)> {
        let mut liveness = Liveness::new(engine);
        samples.enumerate().find_map(|(i, s)| liveness.judge(s).map(|doubt| (i, doubt)))
    }

    /// Ticks of a vCPU and of its guest as counted in an emulated machine whose KVM
    /// works, on a host of two processors that twenty programs shared. It took ten
    /// seconds to come up.
    const NESTED: [(u64, u64); 12] = [
        (31, 0),
        (85, 2),
        (119, 4),
        (171, 7),
        (198, 10),
        (214, 14),
        (234, 22),
        (257, 35),
        (270, 44),
        (289, 57),
        (319, 68),
        (439, 134),
    ];

    #[test]
    fn a_slow_machine_whose_kvm_works_is_waited_for() {
        // And three times as slow: it cannot tell that its host does not run it.
        for slower in [1, 3] {
            let slow = NESTED.iter().flat_map(|(vcpu, guest)| {
                let now = sample(vcpu * slower + 60, vcpu * slower, guest * slower, false);
                std::iter::repeat_n(now, 100)
            });
            assert_eq!(first_doubt(Engine::Libkrun, slow), None);
        }
    }

    #[test]
    fn a_machine_that_gets_no_processor_is_waited_for() {
        // An hour in which another thousand programs run.
        let starved = |vcpu| std::iter::repeat_n(sample(5, vcpu, 0, false), 36_000);
        assert_eq!(first_doubt(Engine::Libkrun, starved(5)), None);
        assert_eq!(first_doubt(Engine::Qemu, starved(0)), None);
    }

    #[test]
    fn a_kvm_that_emulates_is_told_by_its_own_time_alone() {
        // As counted where KVM opens and runs nothing: 1533 ticks, all of them the
        // system's, until it failed. One that gets a hundredth of a processor fails later.
        let broken =
            |ticks: u64| (0..1533 / ticks).map(move |i| sample(i * ticks + 1, i * ticks, 0, false));
        assert_eq!(first_doubt(Engine::Libkrun, broken(10)), Some((30, Doubt::NeverEnters)));
        assert_eq!(first_doubt(Engine::Libkrun, broken(1)), Some((300, Doubt::NeverEnters)));
    }

    #[test]
    fn a_machine_that_sleeps_for_good_is_given_up() {
        let mut still = vec![sample(30, 20, 15, true); 601];
        assert_eq!(first_doubt(Engine::Libkrun, still.iter().copied()), Some((600, Doubt::Still)));
        // Whatever happens in between is a sign of life.
        still[300].asleep = false;
        assert_eq!(first_doubt(Engine::Libkrun, still.iter().copied()), None);
    }

    #[test]
    fn a_guest_that_loops_is_given_up_by_the_time_it_took() {
        let looping =
            |engine| first_doubt(engine, (0..).map(|i| sample(i * 10, i * 9, i * 8, false)));
        assert_eq!(looping(Engine::Libkrun), Some((1200, Doubt::Endless)));
        assert_eq!(looping(Engine::Qemu), Some((18_000, Doubt::Endless)));
    }

    #[test]
    fn fields_are_counted_from_behind_the_name() {
        // Fields 14, 15 and 43 of proc_pid_stat(5) are user, system and guest time.
        let numbers: Vec<String> = (4..=52).map(|n| n.to_string()).collect();
        let line = format!("7 (fc_vcpu 0) odd) R {}", numbers.join(" "));
        let thread = Thread::parse(&line).unwrap();
        assert_eq!((thread.name, thread.state), ("fc_vcpu 0) odd", "R"));
        assert_eq!((thread.cpu, thread.guest), (14 + 15, 43));
        assert!(Thread::parse("7 (short) S 1 2").is_none());
        let own = Sample::of(rustix::process::getpid()).unwrap();
        assert!(!own.asleep, "the thread that asks runs");
    }
}
