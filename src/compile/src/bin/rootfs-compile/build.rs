//! `build`: an image or a manifest as a bundle.

use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use bundle::place;
use fsimage::io::atomic_file;
use indicatif::HumanBytes;
use rootfs_compile::build::{self, Request, Summary};
use rootfs_compile::provenance;

use crate::args::{Build, CompileArgs, Progress};
use crate::asked::Asked;
use crate::show::{self, say_json};
use crate::{USAGE, access, cache_dir, preview, say, usage};

pub(crate) fn build(args: &Build) -> Result<u8> {
    let started = Instant::now();
    let given = &args.compile;
    let read = || -> Result<_, String> {
        let asked = Asked::new(&args.image, given)?;
        let mut lock = asked.lock(&args.lock)?;
        // What would be done is said, and not done.
        lock.write &= !args.dry_run;
        Ok((asked.manifest()?, lock, asked))
    };
    let (manifest, lock, asked) = match read() {
        Ok(read) => read,
        Err(error) => return Ok(usage(&error, USAGE)),
    };
    let request = Request {
        output: args.output.clone().unwrap_or_default(),
        force: args.force,
        lock,
        cache_from: args.shared.cache_from.clone(),
        cache_to: args.shared.cache_to.clone(),
        ..request(given, manifest)?
    };
    if args.output.is_some()
        && let Err(error) = place::apart(&request.output, &request.cache_dir)
    {
        return Ok(usage(&format!("{error:#}"), USAGE));
    }
    let reporter = show::reporter(given.progress, given.quiet, args.verbose);
    if args.dry_run {
        let preview = build::preview(&request, &*reporter)?;
        preview::print(&request.manifest, &preview, args.json)?;
        return Ok(0);
    }
    if let Some(path) = &args.provenance {
        provenance::check_place(path, &request.output, &request.cache_dir)?;
    }
    let inputs = || provenance::Inputs::of(&request.manifest, asked.file());
    let before = args.provenance.as_ref().map(|_| inputs()).transpose()?;
    let summary = build::build(&request, &*reporter)?;
    if let (Some(path), Some(before)) = (&args.provenance, before) {
        ensure!(before == inputs()?, "a file that the bundle is made of was changed meanwhile");
        let set = &given.set;
        let text = provenance::statement(&request.output, &request.manifest, &before, set)?;
        atomic_file::write(path, &mut &text[..]).with_context(|| path.display().to_string())?;
    }
    let name = request.output.to_string_lossy();
    say_done(&name, given, &summary, args.verbose, started);
    Ok(0)
}

/// What to compile, as far as the options of every command that compiles say so.
pub(crate) fn request(
    args: &CompileArgs,
    manifest: rootfs_compile::manifest::Manifest,
) -> Result<Request> {
    let mut access = access(&args.registry);
    access.archive_bytes = args.limits.max_archive_bytes;
    access.max_document_bytes = args.limits.max_document_bytes;
    access.are_for(&manifest.image);
    Ok(Request {
        manifest,
        output: std::path::PathBuf::new(),
        force: false,
        cache_dir: cache_dir(&args.cache)?,
        jobs: args.jobs.map_or(0, usize::from),
        platform: args.platform.clone(),
        limits: args.limits.limits(),
        access,
        lock: rootfs_compile::manifest::LockUse::default(),
        cache_from: Vec::new(),
        cache_to: Vec::new(),
        source_date_epoch: args.source_date_epoch.and_then(|epoch| epoch.0),
    })
}

/// Says what was made, `name`, unless nothing is to be said.
pub(crate) fn say_done(
    name: &str,
    args: &CompileArgs,
    made: &Summary,
    verbose: bool,
    started: Instant,
) {
    if args.quiet || args.progress == Progress::None {
        return;
    }
    let seconds = started.elapsed().as_secs_f64();
    if args.progress == Progress::Json {
        let value = serde_json::json!({
            "event": "done",
            "output": name,
            "layers": made.layers,
            "cached": made.cached,
            "bytes_in": made.bytes_in,
            "bytes_out": made.bytes_out,
            "seconds": seconds,
        });
        say_json(&value);
    } else {
        let (read, written) = (HumanBytes(made.bytes_in), HumanBytes(made.bytes_out));
        let more = if verbose { format!(", {} inodes", made.inodes) } else { String::new() };
        say(&format!(
            "{name}: {} layers ({} cached), {read} in, {written} out{more}, {seconds:.2} s",
            made.layers, made.cached,
        ));
    }
}
