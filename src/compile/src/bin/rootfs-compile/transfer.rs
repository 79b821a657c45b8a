//! `push`, `pull` and `export`.

use std::path::Path;

use anyhow::{Context as _, Result};
use bundle::place;
use fsimage::io::printable;
use indicatif::HumanBytes;
use rootfs_compile::cache::Cache;
use rootfs_compile::transfer::{self, PullTarget};

use crate::args::{Export, Pull, Push};
use crate::{USAGE, access, cache_dir, keys, say, usage, warn};

pub(crate) fn push(args: &Push) -> Result<u8> {
    let cache = Cache::open(&cache_dir(&args.cache)?)?;
    let name = args.reference.registry_name();
    let name = name.with_context(|| format!("{} is not a name in a registry", args.reference))?;
    let mut access = access(&args.registry);
    access.are_for(&args.reference);
    let bundle = args.read.bundle(&args.dir)?;
    let pushed = transfer::push(bundle, name, &cache, &access, args.provenance.as_deref())?;
    let bytes = HumanBytes(pushed.bytes);
    say(&format!("{name}: {} of {} blobs sent, {bytes}", pushed.sent, pushed.blobs));
    Ok(0)
}

pub(crate) fn pull(args: &Pull) -> Result<u8> {
    let dir = cache_dir(&args.cache)?;
    let mut access = access(&args.registry);
    access.documents = Cache::documents_dir(&dir);
    access.are_for(&args.reference);
    if let Err(error) = place::apart(&args.output, &dir) {
        return Ok(usage(&format!("{error:#}"), USAGE));
    }
    let keys = keys::load(&args.key)?;
    let target = PullTarget {
        output: args.output.clone(),
        force: args.force,
        keys,
        metadata_bytes: args.read.metadata_bytes(),
    };
    let mut reference = args.reference.clone();
    reference.resolve(Path::new(""));
    let index = transfer::pull(&reference, &target, &Cache::open(&dir)?, &access, &warn)?;
    say(&format!(
        "{}: {} layers of {}",
        args.output.display(),
        index.layers.len(),
        printable::line(&index.image.reference)
    ));
    Ok(0)
}

pub(crate) fn export(args: &Export) -> Result<u8> {
    let cache = || Cache::open(&cache_dir(&args.cache)?);
    let (to, bundle) = (&args.to, args.read.bundle(&args.dir)?);
    if let Some(raw) = &to.raw {
        transfer::to_raw(bundle, raw)?;
    } else if let Some(tar) = &to.tar {
        transfer::to_tar(bundle, tar)?;
    } else if let Some(layout) = &to.oci_layout {
        transfer::to_layout(bundle, layout, &args.tag, &cache()?, &warn)?;
    } else if let Some(archive) = &to.oci_archive {
        transfer::to_archive(bundle, archive, &args.tag, &cache()?)?;
    }
    Ok(0)
}
