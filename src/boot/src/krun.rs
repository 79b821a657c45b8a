//! The machine in this process: libkrun's C-shaped functions.

#![expect(unsafe_code, reason = "libkrun is called")]

use std::ffi::{CString, c_char};
use std::ptr;

use anyhow::{Context as _, Result, bail};

use super::krunfw;
use super::spec::{Format, Spec};

/// libkrun reads lists of strings as arrays of this length that a null ends.
const LIST: usize = 4096;
const RAW: u32 = 0;
const VMDK: u32 = 2;
/// Flushes of the guest are ignored, or go through to the disk.
const SYNC_NONE: u32 = 0;
const SYNC_FULL: u32 = 2;
/// Sockets of the guest's programs become sockets of this process.
const TSI_HIJACK_INET: u32 = 1;
const LOG_ERRORS: u32 = 1;

/// Becomes the machine.
pub(crate) fn enter(spec: &Spec) -> Result<std::convert::Infallible> {
    // libkrun opens its kernel by the name of the library, and gets the one that is loaded.
    krunfw::load(spec.krunfw.as_os_str())?;
    let path_of = |fd: i32| c_string(format!("/proc/self/fd/{fd}"));
    krun::krun_set_log_level(LOG_ERRORS);
    let context = done(krun::krun_create_ctx(), "creating a machine")? as u32;
    done(
        krun::krun_set_vm_config(context, spec.cpus, spec.memory_mib),
        "setting processors and memory",
    )?;
    // SAFETY: strings and lists that are handed over end as libkrun expects and
    // live across the call, which copies them; so below.
    unsafe {
        for disk in &spec.disks {
            let format = if disk.format == Format::Vmdk { VMDK } else { RAW };
            let sync = if disk.throwaway { SYNC_NONE } else { SYNC_FULL };
            let (serial, path) = (c_string(&*disk.serial)?, path_of(disk.fd)?);
            let read_only = disk.read_only;
            done(
                krun::krun_add_disk3(
                    context,
                    serial.as_ptr(),
                    path.as_ptr(),
                    format,
                    read_only,
                    false,
                    sync,
                ),
                "adding a disk",
            )?;
        }
        let console = path_of(spec.console)?;
        done(krun::krun_set_console_output(context, console.as_ptr()), "setting the console")?;
        let ports = done(krun::krun_add_virtio_console_multiport(context), "adding ports")? as u32;
        for port in &spec.ports {
            let name = c_string(&*port.name)?;
            done(
                krun::krun_add_console_port_inout(context, ports, name.as_ptr(), port.fd, port.fd),
                "adding a port",
            )?;
        }
        for share in &spec.shares {
            let path =
                share.path.to_str().context("a volume's path is not UTF-8, as libkrun needs it")?;
            let (tag, path) = (c_string(&*share.tag)?, c_string(path)?);
            done(
                krun::krun_add_virtiofs3(context, tag.as_ptr(), path.as_ptr(), 0, share.read_only),
                "adding a volume",
            )?;
        }
        done(krun::krun_disable_implicit_vsock(context), "setting the network")?;
        if spec.net {
            done(krun::krun_add_vsock(context, TSI_HIJACK_INET), "adding a network")?;
        }
        if !spec.publish.is_empty() {
            let published = list(spec.publish.iter().map(ToString::to_string))?;
            done(
                krun::krun_set_port_map(context, published.pointers().as_ptr()),
                "publishing ports",
            )?;
        }
        // What libkrun calls the environment, it appends to the kernel's command line.
        let cmdline = list(spec.cmdline.iter().cloned())?;
        done(krun::krun_set_env(context, cmdline.pointers().as_ptr()), "setting the command line")?;
    }
    let code = krun::krun_start_enter(context);
    let error = std::io::Error::from_raw_os_error(code.saturating_neg());
    eprintln!("libkrun could not start the machine: {error}");
    // Not MACHINE_FAILED, by which the supervisor knows that the options were refused: here
    // it looks for what KVM said. Nor 1, with which libkrun ends when a vCPU fails.
    std::process::exit(2)
}

fn done(code: i32, what: &str) -> Result<i32> {
    if code < 0 {
        let error = std::io::Error::from_raw_os_error(code.saturating_neg());
        return Err(error).with_context(|| format!("libkrun: {what}"));
    }
    Ok(code)
}

fn c_string(text: impl Into<Vec<u8>>) -> Result<CString> {
    CString::new(text).context("a NUL byte")
}

struct List(Vec<CString>);

fn list(strings: impl Iterator<Item = String>) -> Result<List> {
    let list = List(strings.map(c_string).collect::<Result<_>>()?);
    if list.0.len() >= LIST {
        bail!("more than {LIST} in a list");
    }
    Ok(list)
}

impl List {
    fn pointers(&self) -> Vec<*const c_char> {
        let mut pointers: Vec<_> = self.0.iter().map(|s| s.as_ptr()).collect();
        pointers.resize(LIST, ptr::null());
        pointers
    }
}
