//! A bundle as a running machine.
//!
//! ```text
//! bundle ─► open, checked ─┐
//! options + image config ──┼─► Launch: three disks, ports, one command line ─► engine process (libkrun or qemu)
//! bundle's upper, cloned ──┘                                                        │
//!                         supervise: terminal, streams, signals, exit code ◄────────┘
//! ```
//!
//! The engine is a process of its own, this program started again, which
//! becomes the machine; whatever happens to it, the supervisor restores the
//! terminal and tells an exit code. Disks reach it as open descriptors.

pub mod args;
mod command;
mod disk;
pub mod engine;
#[cfg(feature = "libkrun")]
mod krun;
pub mod krunfw;
mod kvm_finding;
mod launch;
mod liveness;
mod machine;
mod policy;
mod qemu;
mod signals;
mod spec;
mod streams;
mod supervise;
mod terminal;
mod upper;
pub mod wire;

use std::ffi::OsString;
use std::num::NonZeroU8;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use bundle::boot::{Boot, Dns, HostEntry, Hostname, Memory, Publish, Signal, Span, Tmpfs, User};
use bundle::index::Index;
use bundle::open::OpenBundle;
use bundle::signature::{self, Key};
use bundle::sound::Depth;
use oci::Platform;

pub use self::engine::Engine;
use self::launch::Launch;
pub use self::machine::enter as enter_machine;
use self::signals::Signals;
pub use self::spec::ARGUMENT as MACHINE_ARGUMENT;
pub use self::wire::code::{MACHINE_FAILED, TIMED_OUT};

/// What whoever starts a machine asked for. What is not set is the bundle's
/// own default, the image's, or the program's.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The bundle's directory or its descriptor.
    pub bundle: PathBuf,
    /// None is whichever works.
    pub engine: Option<Engine>,
    pub krunfw: Option<PathBuf>,
    pub cpus: Option<NonZeroU8>,
    pub memory: Option<Memory>,
    /// In place of the image's command.
    pub command: Vec<OsString>,
    /// In place of the image's entrypoint and command; an empty one is none.
    pub entrypoint: Option<OsString>,
    /// Later ones win.
    pub env: Vec<(OsString, OsString)>,
    pub workdir: Option<OsString>,
    pub user: Option<User>,
    pub hostname: Option<Hostname>,
    /// Lines of /etc/hosts that win over others.
    pub add_host: Vec<HostEntry>,
    /// Name servers in place of all others.
    pub dns: Vec<Dns>,
    pub tmpfs: Vec<Tmpfs>,
    pub volumes: Vec<Volume>,
    /// Nothing but tmpfs and volumes can be written.
    pub read_only: bool,
    /// What is written is kept in memory.
    pub ephemeral: bool,
    pub upper: Option<PathBuf>,
    /// Bytes.
    pub upper_size: Option<u64>,
    pub net: bool,
    pub publish: Vec<Publish>,
    pub timeout: Option<Span>,
    /// In place of the image's.
    pub stop_signal: Option<Signal>,
    /// Between the stop signal and the end; ten seconds if nothing is said.
    pub stop_timeout: Option<Span>,
    pub console_log: Option<PathBuf>,
    /// Hash every file of the bundle before it is used.
    pub verify: bool,
    /// Public keys of which one must have signed the bundle.
    pub keys: Vec<Key>,
    pub timings: bool,
    /// Say what was left out.
    pub verbose: bool,
}

/// A directory of the host that the guest sees.
#[derive(Clone, Debug)]
pub struct Volume {
    /// Absolute.
    pub host: PathBuf,
    pub guest: OsString,
    pub read_only: bool,
}

impl Options {
    /// What was not asked for is as the bundle says.
    fn with_defaults(&self, boot: &Boot) -> Self {
        let mut all = self.clone();
        all.cpus = all.cpus.or(boot.cpus);
        all.memory = all.memory.or(boot.memory);
        all.workdir = all.workdir.or_else(|| boot.workdir.clone().map(Into::into));
        all.user = all.user.or_else(|| boot.user.clone());
        all.hostname = all.hostname.or_else(|| boot.hostname.clone());
        all.timeout = all.timeout.or(boot.timeout);
        all.stop_signal = all.stop_signal.or(boot.stop_signal);
        all.stop_timeout = all.stop_timeout.or_else(|| boot.stop_timeout.map(as_bundles_may));
        // Who says where writes go wants them.
        let undecided = all.upper.is_none() && !all.ephemeral && !all.read_only;
        all.read_only |= boot.read_only && undecided;
        all.ephemeral |= boot.ephemeral && undecided;
        // The first line that has a name is the one that counts.
        all.add_host.extend(boot.add_host.iter().cloned());
        if all.dns.is_empty() {
            all.dns.clone_from(&boot.dns);
        }
        all.tmpfs.splice(0..0, boot.tmpfs.iter().cloned());
        // A published port is of no use without a network.
        all.net |= !all.publish.is_empty();
        if all.net {
            all.publish.splice(0..0, boot.publish.iter().copied());
        } else if boot.net || !boot.publish.is_empty() {
            // Where a bundle comes from, this host's network need not be known.
            engine::notice("the bundle asks for the network; --net gives it");
        }
        all
    }
}

/// How long a bundle may put off the end of its machine; whoever starts it may say more.
const LONGEST_OF_BUNDLES: Duration = Duration::from_secs(10 * 60);

/// The stop timeout that a bundle gets which asks for `asked`.
fn as_bundles_may(asked: Span) -> Span {
    if asked.0 > LONGEST_OF_BUNDLES {
        engine::notice(&format!(
            "the bundle asks for a stop timeout of {asked}; it gets {LONGEST_OF_BUNDLES:?}, and --stop-timeout gives more"
        ));
    }
    Span(asked.0.min(LONGEST_OF_BUNDLES))
}

/// Bytes of the upper of a bundle that says nothing of it.
const USUAL_UPPER: u64 = 4 << 30;

/// What a machine takes of this host because its bundle says so, as far as it is more than
/// others take.
fn taken(asked: &Options, bundle: &OpenBundle) -> Vec<String> {
    let boot = &bundle.index.boot;
    let mut taken = Vec::new();
    if let (None, Some(cpus)) = (asked.cpus, boot.cpus.filter(|cpus| cpus.get() > 1)) {
        taken.push(format!("{cpus} processors (--cpus)"));
    }
    let memory = boot.memory.map_or(0, Memory::mib);
    if asked.memory.is_none() && memory > Memory::DEFAULT.mib() {
        taken.push(format!("{memory} MiB of memory (--memory)"));
    }
    let in_memory = asked.ephemeral || asked.read_only;
    if asked.upper_size.is_none() && !in_memory && bundle.upper.size > USUAL_UPPER {
        let mib = bundle.upper.size >> 20;
        taken.push(format!("up to {mib} MiB of disk (--ephemeral: of its memory)"));
    }
    taken
}

/// Runs the machine that `options` describe; returns the exit code to end with.
pub fn run(options: &Options, started: Instant) -> Result<u8> {
    let mut timings = Timings { on: options.timings, started, last: started };
    let signals = Signals::start()?;
    let bundle = open(options)?;
    suits_this_machine(&bundle.index)?;
    timings.host("bundle opened and checked");
    // From here on, the bundle's files are open and what its index says.

    if options.verbose || options.timings {
        for what in taken(options, &bundle) {
            engine::notice(&format!("the bundle asks for {what}"));
        }
    }
    let options = &options.with_defaults(&bundle.index.boot);
    let firmware = krunfw::find(options.krunfw.as_deref())?;
    let choice = engine::choose(options, &firmware)?;
    let mut engines = vec![choice.engine];
    if choice.may_fall_back {
        engines.push(Engine::Qemu);
    }
    for (i, engine) in engines.iter().enumerate() {
        let last = i + 1 == engines.len();
        let mut launch = Launch::prepare(options, &bundle, *engine, &firmware, &mut timings)?;
        launch.has_successor = !last;
        bundle.unchanged()?;
        // From here on, everything is decided; nothing was started.
        match supervise::supervise(launch, &signals, &mut timings)? {
            supervise::Outcome::Ended(code) => return Ok(code),
            supervise::Outcome::NeverCameUp { why, kvm_runs_no_guest } if !last => {
                engine::fall_back(&why, kvm_runs_no_guest, &firmware);
            }
            supervise::Outcome::NeverCameUp { why, .. } => bail!("{engine}: {why}"),
            supervise::Outcome::Refused(why) => bail!("{why}"),
        }
    }
    unreachable!("the last engine returns")
}

/// What [`run`] would launch, as JSON.
pub fn dry_run(options: &Options) -> Result<serde_json::Value> {
    let bundle = open(options)?;
    suits_this_machine(&bundle.index)?;
    let options = &options.with_defaults(&bundle.index.boot);
    // What is only shown needs no kernel to start with.
    let firmware = krunfw::find(options.krunfw.as_deref()).unwrap_or_default();
    let choice = engine::choose(options, &firmware)?;
    launch::describe(options, &bundle, choice.engine)
}

/// Opens the bundle, signed by those whom the options and this system ask for.
fn open(options: &Options) -> Result<OpenBundle> {
    let asked = (!options.keys.is_empty()).then(|| options.keys.clone());
    let asked: Vec<Vec<Key>> = asked.into_iter().chain(policy::keys()?).collect();
    // A signature covers the files only if they are what the index says.
    let all = options.verify || !asked.is_empty();
    let depth = if all { Depth::Full } else { Depth::Boot };
    let bundle = OpenBundle::open(&options.bundle, depth)?;
    let signed = || -> Result<()> {
        let signature = bundle.signature()?;
        asked.iter().try_for_each(|keys| signature::check(&bundle.json, signature.as_deref(), keys))
    };
    if !asked.is_empty() {
        signed().with_context(|| format!("bundle {}", options.bundle.display()))?;
    }
    Ok(bundle)
}

/// A guest runs on the architecture of its host.
fn suits_this_machine(index: &Index) -> Result<()> {
    let (wanted, host) = (&index.image.platform, Platform::host());
    ensure!(
        wanted.architecture == host.architecture && wanted.os == "linux",
        "the bundle is for {wanted}, this machine runs {host}"
    );
    Ok(())
}

/// Says how long each phase took, if that was asked for.
struct Timings {
    on: bool,
    started: Instant,
    last: Instant,
}

impl Timings {
    /// A phase of the host's side is over.
    fn host(&mut self, what: &str) {
        let now = Instant::now();
        let took = now - self.last;
        self.last = now;
        self.line("host", now - self.started, Some(took), what);
    }

    /// The guest's kernel started `micros` ago.
    fn entered(&mut self, micros: u64) {
        let now = Instant::now();
        // A guest may say anything.
        let entered = now.checked_sub(Duration::from_micros(micros)).unwrap_or(self.last);
        let took = entered.saturating_duration_since(self.last);
        self.line(
            "host",
            entered.saturating_duration_since(self.started),
            Some(took),
            "guest entered",
        );
        self.last = now;
    }

    /// The guest says what happened, `micros` after its kernel started.
    fn guest(&self, micros: u64, what: &str) {
        self.line("guest", Duration::from_micros(micros), None, what);
    }

    fn line(&self, side: &str, at: Duration, took: Option<Duration>, what: &str) {
        if self.on {
            let millis = |d: Duration| d.as_secs_f64() * 1e3;
            let took = took.map_or_else(String::new, |t| format!("+{:.1}", millis(t)));
            engine::notice(&format!("{side:<5} {:>8.1} ms {took:>8}  {what}", millis(at)));
        }
    }
}

/// The directory of a bundle as a host name, if it can be one.
fn hostname_of(bundle: &OpenBundle) -> Result<Hostname> {
    let dir = std::path::absolute(&bundle.dir).context("the bundle's directory")?;
    let name = dir.file_name().unwrap_or_default().to_string_lossy();
    let plain = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
    let name: String = name.chars().map(plain).take(63).collect();
    let name = name.trim_matches('-');
    Ok(if name.is_empty() { "rootfs" } else { name }.parse()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bundle_puts_its_end_off_only_so_long() {
        let boot = |time: &str| Boot { stop_timeout: time.parse().ok(), ..Boot::default() };
        let with = |options: &Options, time| options.with_defaults(&boot(time)).stop_timeout;
        let none = Options::default();
        assert_eq!(with(&none, "1000h"), Some(Span(LONGEST_OF_BUNDLES)));
        assert_eq!(with(&none, "90s"), Some(Span(Duration::from_secs(90))));
        let asked = Options { stop_timeout: "2h".parse().ok(), ..none };
        assert_eq!(with(&asked, "1000h"), "2h".parse().ok());
    }
}
