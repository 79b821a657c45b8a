//! What a machine starts with when nobody says otherwise: the image's config, and
//! the manifest's `boot:` over it.
//!
//! A bundle holds nothing here that `rootfs-boot` would refuse. What an image says
//! in a way that no machine can follow, and that docker overlooks too, becomes at
//! build time what docker makes of it; the rest is an error of the build.

use std::borrow::Cow;

use anyhow::{Context as _, Result, ensure};

use super::index::Config;
use crate::boot::{Boot, Signal, User, absolute, argument};

/// Bytes of command, environment and all else that a bundle passes to the guest's
/// init. The init takes more, so that there is room for options of `rootfs-boot`.
pub const MAX_BYTES: usize = 1 << 20;

/// Bytes of one argument or variable that Linux takes (MAX_ARG_STRLEN: 32 pages), its
/// NUL counted.
pub const MAX_STRING: usize = 128 << 10;

/// Bytes of a path that Linux takes, its NUL counted.
const PATH_MAX: usize = 4096;

/// Bytes that one value takes beside its own, at most.
const EACH: usize = 16;

/// Entrypoint and command of the image, unless the manifest has others. A new
/// entrypoint leaves nothing of the command that belonged to the old one.
pub fn words<'b>(
    config: &'b Config,
    boot: &'b Boot,
) -> (Option<&'b Vec<String>>, Option<&'b Vec<String>>) {
    let entrypoint = boot.entrypoint.as_ref().or(config.entrypoint.as_ref());
    let command = match (&boot.entrypoint, &boot.command) {
        (_, Some(command)) => Some(command),
        (Some(_), None) => None,
        (None, None) => config.cmd.as_ref(),
    };
    (entrypoint, command)
}

/// Checks what a machine would start with.
///
/// # Errors
/// When a machine could not be started so. (Without a command it can, with one that
/// is named then.)
pub fn check(config: &Config, boot: &Boot) -> Result<()> {
    let image = |what: &str| format!("{what} of the image's config");
    let (entrypoint, command) = words(config, boot);
    let mut bytes = 0;
    let mut add = |text: &str| -> Result<()> {
        argument(text)?;
        let len = text.len() + 1;
        ensure!(len <= MAX_STRING, "one value has {len} bytes; Linux takes {MAX_STRING}");
        bytes += len + EACH;
        ensure!(
            bytes <= MAX_BYTES,
            "command, environment and volumes have more than {MAX_BYTES} bytes"
        );
        Ok(())
    };
    for (list, what) in [(entrypoint, "Entrypoint"), (command, "Cmd")] {
        let mut words = list.into_iter().flatten();
        words.try_for_each(|word| add(word)).with_context(|| image(what))?;
    }
    // What has no value gets an empty one.
    let mut lines = config.env.iter().map(|line| match line.contains('=') {
        true => Cow::Borrowed(line),
        false => Cow::Owned(format!("{line}=")),
    });
    lines.try_for_each(|line| add(&line)).with_context(|| image("Env"))?;
    config.volumes.iter().try_for_each(|path| add(path)).with_context(|| image("Volumes"))?;
    let mut of_boot = || -> Result<()> {
        boot.env.iter().try_for_each(|(name, value)| add(&format!("{name}={value}")))?;
        boot.add_host.iter().try_for_each(|entry| add(&entry.to_string()))?;
        boot.dns.iter().try_for_each(|server| add(&server.to_string()))?;
        boot.tmpfs.iter().try_for_each(|tmpfs| add(&tmpfs.to_string()))?;
        boot.publish.iter().try_for_each(|ports| add(&ports.to_string()))
    };
    of_boot().context("boot")?;
    let dir = |dir: &String| -> Result<()> {
        let (len, most) = (dir.len(), PATH_MAX - 1);
        ensure!(len <= most, "it has {len} bytes; Linux takes {most}");
        Ok(absolute(dir.as_bytes())?)
    };
    config.working_dir.iter().try_for_each(dir).with_context(|| image("WorkingDir"))?;
    boot.workdir.iter().try_for_each(dir).context("boot.workdir")?;
    config.stop_signal().with_context(|| image("StopSignal"))?;
    if let (Some(user), None) = (&config.user, &boot.user) {
        let check = || -> Result<()> {
            ensure!(user.len() <= MAX_STRING, "it has {} bytes", user.len());
            Ok(user.parse::<User>().map(drop)?)
        };
        check()
            .with_context(|| format!("{} (boot.user of a manifest wins over it)", image("User")))?;
    }
    Ok(())
}

/// Makes of the image's config what a machine can start with, as docker does, and
/// says each change to `warn`.
pub fn usable(mut config: Config, warn: &mut dyn FnMut(String)) -> Config {
    let dir = config.working_dir.take().filter(|dir| !dir.is_empty());
    config.working_dir = match dir {
        Some(dir) if dir.contains('\0') => {
            let shown = dir.escape_debug();
            warn(format!("the image's WorkingDir \"{shown}\" holds a NUL; machines start in /"));
            None
        }
        Some(dir) if !dir.starts_with('/') => {
            warn(format!(
                "the image's WorkingDir {dir:?} is not absolute; machines take it from / on"
            ));
            Some(format!("/{dir}"))
        }
        dir => dir,
    };
    if let Err(error) = config.stop_signal() {
        warn(format!("the image's StopSignal: {error}; machines use {}", Signal::TERM));
        config.stop_signal = None;
    }
    config
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> Config {
        Config { env: vec!["A=1".into()], user: Some("app".into()), ..Config::default() }
    }

    #[test]
    fn what_no_machine_can_start_with_is_refused() {
        type Change = fn(&mut Config, &mut Boot);
        let fine = |change: Change| {
            let (mut config, mut boot) = (config(), Boot::default());
            change(&mut config, &mut boot);
            check(&config, &boot).map_err(|error| format!("{error:#}"))
        };
        assert_eq!(fine(|_, _| {}), Ok(()));
        let refused: [(Change, &str); 11] = [
            (|c, _| c.working_dir = Some(format!("/{}", "x".repeat(4095))), "WorkingDir"),
            (|c, _| c.user = Some("x".repeat(MAX_STRING + 1)), "User"),
            (|c, _| c.working_dir = Some("x".into()), "WorkingDir"),
            (|c, _| c.working_dir = Some("/\0".into()), "WorkingDir"),
            (|c, _| c.stop_signal = Some("FOO".into()), "StopSignal"),
            (|c, _| c.user = Some("a:b:c".into()), "User"),
            (|c, _| c.env.push("B=\0".into()), "Env"),
            (|c, _| c.env.push(format!("B={}", "x".repeat(MAX_STRING - 2))), "Env"),
            (|c, _| c.env.extend((0..2000).map(|n| format!("B{n}={}", "x".repeat(1000)))), "Env"),
            (|c, _| c.cmd = Some(vec!["\0".into()]), "Cmd"),
            (|c, _| c.volumes.extend((0..100_000).map(|n| n.to_string())), "Volumes"),
        ];
        for (change, says) in refused {
            let error = fine(change).unwrap_err();
            assert!(error.contains(says), "{says}: {error}");
        }
        // What the manifest replaces does not count.
        fine(|c, b| {
            c.user = Some("a:b:c".into());
            b.user = Some("0".parse().unwrap());
            c.cmd = Some(vec!["\0".into()]);
            b.command = Some(vec!["sh".into()]);
        })
        .unwrap();
    }

    #[test]
    fn an_odd_config_becomes_one_that_starts() {
        for (dir, is) in [("", None), ("app", Some("/app")), ("/app", Some("/app")), ("\0", None)] {
            let config = Config { working_dir: Some(dir.into()), ..config() };
            let config = usable(config, &mut |_| {});
            assert_eq!(config.working_dir.as_deref(), is);
            check(&config, &Boot::default()).unwrap();
        }
        for (signal, is) in [("SIGINT", Some("SIGINT")), ("", None), ("FOO", None)] {
            let mut said = 0;
            let config = Config { stop_signal: Some(signal.into()), ..config() };
            let config = usable(config, &mut |_| said += 1);
            assert_eq!((config.stop_signal.as_deref(), said), (is, usize::from(is.is_none())));
        }
    }
}
