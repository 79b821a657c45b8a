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

/// Headings of the options.
const MACHINE: &str = "Machine";
const COMMAND: &str = "Command";
const NETWORK: &str = "Network";
const FILES: &str = "Files";
const ENDING: &str = "Ending";
const CHECKS: &str = "Checks";
const DIAGNOSTICS: &str = "Diagnostics";

/// Boots a bundle in a microVM and becomes the process inside
///
/// The command has a Linux kernel of its own; its streams, its terminal and the signals sent to
/// this process are passed on. What it writes is gone when the machine ends, unless --upper says
/// where to keep it.
///
/// Exit codes: those of the command; 128+N if signal N ended it; 124 if --timeout did; 125 if the
/// machine failed; 126 if the command cannot be executed; 127 if it does not exist.
#[derive(Parser)]
#[command(
    name = "rootfs-boot",
    version,
    max_term_width = 100,
    after_help = "\
Examples:
  rootfs-boot app
  rootfs-boot --memory 2g --cpus 2 app -- python3 -V
  rootfs-boot --upper app.upper --net -p 8080:80 app
  rootfs-boot --key release.pub --ephemeral --timeout 30s app
  rootfs-boot -v ./src:/src:ro --entrypoint '' app -- sh -c 'ls /src'"
)]
#[derive(Debug)]
pub struct Cli {
    /// The bundle: its directory, or the bundle.vmdk in it
    pub bundle: PathBuf,
    /// Command to run instead of the image's; the image's entrypoint stays. Options of this
    /// program come before it: what follows belongs to the command
    #[arg(trailing_var_arg = true, value_name = "COMMAND")]
    pub command: Vec<OsString>,

    /// Program that runs the machine
    #[arg(long, value_enum, default_value_t = EngineArg::Auto, env = engine::VARIABLE, help_heading = MACHINE)]
    pub engine: EngineArg,
    /// Library with the guest's kernel [default: ROOTFS_BOOT_KRUNFW, otherwise the system's]
    #[arg(long, value_name = "FILE", help_heading = MACHINE)]
    pub krunfw: Option<PathBuf>,
    /// Number of processors [default: 1]
    #[arg(long, value_name = "N", help_heading = MACHINE)]
    pub cpus: Option<NonZeroU8>,
    /// Size of the memory, at least 80m [default: 1g]
    #[arg(short, long, value_name = "SIZE", value_parser = memory, help_heading = MACHINE)]
    pub memory: Option<Memory>,

    /// Set an environment variable; NAME alone takes the value it has here
    #[arg(short, long, value_name = "NAME[=VALUE]", help_heading = COMMAND)]
    pub env: Vec<OsString>,
    /// Read environment variables from FILE, one on each line
    #[arg(long, value_name = "FILE", help_heading = COMMAND)]
    pub env_file: Vec<PathBuf>,
    /// Working directory of the command
    #[arg(short, long, value_name = "DIR", help_heading = COMMAND)]
    pub workdir: Option<OsString>,
    /// User who runs the command, and group; names or numbers
    #[arg(short, long, value_name = "USER[:GROUP]", help_heading = COMMAND)]
    pub user: Option<User>,
    /// Program to run instead of the image's entrypoint and command; '' runs COMMAND alone
    #[arg(long, value_name = "PROGRAM", help_heading = COMMAND)]
    pub entrypoint: Option<OsString>,

    /// Let the guest use this host's network: its programs connect and listen as if they ran here
    /// (libkrun)
    #[arg(long, help_heading = NETWORK)]
    pub net: bool,
    /// Forward port HOST of this host to port GUEST of the guest; implies --net (libkrun)
    #[arg(short, long, value_name = "HOST:GUEST", help_heading = NETWORK)]
    pub publish: Vec<Publish>,
    /// Name of the machine [default: that of the bundle's directory]
    #[arg(long, value_name = "NAME", help_heading = NETWORK)]
    pub hostname: Option<Hostname>,
    /// Add a line to /etc/hosts; it wins over those of the image
    #[arg(long, value_name = "NAME:IP", help_heading = NETWORK)]
    pub add_host: Vec<HostEntry>,
    /// Use this name server, instead of all others
    #[arg(long, value_name = "IP", help_heading = NETWORK)]
    pub dns: Vec<Dns>,

    /// Show a directory of this host in the guest (libkrun)
    #[arg(short, long, value_name = "HOST:GUEST[:ro]", help_heading = FILES)]
    pub volume: Vec<OsString>,
    /// Keep a directory in memory. By default /tmp, /run and /dev/shm are, where the image has no
    /// files there; 'none' turns that off
    #[arg(long, value_name = "PATH[:SIZE]", help_heading = FILES)]
    pub tmpfs: Vec<Tmpfs>,
    /// Let nothing be written except to tmpfs and volumes
    #[arg(long, conflicts_with_all = ["upper", "upper_size"], help_heading = FILES)]
    pub read_only: bool,
    /// Keep what is written in memory, and use no disk for it
    #[arg(long, conflicts_with_all = ["upper", "upper_size", "read_only"], help_heading = FILES)]
    pub ephemeral: bool,
    /// Keep what is written in FILE; a later machine with the same FILE finds it there
    #[arg(long, value_name = "FILE", help_heading = FILES)]
    pub upper: Option<PathBuf>,
    /// Space for what is written [default: the bundle's]
    #[arg(long, value_name = "SIZE", value_parser = size, help_heading = FILES)]
    pub upper_size: Option<u64>,

    /// End the command after this time (10, 10s, 1m30s); the exit code is 124
    #[arg(long, value_name = "TIME", help_heading = ENDING)]
    pub timeout: Option<Span>,
    /// Signal that asks the command to end [default: the image's, otherwise SIGTERM]
    #[arg(long, value_name = "SIGNAL", help_heading = ENDING)]
    pub stop_signal: Option<Signal>,
    /// Time between the stop signal and the end [default: 10s]
    #[arg(long, value_name = "TIME", help_heading = ENDING)]
    pub stop_timeout: Option<Span>,

    /// Check the hash of every file of the bundle before the start, not only of fsmeta and upper
    #[arg(long, help_heading = CHECKS)]
    pub verify: bool,
    /// Refuse a bundle that this public key (of minisign) did not sign; if given several times,
    /// one of the keys must have signed it. Implies --verify
    #[arg(long, value_name = "FILE", help_heading = CHECKS)]
    pub key: Vec<PathBuf>,
    /// Memory for the metadata of each file system that is checked [default: 1280MiB]
    #[arg(long, value_name = "SIZE", value_parser = size, help_heading = CHECKS)]
    pub max_metadata_bytes: Option<u64>,

    /// Print what was left out, and why
    #[arg(long, help_heading = DIAGNOSTICS)]
    pub verbose: bool,
    /// Print how long each phase took
    #[arg(long, help_heading = DIAGNOSTICS)]
    pub timings: bool,
    /// Write the messages of the guest's kernel to FILE
    #[arg(long, value_name = "FILE", help_heading = DIAGNOSTICS)]
    pub console_log: Option<PathBuf>,
    /// Print what would be started, as JSON, and start nothing
    #[arg(long, help_heading = DIAGNOSTICS)]
    pub dry_run: bool,
    /// The bundle's directory, which this process was started with, open as a descriptor:
    /// then its path only names it
    #[arg(long, value_name = "FD", hide = true)]
    pub bundle_fd: Option<RawFd>,
}

/// What `--engine` takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum EngineArg {
    /// libkrun if KVM works here, otherwise qemu
    Auto,
    /// A microVM with KVM
    Libkrun,
    /// Software emulation, which works anywhere and is slower
    Qemu,
}

fn size(text: &str) -> Result<u64, BadSize> {
    text.parse().map(|ByteSize(bytes)| bytes)
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
            metadata_bytes: self.max_metadata_bytes,
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
            let found = given.canonicalize().with_context(|| format!("--volume {shown}"))?;
            ensure!(found.is_dir(), "--volume {shown}: {} is not a directory", given.display());
            Ok(Volume { host: found, guest: OsString::from_vec(guest.to_vec()), read_only })
        }
        _ => bail!("--volume {shown}: write HOST:GUEST or HOST:GUEST:ro, GUEST an absolute path"),
    }
}
