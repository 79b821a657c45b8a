//! Gets the compiled layers of an image, each from a cache or by compiling its blob.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context as _, Result, ensure};
use bundle::staging::{Staging, is_own};
use fsimage::digest::DiffId;
use fsimage::io::threads;
use fsimage::tree::Tree;
use fsimage::tree::extents::Extents;

use super::shared;
use crate::build::context::Build;
use crate::build::object::{Ready, read_object};
use crate::cache::store::{Object, Slot};
use crate::layer;
use crate::layer::limits::Limits;
use crate::progress::Event;

/// Compiles every layer that no cache has, and puts all layers into the bundle that is being
/// made, if one is.
pub(super) fn layers(build: &Build<'_>) -> Result<BTreeMap<DiffId, Ready>> {
    let Build { request, image, .. } = build;
    // Equal layers are one job. The largest come first, so that none is left
    // to one core at the end.
    let mut jobs: BTreeMap<DiffId, usize> = BTreeMap::new();
    for (i, layer) in image.layers.iter().enumerate() {
        jobs.entry(layer.diff_id).or_insert(i);
    }
    let mut order: Vec<usize> = jobs.into_values().collect();
    order.sort_by_key(|i| (std::cmp::Reverse(image.layers[*i].size), *i));

    let pool = threads::own_pool(request.jobs)?;
    let failed = AtomicBool::new(false);
    let results = Mutex::new(Vec::new());
    pool.in_place_scope_fifo(|scope| {
        for i in order {
            let (failed, results) = (&failed, &results);
            scope.spawn_fifo(move |_| {
                if failed.load(Ordering::Relaxed) {
                    return;
                }
                let layer = &image.layers[i];
                let ready = one_layer(build, i)
                    .with_context(|| format!("layer {} ({})", i + 1, layer.label()));
                failed.fetch_or(ready.is_err(), Ordering::Relaxed);
                results.lock().expect("no holder panics").push((i, ready));
            });
        }
    });
    let mut results = results.into_inner().expect("no holder panics");
    results.sort_by_key(|(i, _)| *i);
    let ready = results.into_iter().map(|(i, ready)| Ok((image.layers[i].diff_id, ready?)));
    ready.collect()
}

/// Gets layer `i` of the image: from the cache, from a repository of --cache-from, or from its
/// blob.
fn one_layer(build: &Build<'_>, i: usize) -> Result<Ready> {
    let Build { image, staging, .. } = build;
    let layer = &image.layers[i];
    let slot = build.cache.slot(layer.diff_id, &|text| build.warn(text))?;
    let mut known = match slot.object()? {
        Some(object) => cached_layer(build, object, layer.diff_id)?,
        None => None,
    };
    if known.is_some() {
        image.check_size(i)?;
    } else {
        known = shared::fetch(build, layer.diff_id, &slot);
        if let Some((object, _)) = &known
            && !place(object, layer.diff_id, *staging)?
        {
            build.warn(DAMAGED);
            known = None;
        }
    }
    let cached = known.is_some();
    let (object, tree) = match known {
        Some(known) => known,
        None => {
            let made = make_object(build, i, &slot)?;
            let placed = place(&made.0, layer.diff_id, *staging)?;
            ensure!(placed, "its object in the cache changed while it was copied");
            if !made.0.kept {
                build.warn(&format!(
                    "the cache has another user's file in place of the layer {}, which is damaged",
                    layer.diff_id
                ));
            }
            made
        }
    };
    let record = &object.record;
    build.reporter.event(Event::Layer { layer: i, cached, bytes: record.size });
    Ok(Ready {
        tree,
        blake3: record.blake3,
        size: record.size,
        uncompressed: record.uncompressed,
        cached,
        file: object.file.into(),
    })
}

const DAMAGED: &str = "a cached layer is damaged, and is rebuilt";

/// Puts `object` into the bundle that is being made, if one is. Returns false if its content is
/// not what its record says.
fn place(object: &Object, diff_id: DiffId, staging: Option<&Staging>) -> Result<bool> {
    let Some(staging) = staging else {
        return Ok(true);
    };
    staging.adopt(&object.file, object.record.blake3, &bundle::layer_path(diff_id))
}

/// Puts the cache's `object` into the bundle that is being made, if one is, and reads it.
/// `None`, with a warning, if it is damaged.
fn cached_layer(
    build: &Build<'_>,
    mut object: Object,
    diff_id: DiffId,
) -> Result<Option<(Object, Tree<Extents>)>> {
    let Build { staging, budgets, .. } = *build;
    if !place(&object, diff_id, staging)? {
        build.warn(DAMAGED);
        return Ok(None);
    }
    let path = bundle::layer_path(diff_id);
    if let Some(staging) = staging
        && !is_own(&object.file)?
    {
        // Another user can write to the cache's file at any time, so that the bundle's copy,
        // which was checked, is read instead.
        object.file = staging.open(&path).with_context(|| path.clone())?;
    }
    match read_object(&object, budgets, u64::MAX) {
        Ok(tree) => Ok(Some((object, tree))),
        Err(error) => {
            build.warn(&format!("a cached layer is rebuilt: {error:#}"));
            staging.map_or(Ok(()), |staging| staging.discard(&path)).context(path)?;
            Ok(None)
        }
    }
}

/// Compiles layer `i` of the image into the cache.
fn make_object(build: &Build<'_>, i: usize, slot: &Slot) -> Result<(Object, Tree<Extents>)> {
    let Build { request, budgets, image, reporter, .. } = *build;
    let layer = &image.layers[i];
    let progress = |bytes| reporter.event(Event::Read { layer: i, bytes });
    let made = slot.create()?;
    let file = made.file().try_clone()?;
    let blob = image.blob(i)?;
    // In an archive that is compressed as a whole, a layer may expand less, so that the two
    // expansions together stay within the limit.
    let expansion = (request.limits.expansion / image.expanded()).max(1);
    let limits = Limits { expansion, ..request.limits };
    let outcome = layer::compile(blob, layer.diff_id, file, &limits, budgets, &progress);
    let compiled = outcome.checked(|digest, size| layer.check(digest, size))?;
    ensure!(
        compiled.diff_id == layer.diff_id,
        "its content has the diff ID {}, not {} as the config says",
        compiled.diff_id,
        layer.diff_id
    );
    let object = slot.publish(made, compiled.blake3, compiled.uncompressed)?;
    Ok((object, compiled.tree))
}
