//! What a machine starts with by default: the image's config, overridden by the manifest's
//! `boot:`.
//!
//! Invariant: a bundle has nothing in either that `rootfs-boot` would refuse. Values of an
//! image that a machine cannot use, and that docker tolerates, are changed at build time as
//! docker does ([`usable`]); all others fail the build ([`check`]).

use std::borrow::Cow;

use anyhow::{Context as _, Result, ensure};

use super::index::Config;
use crate::boot::options::Boot;
use crate::boot::signal::Signal;
use crate::boot::value::{User, absolute, argument};

/// The most bytes of command, environment and all else that a bundle passes to the guest's
/// init. The init accepts more, so that there is room for options of `rootfs-boot`.
pub const MAX_BYTES: usize = 1 << 20;

/// The most bytes of one argument or variable that Linux allows (MAX_ARG_STRLEN: 32 pages),
/// with its NUL.
pub const MAX_STRING: usize = 128 << 10;

/// The most bytes of a path that Linux allows, with its NUL.
const PATH_MAX: usize = 4096;

/// The most bytes of a name in a path that file systems of Linux allow.
const NAME_MAX: usize = 255;

/// The most bytes that passing a value takes beside those of the value.
const EACH: usize = 16;

/// Entrypoint and command that a machine starts with: the manifest's, else the image's. An
/// entrypoint of the manifest replaces the image's command as well.
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

/// Checks that a machine can start with `config` and `boot`.
///
/// # Errors
/// When one of the values cannot be used. (That there is no command is not an error: one can
/// be named when the machine is started.)
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
    // A variable without a value gets an empty one.
    let mut lines = config.env.iter().map(|line| match line.contains('=') {
        true => Cow::Borrowed(line),
        false => Cow::Owned(format!("{line}=")),
    });
    lines.try_for_each(|line| add(&line)).with_context(|| image("Env"))?;
    let volume = |path: &String| -> Result<()> {
        add(path)?;
        ensure!(!path.is_empty(), "one is empty");
        can_be_made(path)
    };
    config.volumes.iter().try_for_each(volume).with_context(|| image("Volumes"))?;
    let mut of_boot = || -> Result<()> {
        boot.env.iter().try_for_each(|(name, value)| add(&format!("{name}={value}")))?;
        boot.add_host.iter().try_for_each(|entry| add(&entry.to_string()))?;
        boot.dns.iter().try_for_each(|server| add(&server.to_string()))?;
        boot.tmpfs.iter().try_for_each(|tmpfs| add(&tmpfs.to_string()))?;
        boot.publish.iter().try_for_each(|ports| add(&ports.to_string()))
    };
    of_boot().context("boot")?;
    let dir = |dir: &String| -> Result<()> {
        can_be_made(dir)?;
        Ok(absolute(dir.as_bytes())?)
    };
    config.working_dir.iter().try_for_each(dir).with_context(|| image("WorkingDir"))?;
    boot.workdir.iter().try_for_each(dir).context("boot.workdir")?;
    config.stop_signal().with_context(|| image("StopSignal"))?;
    if let (Some(user), None) = (&config.user, &boot.user) {
        let check = || -> Result<()> {
            let len = user.len();
            ensure!(len <= MAX_STRING, "it has {len} bytes; {MAX_STRING} are allowed");
            Ok(user.parse::<User>().map(drop)?)
        };
        check()
            .with_context(|| format!("{} (boot.user in a manifest replaces it)", image("User")))?;
    }
    Ok(())
}

/// Refuses a text that cannot be the path of a directory.
fn can_be_made(dir: &str) -> Result<()> {
    ensure!(!dir.contains('\0'), "it holds a NUL");
    let (len, most) = (dir.len(), PATH_MAX - 1);
    ensure!(len <= most, "it has {len} bytes; Linux takes {most}");
    let longest = dir.split('/').map(str::len).max().unwrap_or(0);
    ensure!(longest <= NAME_MAX, "a name in it has {longest} bytes; Linux takes {NAME_MAX}");
    Ok(())
}

/// Changes values of the image's config that a machine cannot use, as docker does, and
/// reports each change to `warn`.
pub fn usable(mut config: Config, warn: &mut dyn FnMut(String)) -> Config {
    let dir = config.working_dir.take().filter(|dir| !dir.is_empty());
    config.working_dir = dir.and_then(|dir| {
        let is_absolute = dir.starts_with('/');
        let shown = beginning(&dir);
        let dir = if is_absolute { dir } else { format!("/{dir}") };
        let said = can_be_made(&dir).map_err(|error| error.to_string());
        match said {
            Err(why) => {
                warn(format!("the image's WorkingDir \"{shown}\": {why}; machines start in /"))
            }
            Ok(()) if is_absolute => {}
            Ok(()) => warn(format!(
                "the image's WorkingDir \"{shown}\" is not absolute; machines take it as relative to /"
            )),
        }
        can_be_made(&dir).is_ok().then_some(dir)
    });
    let before = config.volumes.len();
    let mut first = None;
    config.volumes.retain(|dir| {
        let error = match dir.is_empty() {
            true => Some("it is empty".to_owned()),
            false => can_be_made(dir).err().map(|error| error.to_string()),
        };
        if let Some(error) = &error {
            first.get_or_insert_with(|| format!("\"{}\": {error}", beginning(dir)));
        }
        error.is_none()
    });
    if let Some(first) = first {
        let dropped = before - config.volumes.len();
        warn(format!("the image's Volumes: {first}; {dropped} of {before} are left out"));
    }
    if let Err(error) = config.stop_signal() {
        warn(format!("the image's StopSignal: {error}; machines use {}", Signal::TERM));
        config.stop_signal = None;
    }
    config
}

/// The beginning of a text that may be long, as a message shows it.
fn beginning(text: &str) -> String {
    const SHOWN: usize = 60;
    let more = if text.chars().nth(SHOWN).is_some() { "…" } else { "" };
    text.chars().take(SHOWN).flat_map(char::escape_debug).chain(more.chars()).collect()
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
        let refused: [(Change, &str); 15] = [
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
            (|c, _| c.volumes.extend([String::new()]), "Volumes"),
            (|c, _| c.volumes.extend([format!("/{}", "x".repeat(256))]), "Volumes"),
            (|c, _| c.volumes.extend(["/xx".repeat(1400)]), "Volumes"),
            (|c, _| c.working_dir = Some(format!("/{}", "x".repeat(256))), "WorkingDir"),
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
        let name = |len: usize| format!("/{}", "x".repeat(len));
        let volumes = ["", "/a\0", &name(256), &"/xx".repeat(1400), "/data", "rel", &name(255)];
        let config = Config {
            working_dir: Some(name(256)),
            volumes: volumes.iter().map(ToString::to_string).collect(),
            ..config()
        };
        let mut said = Vec::new();
        let config = usable(config, &mut |text| said.push(text));
        assert_eq!(config.working_dir, None);
        assert!(config.volumes.iter().eq(["/data", &name(255), "rel"]));
        check(&config, &Boot::default()).unwrap();
        let [dir, volumes] = &said[..] else { panic!("{said:?}") };
        assert!(dir.contains("a name in it has 256 bytes; Linux takes 255; machines start in /"));
        assert!(volumes.contains("\"\": it is empty; 4 of 7 are left out"), "{volumes}");
        for (signal, is) in [("SIGINT", Some("SIGINT")), ("", None), ("FOO", None)] {
            let mut said = 0;
            let config = Config { stop_signal: Some(signal.into()), ..self::config() };
            let config = usable(config, &mut |_| said += 1);
            assert_eq!((config.stop_signal.as_deref(), said), (is, usize::from(is.is_none())));
        }
    }
}
