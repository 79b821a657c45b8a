//! `run`: compiles unless that is done, and becomes `rootfs-boot`.

use std::env;
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsRawFd as _, RawFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context as _, Result, anyhow, bail};
use clap::Parser as _;
use fsimage::io::ending;
use oci::{FileForm, ImageFiles, ImageRef, Platform, layout_file};
use rootfs_boot::args::Cli;
use rootfs_boot::{MACHINE_FAILED, krunfw};
use rootfs_compile::build::{self, Request};
use rootfs_compile::bundle_cache::{BundleSlot, CachedBundle, Origin};
use rootfs_compile::manifest::{LockUse, Manifest};
use rootfs_compile::word::Word;
use rustix::io::FdFlags;

use crate::args::{PullPolicy, Run};
use crate::asked::Asked;
use crate::build::{request, say_done};
use crate::{cache_dir, show, usage, warn};

const PROGRAM: &str = "rootfs-boot";

/// Returns only if there is no machine: all its exit codes are the command's.
pub(crate) fn run(args: &Run) -> Result<u8> {
    let program = program()?;
    let asked = match Asked::new(&args.image, &args.compile) {
        Ok(asked) => asked,
        Err(error) => return Ok(usage(&error, MACHINE_FAILED)),
    };
    let place = place(args, &asked)?;
    let found = match find(&place)? {
        // Where nothing may have changed, nobody is asked.
        Some(known) if args.pull != PullPolicy::Always => known,
        known => {
            machine_can_be(args, &program)?;
            let manifest = match asked.manifest() {
                Ok(manifest) => manifest,
                Err(error) => return Ok(usage(&error, MACHINE_FAILED)),
            };
            compile(args, &asked, &place, manifest, known)?
        }
    };
    // What was looked at is started: others may be able to rename what leads to it.
    let fd = found.bundle.file();
    rustix::io::fcntl_setfd(fd, FdFlags::empty()).context("passing on the bundle")?;
    let error = command(args, &program, &found.bundle.path, Some(fd.as_raw_fd())).exec();
    Err(anyhow!("{}: {error}", program.display()))
}

/// The place of the bundle that `args` ask for.
fn place(args: &Run, asked: &Asked) -> Result<BundleSlot> {
    let given = &args.compile;
    let absolute = |path: &Path| std::path::absolute(path).map(PathBuf::into_os_string);
    let stem = |path: &Path| path.file_stem().unwrap_or_default().to_owned();
    let mut parts: Vec<OsString> = Vec::new();
    let name: OsString = match &asked.word {
        Word::Manifest(path) => {
            parts.extend(["manifest".into(), absolute(path)?]);
            stem(path)
        }
        Word::Stdin => {
            let text = asked.stdin.as_deref().unwrap_or_default();
            let here = env::current_dir().context("the current directory")?;
            parts.extend(["stdin".into(), OsStr::from_bytes(text).into(), here.into()]);
            "".into()
        }
        Word::Image(image) => {
            parts.extend(["image".into(), image.to_string().into(), absolute_of(image)?]);
            match &**image {
                ImageRef::Registry { name, .. } => {
                    name.repository().rsplit('/').next().unwrap_or_default().into()
                }
                ImageRef::Daemon { name, .. } => stem(Path::new(name)),
                ImageRef::Files(files) => stem(&files.path),
            }
        }
    };
    let platform = given.platform.clone().unwrap_or_else(Platform::host);
    let platform_is_given = given.platform.is_some();
    let epoch = given.source_date_epoch.and_then(|epoch| epoch.0);
    parts.push(format!("{platform} {platform_is_given} {epoch:?} {:?}", asked.set).into());
    let parts: Vec<&[u8]> = parts.iter().map(|part| part.as_bytes()).collect();
    Ok(BundleSlot::new(&cache_dir(&given.cache)?, &parts, &name.to_string_lossy()))
}

fn absolute_of(image: &ImageRef) -> Result<OsString> {
    match image {
        ImageRef::Files(files) => Ok(std::path::absolute(&files.path)?.into_os_string()),
        ImageRef::Registry { .. } | ImageRef::Daemon { .. } => Ok(OsString::new()),
    }
}

/// The bundle that answers, unless docker has another image by now.
fn find(place: &BundleSlot) -> Result<Option<CachedBundle>> {
    let Some(found) = place.find() else {
        return Ok(None);
    };
    let is = match &found.origin.daemon {
        Some((name, id)) => oci::daemon_image_id(name)? == *id,
        None => true,
    };
    Ok(is.then_some(found))
}

/// Compiles `manifest`, unless it turns out that `known` is what that would give.
fn compile(
    args: &Run,
    asked: &Asked,
    place: &BundleSlot,
    manifest: Manifest,
    known: Option<CachedBundle>,
) -> Result<CachedBundle> {
    let started = Instant::now();
    let given = &args.compile;
    let mut request = Request {
        lock: LockUse { path: asked.lock_path(), ..LockUse::default() },
        ..request(given, manifest)?
    };
    request.access.offline |= args.pull == PullPolicy::Never;
    let mut wanted = None;
    if args.pull == PullPolicy::Always {
        wanted = Some(build::resolve(&request, &warn)?);
    }
    let is_wanted =
        |found: &CachedBundle| wanted.is_none_or(|digest| digest == found.origin.digest);
    if let Some(known) = known.filter(is_wanted) {
        return Ok(known);
    }
    // What was just asked for, or seen before, is not asked for again.
    request.access.known_tags = true;

    let guard = place.lock(&warn)?;
    // Another run may have compiled the same meanwhile.
    if let Some(found) = find(place)?.filter(is_wanted) {
        return Ok(found);
    }
    let daemon = match &request.manifest.image {
        ImageRef::Daemon { name, .. } => Some((name.clone(), oci::daemon_image_id(name)?)),
        _ => None,
    };
    let attempt = guard.attempt(&inputs(asked, &request.manifest))?;
    request.output = attempt.target();
    let undo = ending::undo(attempt.removal());
    let reporter = show::reporter(given.progress, given.quiet, false);
    let summary = build::build_in(&request, attempt.parent(), &*reporter);
    drop(undo);
    let summary = summary.inspect_err(|_| attempt.removal()())?;
    say_done(&args.image.to_string_lossy(), given, &summary, false, started);
    let (_, index) = bundle::opened::Place::of(&attempt.bundle()?)?.index()?;
    let digest = index.image.manifest_digest.unwrap_or(index.image.config_digest);
    attempt.publish(Origin { digest, daemon })
}

/// The files that the bundle is made of.
fn inputs(asked: &Asked, manifest: &Manifest) -> Vec<PathBuf> {
    let mut inputs = manifest.included.clone();
    if let Word::Manifest(path) = &asked.word {
        inputs.extend([path.clone(), asked.lock_path()]);
    }
    let patches = manifest.patches.iter();
    inputs.extend(patches.filter_map(|patch| patch.op.host_path()).map(Path::to_owned));
    inputs.extend(manifest.verify_image.iter().map(|verify| verify.cosign_key.clone()));
    if let ImageRef::Files(ImageFiles { form, path, .. }) = &manifest.image {
        match form {
            // Blobs are called by their digests.
            FileForm::Oci => {
                inputs
                    .extend([layout_file::INDEX, layout_file::LAYOUT].map(|name| path.join(name)));
            }
            FileForm::Dir => inputs.push(path.join("manifest.json")),
            FileForm::OciArchive | FileForm::DockerArchive | FileForm::Archive => {
                inputs.push(path.clone());
            }
        }
    }
    inputs
}

/// What becomes the machine. The bundle is open as the descriptor `fd`, once it is there.
fn command(args: &Run, program: &Path, bundle: &Path, fd: Option<RawFd>) -> Command {
    let mut command = Command::new(program);
    command.arg0(PROGRAM).arg(bundle).args(&args.machine.0);
    command.args(fd.map(|fd| format!("--bundle-fd={fd}")));
    if !args.command.is_empty() {
        command.arg("--").args(&args.command);
    }
    command
}

/// Tells before anything is compiled what would keep the machine from starting.
fn machine_can_be(args: &Run, program: &Path) -> Result<()> {
    // The bundle is not there yet, and does not matter.
    let command = command(args, program, Path::new("bundle"), None);
    let typed = std::iter::once(OsStr::new(PROGRAM)).chain(command.get_args());
    let parsed = Cli::try_parse_from(typed);
    let parsed = parsed.map_err(|e| anyhow!("{}", e.to_string().trim_start_matches("error: ")))?;
    let options = parsed.options()?;
    krunfw::find(options.krunfw.as_deref()).map(drop)
}

/// The `rootfs-boot` beside this program, else the one in PATH.
fn program() -> Result<PathBuf> {
    let own = env::current_exe().context("this program's own path")?;
    let beside = own.with_file_name(PROGRAM);
    if beside.is_file() {
        return Ok(beside);
    }
    let path = env::var_os("PATH").unwrap_or_default();
    let found = env::split_paths(&path).map(|dir| dir.join(PROGRAM)).find(|path| path.is_file());
    match found {
        Some(found) => Ok(found),
        None => bail!("{PROGRAM} is neither beside {} nor in PATH; install it", own.display()),
    }
}
