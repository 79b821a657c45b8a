//! What runs in the guest, and what it finds there: the image's config, the
//! bundle's defaults and the options, in this order, the last one winning.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};

use anyhow::{Context as _, Result, bail, ensure};
use bundle::boot::{Dns, HostEntry, Hostname, Signal, Tmpfs, absolute};
use bundle::open::OpenBundle;
use bundle::start::{self, MAX_STRING};

use super::wire::{MAX_CONFIG, key, when};
use crate::options::Options;

/// What a container gets when its image says nothing.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Files that a process may have open, as container engines set it.
const OPEN_FILES: u64 = 1 << 20;
/// Bytes of all of them that a program may be started with, and a pointer to each: a
/// quarter of the guest's stack of 8 MiB, less what the kernel puts there itself.
const MAX_STRINGS: usize = (2 << 20) - 4096;
/// Memory that is mounted unless somebody says otherwise, where the image has
/// nothing of its own.
const TMPFS: [&str; 3] = ["/tmp", "/run", "/dev/shm"];

/// Memory that the guest mounts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TmpfsMount {
    pub path: String,
    /// Bytes; None for as many as the kernel allows by itself.
    pub size: Option<u64>,
    pub when: When,
}

/// When memory is mounted on a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum When {
    /// Over whatever is there.
    Always,
    /// Only where the image has nothing in it.
    IfEmpty,
}

/// A command for the guest's init.
#[derive(Clone, Debug)]
pub(crate) struct Command {
    pub argv: Vec<OsString>,
    pub env: Vec<OsString>,
    pub user: String,
    pub workdir: OsString,
    pub hostname: Hostname,
    /// Whether somebody named the machine; else a name that the image has counts.
    pub hostname_asked: bool,
    /// Lines for /etc/hosts that win over what the image has there.
    pub add_host: Vec<HostEntry>,
    /// Name servers in place of all others.
    pub dns: Vec<Dns>,
    /// In order of mounting.
    pub tmpfs: Vec<TmpfsMount>,
    /// Directories that must be there.
    pub volumes: BTreeSet<String>,
    pub stop_signal: Signal,
    /// Whether the command can write to its root at all.
    pub read_only: bool,
    /// Whether what it writes is kept in memory.
    pub in_memory: bool,
    pub net: bool,
}

impl Command {
    /// `terminal` is what the host calls its terminal, if the guest has one.
    pub(crate) fn of(
        options: &Options,
        bundle: &OpenBundle,
        terminal: Option<&OsStr>,
    ) -> Result<Self> {
        let (config, boot) = (&bundle.index.config, &bundle.index.boot);
        let owned = |list: &[String]| list.iter().map(OsString::from).collect::<Vec<_>>();
        let (image_entrypoint, image_command) = start::words(config, boot);
        let mut argv = match &options.entrypoint {
            Some(one) if one.is_empty() => Vec::new(),
            Some(one) => vec![one.clone()],
            None => owned(image_entrypoint.map_or(&[][..], Vec::as_slice)),
        };
        if !options.command.is_empty() {
            argv.extend(options.command.iter().cloned());
        } else if options.entrypoint.is_none() {
            argv.extend(owned(image_command.map_or(&[][..], Vec::as_slice)));
        }
        ensure!(
            argv.first().is_some_and(|name| !name.is_empty()),
            "the image has no entrypoint and no command; name one behind the bundle"
        );
        let hostname = options.hostname.clone();
        let hostname_asked = hostname.is_some();
        let hostname = hostname.map_or_else(|| hostname_of(bundle), Ok)?;
        let workdir = options.workdir.clone();
        let workdir = workdir.or_else(|| config.working_dir.clone().map(Into::into));
        let workdir = workdir.filter(|dir| !dir.is_empty()).unwrap_or_else(|| "/".into());
        absolute(workdir.as_bytes()).context("the working directory")?;
        let mut env = Env::default();
        env.set("PATH".into(), PATH.into());
        if let Some(terminal) = terminal {
            env.set("TERM".into(), terminal.to_owned());
        }
        for line in &config.env {
            let (name, value) = line.split_once('=').unwrap_or((line, ""));
            env.set(name.into(), value.into());
        }
        for (name, value) in &boot.env {
            env.set(name.into(), value.into());
        }
        for (name, value) in &options.env {
            env.set(name.clone(), value.clone());
        }
        Ok(Self {
            argv,
            env: env.lines(),
            user: options
                .user
                .as_ref()
                .map(ToString::to_string)
                .or_else(|| config.user.clone())
                .unwrap_or_default(),
            workdir,
            hostname,
            hostname_asked,
            add_host: options.add_host.clone(),
            dns: options.dns.clone(),
            tmpfs: tmpfs(options.tmpfs.iter()),
            volumes: config.volumes.clone(),
            stop_signal: options
                .stop_signal
                .unwrap_or_else(|| config.stop_signal().unwrap_or(Signal::TERM)),
            read_only: options.read_only,
            in_memory: options.read_only || options.ephemeral,
            net: options.net,
        })
    }

    /// Refuses what Linux would not start a program with.
    fn fits_exec(&self) -> Result<()> {
        let mut total = 0;
        for (what, strings) in [("argument", &self.argv), ("variable", &self.env)] {
            for (i, string) in strings.iter().enumerate() {
                let len = string.len() + 1;
                ensure!(
                    len <= MAX_STRING,
                    "{what} {} of the command has {len} bytes; Linux takes {MAX_STRING}",
                    i + 1
                );
                total += len + size_of::<usize>();
            }
        }
        ensure!(
            total <= MAX_STRINGS,
            "the command's arguments and variables have {total} bytes; the guest takes {MAX_STRINGS}"
        );
        Ok(())
    }

    /// The records that the guest's init reads.
    pub(crate) fn records(&self) -> Result<Records> {
        self.fits_exec()?;
        let mut out = Records(Vec::new());
        self.argv.iter().try_for_each(|arg| out.add(key::ARG, arg))?;
        self.env.iter().try_for_each(|line| out.add(key::ENV, line))?;
        out.add(key::USER, &self.user)?;
        out.add(key::CWD, &self.workdir)?;
        out.add(key::HOSTNAME, self.hostname.as_str())?;
        if self.hostname_asked {
            out.add(key::HOSTNAME_ASKED, "1")?;
        }
        let line = |entry: &HostEntry| format!("{}\t{}\n", entry.address, entry.name);
        out.add(key::HOSTS_FIRST, self.add_host.iter().map(line).collect::<String>())?;
        out.add(key::RESOLV, self.resolv())?;
        if !self.dns.is_empty() {
            out.add(key::RESOLV_ASKED, "1")?;
        }
        out.add(key::NOFILE, OPEN_FILES.to_string())?;
        for TmpfsMount { path, size, when } in &self.tmpfs {
            let when = match when {
                When::Always => when::ALWAYS,
                When::IfEmpty => when::IF_EMPTY,
            };
            let size = size.map_or_else(String::new, |size| size.to_string());
            out.add(key::TMPFS, format!("{when}:{size}:{path}"))?;
        }
        self.volumes.iter().try_for_each(|path| out.add(key::VOLUME, path))?;
        if self.read_only {
            out.add(key::READ_ONLY, "1")?;
        }
        if self.in_memory {
            out.add(key::IN_MEMORY, "1")?;
        }
        Ok(out)
    }

    /// What the machine's /etc/resolv.conf says unless the image has its own.
    fn resolv(&self) -> OsString {
        // Without a network there is nothing to ask; with one, the host's servers answer.
        let host = if self.net { std::fs::read("/etc/resolv.conf").ok() } else { None };
        let host = host.unwrap_or_default();
        if self.dns.is_empty() {
            return OsString::from_vec(host);
        }
        let mut text: Vec<u8> = Vec::new();
        for server in &self.dns {
            text.extend_from_slice(format!("nameserver {server}\n").as_bytes());
        }
        // Only the servers are others.
        for line in host.split_inclusive(|b| *b == b'\n') {
            if line.starts_with(b"search") || line.starts_with(b"options") {
                text.extend_from_slice(line);
            }
        }
        OsString::from_vec(text)
    }
}

/// `key=value` and NUL, over and over.
pub(crate) struct Records(Vec<u8>);

impl Records {
    /// # Errors
    /// When `value` holds a NUL, or there is too much in all.
    pub(crate) fn add(&mut self, key: &str, value: impl AsRef<OsStr>) -> Result<()> {
        let value = value.as_ref().as_bytes();
        if value.contains(&0) {
            bail!("a NUL byte in {key}: {}", value.escape_ascii());
        }
        self.0.extend_from_slice(key.as_bytes());
        self.0.push(b'=');
        self.0.extend_from_slice(value);
        self.0.push(0);
        let (len, most) = (self.0.len(), MAX_CONFIG);
        ensure!(
            len <= most,
            "what the guest is told (command, environment, /etc/resolv.conf, tmpfs) has more than {most} bytes"
        );
        Ok(())
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

/// The default ones, and those that were asked for: a path named again keeps
/// its place and takes the new size.
fn tmpfs<'a>(asked: impl Iterator<Item = &'a Tmpfs>) -> Vec<TmpfsMount> {
    let usual = |path: &str| TmpfsMount { path: path.to_owned(), size: None, when: When::IfEmpty };
    let mut list = TMPFS.map(usual).to_vec();
    for tmpfs in asked {
        match tmpfs {
            Tmpfs::None => list.clear(),
            Tmpfs::At { path, size } => {
                let new = TmpfsMount { path: path.clone(), size: *size, when: When::Always };
                match list.iter_mut().find(|known| known.path == *path) {
                    Some(known) => *known = new,
                    None => list.push(new),
                }
            }
        }
    }
    list
}

/// An environment whose names keep the place where they first came.
#[derive(Default)]
struct Env {
    variables: Vec<(OsString, OsString)>,
    /// Where each name is: an image may have as many as it likes.
    places: BTreeMap<OsString, usize>,
}

impl Env {
    fn set(&mut self, name: OsString, value: OsString) {
        match self.places.get(&name) {
            Some(place) => self.variables[*place].1 = value,
            None => {
                self.places.insert(name.clone(), self.variables.len());
                self.variables.push((name, value));
            }
        }
    }

    fn lines(self) -> Vec<OsString> {
        let line = |(mut name, value): (OsString, OsString)| {
            name.push("=");
            name.push(value);
            name
        };
        self.variables.into_iter().map(line).collect()
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
    fn default_tmpfs_give_way() {
        let list = |texts: &[&str]| {
            let asked: Vec<Tmpfs> = texts.iter().map(|t| t.parse().unwrap()).collect();
            tmpfs(asked.iter())
        };
        assert_eq!(list(&[]).len(), 3);
        let always = |path: &str, size| TmpfsMount { path: path.into(), size, when: When::Always };
        assert_eq!(list(&["/tmp:1MiB"])[0], always("/tmp", Some(1 << 20)));
        assert_eq!(list(&["none", "/x"]), [always("/x", None)]);
    }

    #[test]
    fn records_hold_any_bytes_but_nul() {
        let mut records = Records(Vec::new());
        records.add(key::ARG, OsStr::from_bytes(b"a\n=\xff")).unwrap();
        assert_eq!(records.bytes(), b"arg=a\n=\xff\0");
        assert!(records.add(key::ARG, "a\0b").is_err());
        assert!(records.add(key::ARG, "x".repeat(MAX_CONFIG)).is_err());
    }
}
