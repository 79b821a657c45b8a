//! The command line: arguments, terminal, exit codes.

mod args;
mod asked;
mod build;
mod inspect;
mod machine;
mod preview;
mod run;
mod show;
mod transfer;

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::Parser as _;
use rootfs_compile::boot::MACHINE_FAILED;
use rootfs_compile::bundle;
use rootfs_compile::cache::Cache;
use rootfs_compile::manifest;
use rootfs_compile::source::Access;

use self::args::{CacheDir, Cli, Command, RegistryArgs, Schema, SchemaOf, Verify};

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
    let result = match cli.command {
        Command::Build(args) => build::build(&args),
        Command::Run(args) => run::run(&args),
        Command::Inspect(args) => inspect::inspect(&args),
        Command::Verify(args) => verify(&args),
        Command::Push(args) => transfer::push(&args),
        Command::Pull(args) => transfer::pull(&args),
        Command::Export(args) => transfer::export(&args),
        Command::Schema(args) => schema(&args),
    };
    match result {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            // Standard error may be closed; the exit code still tells.
            let _ = writeln!(std::io::stderr(), "error: {error:#}");
            ExitCode::from(if is_run { MACHINE_FAILED } else { FAILED })
        }
    }
}

/// Says what makes no sense; `code` is the exit code that says so, too.
fn usage(error: &str, code: u8) -> u8 {
    let _ = writeln!(std::io::stderr(), "error: {error}");
    code
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
        credentials: set("ROOTFS_COMPILE_USERNAME").map(|name| (name, password())),
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
    writeln!(std::io::stdout(), "{schema:#}")?;
    Ok(0)
}

fn verify(args: &Verify) -> Result<u8> {
    let problems = bundle::verify::verify(&args.dir)?;
    let mut out = std::io::stdout().lock();
    if args.json {
        let all = problems
            .iter()
            .map(|(file, what)| serde_json::json!({ "file": file, "problem": what }));
        let value =
            serde_json::json!({ "ok": problems.is_empty(), "problems": all.collect::<Vec<_>>() });
        writeln!(out, "{value:#}")?;
    } else {
        for (file, what) in &problems {
            writeln!(out, "{file}: {what}")?;
        }
        if problems.is_empty() {
            writeln!(out, "{}: sound", args.dir.display())?;
        }
    }
    Ok(if problems.is_empty() { 0 } else { FAILED })
}
