//! What whoever starts a machine asked for, and what its bundle adds.

use std::ffi::OsString;
use std::num::NonZeroU8;
use std::os::fd::RawFd;
use std::path::PathBuf;
use std::time::Duration;

use bundle::boot::{Boot, Dns, HostEntry, Hostname, Memory, Publish, Signal, Span, Tmpfs, User};
use bundle::signature::Key;

use crate::engine::Engine;
use crate::notice::notice;

/// How long a bundle may put off the end of its machine; whoever starts it may say more.
const LONGEST_OF_BUNDLES: Duration = Duration::from_secs(10 * 60);

/// What whoever starts a machine asked for. What is not set is the bundle's
/// own default, the image's, or the program's.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The bundle's directory or its descriptor.
    pub bundle: PathBuf,
    /// The directory of the bundle, open already: then the path only names it.
    pub bundle_fd: Option<RawFd>,
    /// None is whichever works.
    pub engine: Option<Engine>,
    /// The file of libkrunfw; None for the one of `ROOTFS_BOOT_KRUNFW` or of the system.
    pub krunfw: Option<PathBuf>,
    /// Processors of the machine; None for the bundle's number, or one.
    pub cpus: Option<NonZeroU8>,
    /// Memory of the machine; None for the bundle's, or 1 GiB.
    pub memory: Option<Memory>,
    /// In place of the image's command.
    pub command: Vec<OsString>,
    /// In place of the image's entrypoint and command; an empty one is none.
    pub entrypoint: Option<OsString>,
    /// Later ones win.
    pub env: Vec<(OsString, OsString)>,
    /// Working directory of the command; None for the bundle's or the image's.
    pub workdir: Option<OsString>,
    /// Who runs the command; None for the bundle's user or the image's.
    pub user: Option<User>,
    /// Name of the machine; None for the bundle's, or that of the bundle's directory.
    pub hostname: Option<Hostname>,
    /// Lines of /etc/hosts that win over others.
    pub add_host: Vec<HostEntry>,
    /// Name servers in place of all others.
    pub dns: Vec<Dns>,
    /// Directories in memory, besides those of the bundle.
    pub tmpfs: Vec<Tmpfs>,
    /// Directories of the host that the guest sees.
    pub volumes: Vec<Volume>,
    /// Nothing but tmpfs and volumes can be written.
    pub read_only: bool,
    /// What is written is kept in memory.
    pub ephemeral: bool,
    /// The file that keeps what is written; None for a copy of the bundle's upper that
    /// goes with the machine.
    pub upper: Option<PathBuf>,
    /// Bytes.
    pub upper_size: Option<u64>,
    /// Whether the guest uses the host's network.
    pub net: bool,
    /// Ports of the host that lead to the guest; they imply `net`.
    pub publish: Vec<Publish>,
    /// How long the command may run; None for the bundle's time, or without a limit.
    pub timeout: Option<Span>,
    /// In place of the image's.
    pub stop_signal: Option<Signal>,
    /// Between the stop signal and the end; ten seconds if nothing is said.
    pub stop_timeout: Option<Span>,
    /// The file for what the guest's kernel says; None to keep no such record.
    pub console_log: Option<PathBuf>,
    /// Hash every file of the bundle before it is used.
    pub verify: bool,
    /// Memory for the metadata of each file system that is checked.
    pub metadata_bytes: Option<u64>,
    /// Public keys of which one must have signed the bundle.
    pub keys: Vec<Key>,
    /// Say how long each phase of the start took.
    pub timings: bool,
    /// Say what was left out.
    pub verbose: bool,
}

/// A directory of the host that the guest sees.
#[derive(Clone, Debug)]
pub struct Volume {
    /// Absolute.
    pub host: PathBuf,
    /// Path in the guest.
    pub guest: OsString,
    /// Whether the guest may only read it.
    pub read_only: bool,
}

impl Options {
    /// What was not asked for is as the bundle says.
    pub(super) fn with_defaults(&self, boot: &Boot) -> Self {
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
            notice("the bundle asks for the network; --net gives it");
        }
        all
    }
}

/// The stop timeout that a bundle gets which asks for `asked`.
fn as_bundles_may(asked: Span) -> Span {
    if asked.0 > LONGEST_OF_BUNDLES {
        notice(&format!(
            "the bundle asks for a stop timeout of {asked}; it gets {LONGEST_OF_BUNDLES:?}, and --stop-timeout gives more"
        ));
    }
    Span(asked.0.min(LONGEST_OF_BUNDLES))
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
