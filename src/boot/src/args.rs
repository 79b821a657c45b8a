//! The command line of `rootfs-boot`, which `rootfs-compile run` takes too.

use std::ffi::OsString;
use std::num::NonZeroU8;
use std::os::fd::RawFd;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use bundle::boot::{
    BadSize, ByteSize, Dns, HostEntry, Hostname, Memory, Publish, Signal, Span, Tmpfs, User,
};
use bundle::signature::Key;
use clap::{Parser, ValueEnum};
use fsimage::io::regular;

use super::engine;
use crate::engine::Engine;
use crate::options::{Options, Volume};

/// Boots a bundle in a microVM and becomes the process inside.
///
/// Exit codes: the command's; 128+N if signal N ended it; 124 timeout; 125 the machine failed;
/// 126 the command cannot be executed; 127 it is not there.
#[derive(Parser)]
#[command(name = "rootfs-boot", version, max_term_width = 100)]
pub struct Cli {
    /// The bundle: its bundle.vmdk, or its directory
    pub bundle: PathBuf,
    /// In place of the image's command; its entrypoint stays. Options of this program come
    /// before it, what is behind it belongs to it
    #[arg(trailing_var_arg = true, value_name = "COMMAND")]
    pub command: Vec<OsString>,

    /// What runs the machine
    #[arg(long, value_enum, default_value_t = EngineArg::Auto, env = engine::VARIABLE)]
    pub engine: EngineArg,
    /// The guest's kernel [default: ROOTFS_BOOT_KRUNFW, else the system's]
    #[arg(long, value_name = "FILE")]
    pub krunfw: Option<PathBuf>,
    /// Processors of the machine [default: 1]
    #[arg(long, value_name = "N")]
    pub cpus: Option<NonZeroU8>,
    /// Memory of the machine, 80m or more [default: 1g]
    #[arg(short, long, value_name = "SIZE", value_parser = memory)]
    pub memory: Option<Memory>,

    /// Set a variable; a NAME alone is passed on from here
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    pub env: Vec<OsString>,
    /// Read variables from a file, a line each
    #[arg(long, value_name = "FILE")]
    pub env_file: Vec<PathBuf>,
    /// Working directory of the command
    #[arg(short, long, value_name = "DIR")]
    pub workdir: Option<OsString>,
    /// Who runs it, by name or number
    #[arg(short, long, value_name = "USER[:GROUP]")]
    pub user: Option<User>,
    /// In place of the image's entrypoint and command; '' for none
    #[arg(long, value_name = "PROGRAM")]
    pub entrypoint: Option<OsString>,
    /// Name of the machine [default: the bundle's directory]
    #[arg(long, value_name = "NAME")]
    pub hostname: Option<Hostname>,
    /// A line of /etc/hosts; it wins over those of the image
    #[arg(long, value_name = "NAME:IP")]
    pub add_host: Vec<HostEntry>,
    /// A name server in /etc/resolv.conf, in place of all others
    #[arg(long, value_name = "IP")]
    pub dns: Vec<Dns>,

    /// Memory as a directory; /tmp, /run and /dev/shm are, where the image has nothing there.
    /// 'none' for none of those
    #[arg(long, value_name = "PATH[:SIZE]")]
    pub tmpfs: Vec<Tmpfs>,
    /// A directory of this host in the guest (libkrun)
    #[arg(short, long, value_name = "HOST:GUEST[:ro]")]
    pub volume: Vec<OsString>,
    /// Nothing can be written but tmpfs and volumes
    #[arg(long, conflicts_with_all = ["upper", "upper_size"])]
    pub read_only: bool,
    /// Keep what is written in memory, and make no copy of the upper
    #[arg(long, conflicts_with_all = ["upper", "upper_size", "read_only"])]
    pub ephemeral: bool,
    /// Keep what is written in FILE, and begin with what it holds
    #[arg(long, value_name = "FILE")]
    pub upper: Option<PathBuf>,
    /// Room for what is written [default: the bundle's]
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub upper_size: Option<u64>,

    /// Let the guest use this host's network: its programs connect, and listen, as if they ran
    /// here (libkrun)
    #[arg(long)]
    pub net: bool,
    /// What listens on port GUEST of the guest does so on port HOST here; implies --net (libkrun)
    #[arg(short, long, value_name = "HOST:GUEST")]
    pub publish: Vec<Publish>,

    /// End the command when it has run for this time (10, 10s, 1m30s), with exit code 124
    #[arg(long, value_name = "TIME")]
    pub timeout: Option<Span>,
    /// What asks the command to end [default: the image's, else SIGTERM]
    #[arg(long, value_name = "SIGNAL")]
    pub stop_signal: Option<Signal>,
    /// How long the command has between its stop signal and the end [default: 10s]
    #[arg(long, value_name = "TIME")]
    pub stop_timeout: Option<Span>,
    /// Write down what the guest's kernel says
    #[arg(long, value_name = "FILE")]
    pub console_log: Option<PathBuf>,
    /// Hash every file of the bundle first, not only fsmeta and upper
    #[arg(long)]
    pub verify: bool,
    /// Refuse a bundle that is not signed with this public key of minisign, or with one of
    /// several; hashes every file of the bundle
    #[arg(long, value_name = "FILE")]
    pub key: Vec<PathBuf>,
    /// Say what was left out, and why
    #[arg(long)]
    pub verbose: bool,
    /// Say how long each phase took
    #[arg(long)]
    pub timings: bool,
    /// Print what would be launched, as JSON
    #[arg(long)]
    pub dry_run: bool,
    /// The bundle's directory, which this process was started with, open as a descriptor:
    /// then its path only names it
    #[arg(long, value_name = "FD", hide = true)]
    pub bundle_fd: Option<RawFd>,
}

/// What `--engine` takes.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum EngineArg {
    /// libkrun where KVM works, else qemu
    Auto,
    /// On KVM, in this process
    Libkrun,
    /// In software emulation, anywhere
    Qemu,
}

fn size(text: &str) -> Result<u64, BadSize> {
    text.parse::<ByteSize>().map(|size| size.0)
}

fn memory(text: &str) -> Result<Memory> {
    Ok(Memory::try_from(text.parse::<ByteSize>()?)?)
}

impl Cli {
    /// What all of it means.
    ///
    /// # Errors
    /// When a file of variables or a public key cannot be read, a variable or a volume is
    /// malformed, or the directory of a volume is not there.
    pub fn options(self) -> Result<Options> {
        let mut env = Vec::new();
        for path in &self.env_file {
            env.extend(env_file(path).with_context(|| path.display().to_string())?);
        }
        for text in &self.env {
            env.extend(variable(text.as_bytes())?);
        }
        let volumes = self.volume.iter().map(|text| volume(text.as_bytes()));
        Ok(Options {
            bundle: self.bundle,
            bundle_fd: self.bundle_fd,
            engine: match self.engine {
                EngineArg::Auto => None,
                EngineArg::Libkrun => Some(Engine::Libkrun),
                EngineArg::Qemu => Some(Engine::Qemu),
            },
            krunfw: self.krunfw,
            cpus: self.cpus,
            memory: self.memory,
            command: self.command,
            entrypoint: self.entrypoint,
            env,
            workdir: self.workdir,
            user: self.user,
            hostname: self.hostname,
            add_host: self.add_host,
            dns: self.dns,
            tmpfs: self.tmpfs,
            volumes: volumes.collect::<Result<_>>()?,
            read_only: self.read_only,
            ephemeral: self.ephemeral,
            upper: self.upper,
            upper_size: self.upper_size,
            net: self.net,
            publish: self.publish,
            timeout: self.timeout,
            stop_signal: self.stop_signal,
            stop_timeout: self.stop_timeout,
            console_log: self.console_log,
            verify: self.verify,
            keys: self.key.iter().map(|path| Key::load(path)).collect::<Result<_>>()?,
            timings: self.timings,
            verbose: self.verbose,
        })
    }
}

/// `NAME=VALUE`, or a `NAME` whose value is this program's; none if it has none.
fn variable(text: &[u8]) -> Result<Option<(OsString, OsString)>> {
    let (name, value) = match text.iter().position(|b| *b == b'=') {
        Some(at) => (&text[..at], Some(OsString::from_vec(text[at + 1..].to_vec()))),
        None => (text, None),
    };
    bundle::boot::variable(name).with_context(|| format!("--env {}", text.escape_ascii()))?;
    let name = OsString::from_vec(name.to_vec());
    let value = value.or_else(|| std::env::var_os(&name));
    Ok(value.map(|value| (name, value)))
}

/// Bytes of a file of variables; what the guest takes is less.
const MAX_ENV_FILE: u64 = 16 << 20;

/// A variable on each line; empty lines and those that begin with # are none.
fn env_file(path: &Path) -> Result<Vec<(OsString, OsString)>> {
    let text = regular::read_named(path, MAX_ENV_FILE)?;
    let lines = text.split(|b| *b == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    let lines = lines.filter(|line| !line.trim_ascii().is_empty() && !line.starts_with(b"#"));
    Ok(lines.map(variable).collect::<Result<Vec<_>>>()?.into_iter().flatten().collect())
}

fn volume(text: &[u8]) -> Result<Volume> {
    let mut parts: Vec<&[u8]> = text.split(|b| *b == b':').collect();
    let read_only = match parts.last() {
        Some(&b"ro") => true,
        Some(&b"rw") => false,
        _ => {
            parts.push(b"rw");
            false
        }
    };
    let shown = text.escape_ascii();
    match parts[..] {
        [host, guest, _] if !host.is_empty() && guest.len() > 1 && guest[0] == b'/' => {
            let given = PathBuf::from(OsString::from_vec(host.to_vec()));
            let host = given.canonicalize().with_context(|| format!("--volume {shown}"))?;
            ensure!(host.is_dir(), "--volume {shown}: {} is not a directory", given.display());
            Ok(Volume { host, guest: OsString::from_vec(guest.to_vec()), read_only })
        }
        _ => bail!("--volume {shown}: write HOST:GUEST or HOST:GUEST:ro, GUEST an absolute path"),
    }
}
