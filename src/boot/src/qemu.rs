//! The machine in software: qemu, with a board of nothing but virtio devices.

use std::ffi::OsString;
use std::fs::File;
use std::os::fd::AsRawFd as _;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result};

use super::krunfw;
use super::spec::{Format, Spec};
use crate::system::{fd_path, inherited_memory_file};

#[cfg(target_arch = "x86_64")]
mod board {
    pub(super) const PROGRAM: &str = "qemu-system-x86_64";
    pub(super) const PACKAGE: &str = "qemu-system-x86";
    /// No firmware tables: the kernel has no ACPI. Its only clock is the CMOS one.
    pub(super) const MACHINE: &str =
        "microvm,acpi=off,auto-kernel-cmdline=on,isa-serial=off,pit=on,pic=on,rtc=on";
    /// The board's many devices leave no interrupt to the clock's driver; a triple
    /// fault is the reset that qemu sees. `no_timer_check`: the kernel's test of the
    /// timer counts ticks in a fixed time, and panics where a busy host delivers too
    /// few of them ("IO-APIC + timer doesn't work").
    pub(super) const CMDLINE: &str =
        "console=hvc0 reboot=t panic=-1 no_timer_check initcall_blacklist=cmos_init";
    /// Whether the kernel finds the last disk first.
    pub(super) const DISKS_BACKWARDS: bool = false;
}

#[cfg(target_arch = "aarch64")]
mod board {
    pub(super) const PROGRAM: &str = "qemu-system-aarch64";
    pub(super) const PACKAGE: &str = "qemu-system-arm";
    pub(super) const MACHINE: &str = "virt";
    pub(super) const CMDLINE: &str = "console=hvc0 panic=-1";
    /// Whether the kernel finds the last disk first.
    pub(super) const DISKS_BACKWARDS: bool = true;
}

/// Becomes qemu.
pub(crate) fn exec(spec: &Spec) -> Result<std::convert::Infallible> {
    let program = find()?;
    // qemu opens it by name, and this process is about to be qemu.
    let mut kernel = inherited_memory_file("kernel")?;
    krunfw::write_kernel(spec.krunfw.as_os_str(), &mut kernel)?;
    let error = Command::new(&program).args(arguments(spec, &kernel)).exec();
    Err(error).with_context(|| format!("starting {}", program.display()))
}

/// Finds qemu in PATH, or beside this program, where libkrunfw may lie as well.
fn find() -> Result<PathBuf> {
    let (program, package) = (board::PROGRAM, board::PACKAGE);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let near = std::env::current_exe().ok().and_then(|exe| Some(exe.parent()?.to_owned()));
    let found = std::env::split_paths(&path)
        .chain(near)
        .map(|dir| dir.join(program))
        .find(|path| path.is_file());
    found.with_context(|| {
        format!("{program} is not installed: the package {package} of Debian and Fedora, qemu of Homebrew")
    })
}

fn arguments(spec: &Spec, kernel: &File) -> Vec<OsString> {
    let fixed = [
        ["-M", board::MACHINE],
        ["-accel", "tcg"],
        ["-cpu", "max"],
        ["-display", "none"],
        ["-global", "virtio-mmio.force-legacy=false"],
        ["-device", "virtio-rng-device"],
        ["-device", "virtio-serial-device"],
    ];
    let mut args: Vec<String> = fixed.into_iter().flatten().map(str::to_owned).collect();
    // The guest's last word is a reset.
    args.extend(["-nodefaults", "-no-user-config", "-no-reboot"].map(str::to_owned));
    let mut add = |flag: &str, value: String| args.extend([flag.to_owned(), value]);
    add("-m", spec.memory_mib.to_string());
    add("-smp", spec.cpus.to_string());
    add("-kernel", fd_path(kernel.as_raw_fd()));
    add("-append", format!("{} {}", board::CMDLINE, spec.cmdline.join(" ")));
    add("-chardev", format!("file,id=console,path={}", fd_path(spec.console)));
    add("-device", "virtconsole,chardev=console".to_owned());
    for (i, port) in spec.ports.iter().enumerate() {
        add("-chardev", format!("socket,id=port{i},fd={}", port.fd));
        add("-device", format!("virtserialport,chardev=port{i},name={}", port.name));
    }
    let mut disks: Vec<_> = spec.disks.iter().collect();
    if board::DISKS_BACKWARDS {
        disks.reverse();
    }
    for disk in disks {
        let (id, path) = (&disk.serial, fd_path(disk.fd));
        let format = if disk.format == Format::Vmdk { "vmdk" } else { "raw" };
        let read_only = if disk.read_only { "on" } else { "off" };
        let cache = if disk.throwaway { "unsafe" } else { "writeback" };
        add(
            "-drive",
            format!(
                "if=none,id={id},format={format},file={path},readonly={read_only},cache={cache},discard=unmap"
            ),
        );
        add("-device", format!("virtio-blk-device,drive={id},serial={id}"));
    }
    args.into_iter().map(OsString::from).collect()
}
