//! The command line: arguments, terminal, exit codes.

mod args;
mod asked;
mod build;
mod cache;
mod generate;
mod inspect;
mod keys;
mod machine;
mod preview;
mod run;
mod show;
mod transfer;

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use bundle::sound::{self, Problem};
use clap::Parser as _;
use fsimage::io::{ending, printable, process};
use oci::{Access, Credentials};
use rootfs_boot::MACHINE_FAILED;
use rootfs_compile::cache::Cache;
use rootfs_compile::manifest;
use rustix::fs::Mode;

use self::args::{CacheDir, Cli, Command, RegistryArgs, Schema, SchemaOf, Verify};

/// What errors of writing the product of a command are about.
const STDOUT: &str = "standard output";

/// The build failed, or the bundle is not sound.
const FAILED: u8 = 1;
/// What was typed, or the manifest, makes no sense.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    // What keeps a machine from starting must not look like an exit code of its
    // command.
    let is_run = std::env::args_os().nth(1).is_some_and(|command| command == "run");
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are no errors.
            let _ = error.print();
            let code = if is_run { MACHINE_FAILED } else { USAGE };
            return ExitCode::from(if error.use_stderr() { code } else { 0 });
        }
    };
    // What this program makes, it can use: no umask takes that from its owner.
    let umask = rustix::process::umask(Mode::RWXG | Mode::RWXO);
    rustix::process::umask(umask & (Mode::RWXG | Mode::RWXO));
    let failed = if is_run { MACHINE_FAILED } else { FAILED };
    let ran = process::run("error: ", failed, || run_command(cli.command, failed));
    ExitCode::from(ran.unwrap_or_else(|error| usage(error, failed)))
}

/// Runs what was typed; `failed` is the exit code of a failure.
fn run_command(command: Command, failed: u8) -> u8 {
    let run = || match command {
        Command::Build(args) => build::build(&args),
        Command::Run(args) => run::run(&args),
        Command::Inspect(args) => inspect::inspect(&args),
        Command::Verify(args) => verify(&args),
        Command::Keygen(args) => keys::keygen(&args),
        Command::Sign(args) => keys::sign(&args),
        Command::Push(args) => transfer::push(&args),
        Command::Pull(args) => transfer::pull(&args),
        Command::Export(args) => transfer::export(&args),
        Command::Cache(args) => cache::cache(&args),
        Command::Schema(args) => schema(&args),
        Command::Generate(args) => generate::generate(&args),
    };
    let result = ending::watch().context("waiting for signals").and_then(|()| run());
    // What a signal interrupts ends by that signal.
    ending::wait_if_ending();
    result.unwrap_or_else(|error| {
        let text = format!("error: {error:#}");
        match process::advice(&text) {
            Some(advice) => say(&format!("{text}: {advice}")),
            None => say(&text),
        }
        failed
    })
}

/// Says something that the user may want to know.
fn warn(text: &str) {
    say(&format!("warning: {text}"));
}

/// Says what makes no sense; `code` is the exit code that says so, too.
fn usage(error: &str, code: u8) -> u8 {
    say(&format!("error: {error}"));
    code
}

/// Says a line on standard error. That it is closed or full is no reason to fail:
/// the exit code still tells.
fn say(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{}", printable::line(text));
}

fn access(args: &RegistryArgs) -> Access {
    let set = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
    let password = || set("ROOTFS_COMPILE_PASSWORD").unwrap_or_default();
    let named = set("ROOTFS_COMPILE_INSECURE_REGISTRIES").unwrap_or_default();
    let named = named
        .split(|c: char| c == ',' || c.is_whitespace())
        .filter(|host| !host.is_empty())
        .map(str::to_owned);
    Access {
        insecure: args.insecure_registry.iter().cloned().chain(named).collect(),
        ca_certs: args.ca_cert.clone(),
        offline: args.offline,
        min_rate: args.min_rate,
        credentials: set("ROOTFS_COMPILE_USERNAME").map(|name| Credentials {
            name,
            password: password(),
            registry: set("ROOTFS_COMPILE_REGISTRY"),
        }),
        ..Access::default()
    }
}

/// The cache that was named, or the user's own.
fn cache_dir(cache: &CacheDir) -> Result<PathBuf> {
    let dir = cache.cache_dir.clone().or_else(Cache::default_dir);
    dir.context("no place for the cache: set --cache-dir, ROOTFS_COMPILE_CACHE or HOME")
}

fn schema(args: &Schema) -> Result<u8> {
    let schema = match args.of {
        SchemaOf::Manifest => manifest::manifest_schema(),
        SchemaOf::Patches => manifest::patches_schema(),
    };
    writeln!(std::io::stdout(), "{schema:#}").context(STDOUT)?;
    Ok(0)
}

fn verify(args: &Verify) -> Result<u8> {
    let wanted = keys::load(&args.key)?;
    let problems = sound::verify(&args.read.bundle(&args.dir)?, &wanted);
    let mut out = std::io::stdout().lock();
    if args.json {
        let all = problems.iter().map(|Problem { path, error }| {
            serde_json::json!({ "file": path, "problem": format!("{error:#}") })
        });
        let value =
            serde_json::json!({ "ok": problems.is_empty(), "problems": all.collect::<Vec<_>>() });
        writeln!(out, "{}", printable::json(&value)?).context(STDOUT)?;
    } else {
        for Problem { path, error } in &problems {
            writeln!(out, "{}", printable::line(&format!("{path}: {error:#}"))).context(STDOUT)?;
        }
        if problems.is_empty() {
            let dir = args.dir.display().to_string();
            writeln!(out, "{}: sound", printable::line(&dir)).context(STDOUT)?;
        }
    }
    Ok(if problems.is_empty() { 0 } else { FAILED })
}
