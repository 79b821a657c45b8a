//! The command line: arguments, terminal, exit codes.

mod args;
mod inspect;
mod preview;
mod show;
mod transfer;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context as _, Result};
use clap::Parser as _;
use indicatif::HumanBytes;
use rootfs_compile::bundle;
use rootfs_compile::cache::Cache;
use rootfs_compile::compile::{self, Request};
use rootfs_compile::manifest::{self, LockUse, Manifest};
use rootfs_compile::source::Access;

use self::args::{Build, CacheDir, Cli, Command, Progress, RegistryArgs, Schema, SchemaOf, Verify};

/// The build failed, or the bundle is not sound.
const FAILED: u8 = 1;
/// What was typed, or the manifest, makes no sense.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Build(args) => build(&args),
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
            ExitCode::from(FAILED)
        }
    }
}

fn build(args: &Build) -> Result<u8> {
    let started = Instant::now();
    let set = args.set.iter().cloned().collect();
    let manifest = match Manifest::load(&args.manifest, &set) {
        Ok(manifest) => manifest,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "error: {error}");
            return Ok(USAGE);
        }
    };
    let request = Request {
        manifest,
        output: args.output.clone().unwrap_or_default(),
        force: args.force,
        cache_dir: cache_dir(&args.cache)?,
        jobs: args.jobs.map_or(0, usize::from),
        platform: args.platform.clone(),
        limits: args.limits.limits(),
        access: access(&args.registry),
        lock: LockUse {
            path: lock_path(&args.manifest),
            write: args.lock.lock || args.lock.update,
            update: args.lock.update,
            required: args.lock.locked,
        },
        cache_from: args.shared.cache_from.clone(),
        cache_to: args.shared.cache_to.clone(),
        source_date_epoch: args.source_date_epoch.and_then(|epoch| epoch.0),
    };
    let reporter = show::reporter(args.progress, args.quiet, args.verbose);
    if args.dry_run {
        let preview = compile::preview(&request, &*reporter)?;
        preview::print(&request.manifest, &preview, args.json)?;
        return Ok(0);
    }
    let summary = compile::build(&request, &*reporter)?;
    if args.quiet || args.progress == Progress::None {
        return Ok(0);
    }
    let seconds = started.elapsed().as_secs_f64();
    let _ = if args.progress == Progress::Json {
        let value = serde_json::json!({
            "event": "done",
            "output": request.output.to_string_lossy(),
            "layers": summary.layers,
            "cached": summary.cached,
            "bytes_in": summary.bytes_in,
            "bytes_out": summary.bytes_out,
            "seconds": seconds,
        });
        writeln!(std::io::stderr(), "{value}")
    } else {
        let (read, made) = (HumanBytes(summary.bytes_in), HumanBytes(summary.bytes_out));
        let more =
            if args.verbose { format!(", {} inodes", summary.inodes) } else { String::new() };
        writeln!(
            std::io::stderr(),
            "{}: {} layers ({} cached), {read} in, {made} out{more}, {seconds:.2} s",
            request.output.display(),
            summary.layers,
            summary.cached,
        )
    };
    Ok(0)
}

fn access(args: &RegistryArgs) -> Access {
    let set = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
    let password = || set("ROOTFS_COMPILE_PASSWORD").unwrap_or_default();
    Access {
        insecure: args.insecure_registry.clone(),
        ca_certs: args.ca_cert.clone(),
        offline: args.offline,
        credentials: set("ROOTFS_COMPILE_USERNAME").map(|name| (name, password())),
        ..Access::default()
    }
}

/// `NAME.lock` beside `NAME.yaml`.
fn lock_path(manifest: &Path) -> PathBuf {
    match manifest.extension().is_some_and(|extension| extension == "yaml" || extension == "yml") {
        true => manifest.with_extension("lock"),
        false => PathBuf::from(format!("{}.lock", manifest.display())),
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
