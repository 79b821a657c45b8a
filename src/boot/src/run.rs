//! From options and a bundle to an exit code.

use std::time::Instant;

use anyhow::{Context as _, Result, bail, ensure};
use bundle::boot::Memory;
use bundle::index::Index;
use bundle::open::OpenBundle;
use bundle::opened::Place;
use bundle::signature::{self, Key};
use bundle::sound::Depth;
use oci::Platform;

use crate::engine::Engine;
use crate::launch::{self, Launch};
use crate::notice::notice;
use crate::options::Options;
use crate::signals::Signals;
use crate::timings::Timings;
use crate::{choose, krunfw, policy, supervise};

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
///
/// # Errors
/// When the bundle is not sound, not signed as asked or for another architecture, or the
/// machine cannot be prepared or never comes up.
pub fn run(options: &Options, started: Instant) -> Result<u8> {
    let mut timings = Timings::new(options.timings, started);
    let signals = Signals::start()?;
    let bundle = open(options)?;
    suits_this_machine(&bundle.index)?;
    timings.host("bundle opened and checked");
    // From here on, the bundle's files are open and what its index says.

    if options.verbose || options.timings {
        for what in taken(options, &bundle) {
            notice(&format!("the bundle asks for {what}"));
        }
    }
    let options = &options.with_defaults(&bundle.index.boot);
    let kernel = krunfw::find(options.krunfw.as_deref())?;
    let choice = choose::choose(options, &kernel)?;
    let mut engines = vec![choice.engine];
    if choice.may_fall_back {
        engines.push(Engine::Qemu);
    }
    for (i, engine) in engines.iter().enumerate() {
        let last = i + 1 == engines.len();
        let mut launch = Launch::prepare(options, &bundle, *engine, &kernel, &mut timings)?;
        launch.has_successor = !last;
        bundle.unchanged()?;
        // From here on, everything is decided; nothing was started.
        match supervise::supervise(launch, &signals, &mut timings)? {
            supervise::Outcome::Ended(code) => return Ok(code),
            supervise::Outcome::NeverCameUp { why, kvm_runs_no_guest } if !last => {
                choose::fall_back(&why, kvm_runs_no_guest, &kernel);
            }
            supervise::Outcome::NeverCameUp { why, .. } => bail!("{engine}: {why}"),
            supervise::Outcome::Refused(why) => bail!("{why}"),
        }
    }
    unreachable!("the last engine returns")
}

/// What [`run`] would launch, as JSON.
///
/// # Errors
/// When the bundle is not sound, not signed as asked or for another architecture, or no
/// engine can run the machine as asked.
pub fn dry_run(options: &Options) -> Result<serde_json::Value> {
    let bundle = open(options)?;
    suits_this_machine(&bundle.index)?;
    let options = &options.with_defaults(&bundle.index.boot);
    // What is only shown needs no kernel to start with.
    let kernel = krunfw::find(options.krunfw.as_deref()).unwrap_or_default();
    let choice = choose::choose(options, &kernel)?;
    launch::describe(options, &bundle, choice.engine)
}

/// Opens the bundle, signed by those whom the options and this system ask for.
fn open(options: &Options) -> Result<OpenBundle> {
    let asked = (!options.keys.is_empty()).then(|| options.keys.clone());
    let asked: Vec<Vec<Key>> = asked.into_iter().chain(policy::keys()?).collect();
    // A signature covers the files only if they are what the index says.
    let all = options.verify || !asked.is_empty();
    let depth = if all { Depth::Full } else { Depth::Boot };
    let place = match options.bundle_fd {
        None => Place::find(&options.bundle)?,
        Some(fd) => Place::given(options.bundle.clone(), fd)?,
    };
    let place = match options.metadata_bytes {
        None => place,
        Some(most) => place.within(most),
    };
    let bundle = OpenBundle::open_found(place, depth)?;
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
