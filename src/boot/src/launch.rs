//! A machine, decided to the last descriptor.

use std::ffi::OsString;
use std::fs::File;
use std::io::Write as _;
use std::num::NonZeroU8;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command as Process, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use bundle::boot::Memory;
use bundle::open::OpenBundle;
use rustix::io::FdFlags;
use serde_json::{Value, json};

use super::command::{Command, Records, TmpfsMount};
use super::disk;
use super::engine::Engine;
use super::spec::{ARGUMENT, Disk, Format, Port, Share, Spec};
use super::terminal::Terminal;
use super::upper::Upper;
use super::wire::{self, key, port};
use crate::options::Options;
use crate::system::{inherited_memory_file, this_program};
use crate::timings::Timings;

/// How long a command has between its stop signal and the end.
const DEFAULT_GRACE: Duration = Duration::from_secs(10);

/// A machine that is about to start, and the supervisor's ends of it.
pub(crate) struct Launch {
    pub spec: Spec,
    /// The engine's ends; closed here once it runs.
    theirs: Vec<OwnedFd>,
    pub control: UnixStream,
    pub stdin: Option<UnixStream>,
    pub stdout: Option<UnixStream>,
    pub stderr: Option<UnixStream>,
    pub tty: Option<UnixStream>,
    pub console: File,
    pub console_log: Option<File>,
    pub terminal: Terminal,
    pub stop_signal: i32,
    pub timeout: Option<Duration>,
    pub grace: Duration,
    /// Whether notes of the guest's init are shown.
    pub verbose: bool,
    /// Whether another engine is tried if this one never comes up.
    pub has_successor: bool,
}

/// Which part of a machine's memory the metadata of its image may fill: one in so many. The guest
/// reads it ahead and keeps it there, as it would otherwise ask for it block by block.
const MEMORY_PER_METADATA: u64 = 64;

impl Launch {
    /// Makes everything that `engine` needs: disks, ports, records.
    pub(crate) fn prepare(
        options: &Options,
        bundle: &OpenBundle,
        engine: Engine,
        krunfw: &Path,
        timings: &mut Timings,
    ) -> Result<Self> {
        let terminal = Terminal::now();
        let Plan { command, mut records, shares } = Plan::of(options, bundle, engine, &terminal)?;
        let upper = match (&options.upper, command.in_memory) {
            (_, true) => Upper::shared(bundle)?,
            (Some(path), false) => Upper::kept(bundle, path, options.upper_size)?,
            (None, false) => Upper::private(bundle, options.upper_size)?,
        };
        timings.host("upper ready");

        if upper.grow {
            records.add(key::GROW, "1")?;
        }
        let boot = disk::boot_disk(records.bytes())?;
        let rootfs = disk::private_descriptor(&bundle.disk)?;
        timings.host("boot disk made");

        let mut theirs: Vec<OwnedFd> = Vec::new();
        let mut disk = |serial: &str, file: File, format, read_only, throwaway| {
            let fd = file.as_raw_fd();
            theirs.push(file.into());
            Disk { serial: serial.to_owned(), fd, format, read_only, throwaway }
        };
        let disks = vec![
            disk(wire::disk::ROOTFS, rootfs, Format::Vmdk, true, true),
            disk(wire::disk::UPPER, upper.file, Format::Raw, command.in_memory, upper.throwaway),
            disk(wire::disk::BOOT, boot, Format::Raw, true, true),
        ];
        debug_assert!(disks.iter().map(|made| &*made.serial).eq(wire::disk::ORDER));
        let mut ports = Vec::new();
        let mut open = |name: &str, wanted: bool| -> Result<Option<UnixStream>> {
            if !wanted {
                return Ok(None);
            }
            let (ours, others) = UnixStream::pair()?;
            ports.push(Port { name: name.to_owned(), fd: others.as_raw_fd() });
            theirs.push(others.into());
            Ok(Some(ours))
        };
        let control = open(port::CONTROL, true)?.expect("it is wanted");
        let stdin = open(port::STDIN, !terminal.stdin)?;
        let stdout = open(port::STDOUT, !terminal.stdout)?;
        let stderr = open(port::STDERR, !terminal.stderr)?;
        let tty = open(port::TTY, terminal.any())?;
        let (console, console_end) = std::io::pipe()?;
        let spec = Spec {
            engine,
            supervisor: std::process::id(),
            cpus: cpus(options),
            memory_mib: memory(options).mib(),
            disks,
            ports,
            console: console_end.as_raw_fd(),
            cmdline: cmdline(options),
            shares,
            net: command.net,
            publish: options.publish.clone(),
            krunfw: krunfw.to_owned(),
        };
        theirs.push(console_end.into());
        for fd in theirs.iter().map(AsFd::as_fd).chain(bundle.disk.iter().map(|f| f.file.as_fd())) {
            inherit(fd)?;
        }
        let console_log = options.console_log.as_ref().map(|path| {
            File::create(path).with_context(|| format!("console log {}", path.display()))
        });
        Ok(Self {
            spec,
            theirs,
            control,
            stdin,
            stdout,
            stderr,
            tty,
            console: OwnedFd::from(console).into(),
            console_log: console_log.transpose()?,
            terminal,
            stop_signal: command.stop_signal.number(),
            timeout: options.timeout.map(|span| span.0),
            grace: options.stop_timeout.map_or(DEFAULT_GRACE, |span| span.0),
            verbose: options.verbose,
            has_successor: false,
        })
    }

    /// Starts the engine's process.
    pub(crate) fn start(&mut self) -> Result<Child> {
        let mut spec = inherited_memory_file("machine")?;
        spec.write_all(&serde_json::to_vec(&self.spec)?)?;
        let output = || -> Result<Stdio> {
            let last = self.theirs.last().expect("the console is the last one");
            Ok(last.try_clone()?.into())
        };
        let child = Process::new(this_program()?)
            .arg0("rootfs-boot")
            .args([ARGUMENT, &spec.as_raw_fd().to_string()])
            .stdin(Stdio::null())
            .stdout(output()?)
            .stderr(output()?)
            // ^C is the supervisor's to pass on.
            .process_group(0)
            .spawn()
            .context("starting the engine's process")?;
        self.theirs.clear();
        Ok(child)
    }
}

/// What is decided of a machine before anything is made for it. Whoever only asks
/// what would be launched gets the same refusals.
struct Plan {
    command: Command,
    /// What the guest is told.
    records: Records,
    shares: Vec<Share>,
}

impl Plan {
    fn of(
        options: &Options,
        bundle: &OpenBundle,
        engine: Engine,
        terminal: &Terminal,
    ) -> Result<Self> {
        engine.can_have(cpus(options), memory(options))?;
        let command = Command::of(options, bundle, terminal.name().as_deref())?;
        let mut records = command.records()?;
        records.add(key::STDIO, terminal.kinds())?;
        if let Some((rows, columns)) = terminal.size() {
            records.add(key::WINDOW, format!("{rows}:{columns}"))?;
        }
        // The disk begins with what a guest reads of the image first.
        if let Some(fsmeta) = bundle.disk.first() {
            let most = (u64::from(memory(options).mib()) << 20) / MEMORY_PER_METADATA;
            records.add(key::READ_AHEAD, fsmeta.size.min(most).to_string())?;
        }
        let shares = shares(options)?;
        for (share, volume) in shares.iter().zip(&options.volumes) {
            let mode =
                if share.read_only { wire::share::READ_ONLY } else { wire::share::READ_WRITE };
            let mut record = OsString::from(format!("{mode}:{}:", share.tag));
            record.push(&volume.guest);
            records.add(key::SHARE, record)?;
        }
        Ok(Self { command, records, shares })
    }
}

/// Lets the next process have `fd`, under the same number.
fn inherit(fd: BorrowedFd<'_>) -> Result<()> {
    Ok(rustix::io::fcntl_setfd(fd, FdFlags::empty())?)
}

fn cpus(options: &Options) -> u8 {
    options.cpus.map_or(1, NonZeroU8::get)
}

fn memory(options: &Options) -> Memory {
    options.memory.unwrap_or(Memory::DEFAULT)
}

/// The kernel's command line behind what the engine puts there itself.
fn cmdline(options: &Options) -> Vec<String> {
    // A log is for what the kernel says while all is well, too.
    let level = if options.console_log.is_some() { "loglevel=7" } else { "quiet" };
    let root = format!("root={}", wire::disk::BOOT_DEVICE);
    [level, &root, "rootfstype=erofs", "ro", "init=/init"].map(str::to_owned).to_vec()
}

fn shares(options: &Options) -> Result<Vec<Share>> {
    let share = |(i, volume): (usize, &crate::options::Volume)| -> Result<Share> {
        let host = volume.host.display();
        // libkrun takes paths as text.
        ensure!(volume.host.to_str().is_some(), "--volume {host}: the path is not UTF-8");
        let (path, read_only) = (volume.host.clone(), volume.read_only);
        Ok(Share { tag: format!("volume{i}"), path, read_only })
    };
    options.volumes.iter().enumerate().map(share).collect()
}

/// What would be launched, for people and programs.
pub(crate) fn describe(options: &Options, bundle: &OpenBundle, engine: Engine) -> Result<Value> {
    let terminal = Terminal::now();
    let Plan { command, shares, .. } = Plan::of(options, bundle, engine, &terminal)?;
    let upper_bytes = match (&options.upper, command.in_memory) {
        (_, true) => bundle.upper.size,
        (Some(kept), false) => Upper::check_kept(bundle, kept, options.upper_size)?,
        (None, false) => Upper::check_private(bundle, options.upper_size)?,
    };
    let text = |list: &[OsString]| {
        list.iter().map(|s| s.to_string_lossy().into_owned()).collect::<Vec<_>>()
    };
    let in_bundle = |name: &str| bundle.dir.join(name).to_string_lossy().into_owned();
    let disk = |file: &bundle::opened::OpenFile| json!({ "path": in_bundle(&file.path), "bytes": file.size });
    let upper = match (&options.upper, command.in_memory) {
        (_, true) if command.read_only => {
            json!({ "path": in_bundle(&bundle.upper.path), "kind": "read-only" })
        }
        (_, true) => json!({ "path": in_bundle(&bundle.upper.path), "kind": "memory over it" }),
        (Some(kept), false) => json!({ "path": kept, "kind": "kept" }),
        (None, false) => json!({ "path": in_bundle(&bundle.upper.path), "kind": "private clone" }),
    };
    let tmpfs = command.tmpfs.iter().map(|TmpfsMount { path, size, only_if_empty }| {
        json!({ "path": path, "bytes": size, "only_if_empty": only_if_empty })
    });
    Ok(json!({
        "bundle": bundle.dir,
        "image": bundle.index.image,
        "engine": engine,
        "cpus": cpus(options),
        "memory_mib": memory(options).mib(),
        "kernel_command_line": cmdline(options),
        "disks": {
            "rootfs": bundle.disk.iter().map(|file| disk(file)).collect::<Vec<_>>(),
            "upper": upper,
            "upper_bytes": upper_bytes,
        },
        "command": {
            "argv": text(&command.argv),
            "env": text(&command.env),
            "user": command.user,
            "workdir": command.workdir.to_string_lossy(),
            "hostname": command.hostname,
            "add_host": command.add_host,
            "dns": command.dns,
            "stop_signal": command.stop_signal.number(),
        },
        "terminal": { "stdin": terminal.stdin, "stdout": terminal.stdout, "stderr": terminal.stderr },
        "tmpfs": tmpfs.collect::<Vec<_>>(),
        "image_volumes": command.volumes,
        "volumes": shares,
        "net": command.net,
        "publish": options.publish,
        "timeout_seconds": options.timeout.map(|span| span.0.as_secs_f64()),
    }))
}
