//! Which program is the machine, and when it is given up for another.
//!
//! That /dev/kvm opens does not say that it runs a guest: a nested one often enters
//! none, or emulates it one instruction after the other until it meets one that it
//! does not know. A probe of our own (KVM_CREATE_VM, a page of code, KVM_RUN) would
//! not tell either: such a KVM emulates a page of simple code without a fault. So
//! the probe is the start itself, and what decides is evidence, never a clock:
//!
//! - **The engine's process ends** before the guest's init speaks. libkrun says why.
//! - **A vCPU takes three seconds of processor time of which the guest had none.** The
//!   kernel counts both for each thread (`utime + stime` and `guest_time` in
//!   /proc/PID/task/TID/stat), for every user and without debugfs. A KVM that works
//!   spends most of a vCPU's time in the guest, some of it at once even where KVM
//!   itself runs in emulation, and brings a guest up in a tenth of that; one that
//!   emulates shows 0. On a busy host both numbers just grow later.
//! - **Nothing happens**: for a minute's worth of looks, every thread sleeps. One
//!   that waits for a processor or a disk does not.
//! - **The guest computes without end**: a thousand times what it needs to come up.
//!
//! The last three, [`super::liveness`], count only where there is something else to
//! do: libkrun that was asked for by name is waited for as long as its process
//! lives, and so is libkrun where qemu cannot do what the options want.
//!
//! What the first two found about KVM is remembered ([`super::kvm_finding`]), so that
//! `auto` begins with qemu next time. `--engine libkrun` tries KVM again, and a guest
//! that comes up there removes the finding.

use std::fs::File;
use std::path::Path;

use anyhow::{Result, bail};

use super::kvm_finding::Subject;
use crate::engine::{Choice, Engine, VARIABLE};
use crate::notice::notice;
use crate::options::Options;

/// The engine that was asked for, or the best that works here with the guest's
/// kernel `krunfw`.
///
/// # Errors
/// When it cannot do what the options ask for.
pub(crate) fn choose(options: &Options, krunfw: &Path) -> Result<Choice> {
    let needs = needs_libkrun(options);
    match (options.engine, needs) {
        (Some(Engine::Qemu), Some(what)) => {
            bail!("the qemu engine has no {what}; --engine libkrun does (it needs /dev/kvm)")
        }
        (Some(Engine::Qemu), None) => Ok(Choice { engine: Engine::Qemu, may_fall_back: false }),
        (Some(Engine::Libkrun), _) => match libkrun_works() {
            Ok(()) => Ok(Choice { engine: Engine::Libkrun, may_fall_back: false }),
            Err(why) => bail!("the libkrun engine cannot be used: {why}"),
        },
        (None, needs) => match (libkrun_works(), needs) {
            (Ok(()), None) if Subject::now(krunfw).is_some_and(|kvm| kvm.is_known()) => {
                notice(&format!(
                    "an earlier start found that KVM runs no guest here; software emulation (qemu) instead. \
                     --engine libkrun tries KVM again; --engine qemu or {VARIABLE}=qemu ends this notice"
                ));
                Ok(Choice { engine: Engine::Qemu, may_fall_back: false })
            }
            (Ok(()), needs) => {
                Ok(Choice { engine: Engine::Libkrun, may_fall_back: needs.is_none() })
            }
            (Err(why), Some(what)) => {
                bail!("{what} needs the libkrun engine, which cannot be used: {why}")
            }
            (Err(why), None) => {
                notice(&format!("{why}; software emulation (qemu) instead"));
                Ok(Choice { engine: Engine::Qemu, may_fall_back: false })
            }
        },
    }
}

/// Says that `auto` goes on with qemu, since libkrun failed for the reason `why`, and
/// remembers it where that reason is KVM itself.
pub(crate) fn fall_back(why: &str, kvm_runs_no_guest: bool, krunfw: &Path) {
    let why = why.lines().next().unwrap_or_default();
    let mut text = format!("libkrun: {why}; software emulation (qemu) instead");
    if kvm_runs_no_guest && let Some(kvm) = Subject::now(krunfw) {
        kvm.remember();
        text += &format!(
            ", from now on at once (--engine libkrun tries KVM again; --engine qemu or {VARIABLE}=qemu end such notices)"
        );
    }
    notice(&text);
}

fn needs_libkrun(options: &Options) -> Option<&'static str> {
    if !options.volumes.is_empty() {
        Some("--volume")
    } else if !options.publish.is_empty() {
        Some("--publish")
    } else if options.net {
        Some("--net")
    } else {
        None
    }
}

fn libkrun_works() -> Result<()> {
    if !cfg!(feature = "libkrun") {
        bail!("this rootfs-boot was built without it (--no-default-features)");
    }
    match File::options().read(true).write(true).open("/dev/kvm") {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
            bail!("/dev/kvm may not be opened (is the user in the group kvm?)")
        }
        Err(error) => bail!("/dev/kvm: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::options::Volume;

    fn choose(options: &Options) -> Result<Choice> {
        super::choose(options, Path::new("libkrunfw.so.5"))
    }

    #[test]
    fn qemu_refuses_what_it_lacks_and_names_the_engine_that_has_it() {
        let qemu = Options { engine: Some(Engine::Qemu), ..Options::default() };
        assert_eq!(choose(&qemu).unwrap().engine, Engine::Qemu);
        let volume = Volume { host: PathBuf::from("/"), guest: "/mnt".into(), read_only: true };
        for options in [
            Options { net: true, ..qemu.clone() },
            Options { net: true, publish: vec!["1:1".parse().unwrap()], ..qemu.clone() },
            Options { volumes: vec![volume], ..qemu.clone() },
        ] {
            let error = choose(&options).err().unwrap().to_string();
            assert!(error.contains("--engine libkrun"), "{error}");
        }
    }

    #[cfg(not(feature = "libkrun"))]
    #[test]
    fn a_build_without_libkrun_says_so() {
        let error = |options: &Options| choose(options).err().unwrap().to_string();
        let asked = Options { engine: Some(Engine::Libkrun), ..Options::default() };
        assert!(error(&asked).contains("--no-default-features"));
        let needed = Options { net: true, ..Options::default() };
        assert!(error(&needed).contains("--no-default-features"));
        assert_eq!(choose(&Options::default()).unwrap().engine, Engine::Qemu);
    }
}
