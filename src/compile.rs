//! A build, pass by pass.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context as _, Result, ensure};

use crate::bundle::content::{Content, nonzero_blocks};
use crate::bundle::index::{self, Config, DiskExtent, FileEntry, Index};
use crate::bundle::publish::Staging;
use crate::bundle::{self, vmdk};
use crate::cache::{Cache, Object, Slot};
use crate::digest::DiffId;
use crate::erofs::fsmeta::{self, LayerDevice};
use crate::erofs::plan::Form;
use crate::erofs::read::Reader;
use crate::ext4;
use crate::layer::{self, Limits};
use crate::manifest::{Manifest, Platform};
use crate::map;
use crate::progress::{Event, LayerName, Reporter};
use crate::sink::FileSink;
use crate::source::Image;
use crate::tree::extents::Extents;
use crate::tree::merge::Merger;
use crate::tree::{Dir, Inode, InodeId, Kind, Name, Stat, Tree, Xattrs};
use crate::units::DeviceId;

/// What to build, where, and how.
pub struct Request {
    pub manifest: Manifest,
    pub output: PathBuf,
    /// Replace a bundle that is there.
    pub force: bool,
    pub cache_dir: PathBuf,
    /// Layers at once; 0 is one for each core.
    pub jobs: usize,
    /// In place of the manifest's.
    pub platform: Option<Platform>,
    pub limits: Limits,
}

/// What a build made.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    pub layers: usize,
    pub cached: usize,
    /// Bytes of blobs that were read.
    pub bytes_in: u64,
    /// Bytes of fsmeta and layers.
    pub bytes_out: u64,
    pub inodes: usize,
}

/// A layer that is in the bundle.
struct Ready {
    tree: Tree<Extents>,
    blake3: blake3::Hash,
    size: u64,
    uncompressed: u64,
    cached: bool,
}

/// Builds what `request` asks for.
pub fn build(request: &Request, reporter: &dyn Reporter) -> Result<Summary> {
    let manifest = &request.manifest;
    let wanted = request.platform.clone().or_else(|| manifest.platform.clone());
    let image = Image::open(&manifest.image, &wanted.unwrap_or_else(Platform::host))?;
    // From here on, the image is known, and its documents have their digests.

    let staging = Staging::new(&request.output, request.force)?;
    let cache = Cache::open(&request.cache_dir)?;
    let names = image.layers.iter().map(|l| LayerName { digest: l.label(), bytes: l.size });
    reporter.event(Event::Layers(names.collect()));
    let mut ready = layers(request, &image, &cache, &staging, reporter)?;
    // From here on, every layer is in the bundle, and is what its diff ID says.

    reporter.event(Event::Stage("merge"));
    let mut summary = Summary { layers: image.layers.len(), ..Summary::default() };
    let mut entries = Vec::new();
    let mut devices = Vec::new();
    let mut merger = Merger::default();
    for (i, layer) in image.layers.iter().enumerate() {
        let again = image.layers[i + 1..].iter().any(|later| later.diff_id == layer.diff_id);
        let ready = ready.get_mut(&layer.diff_id).expect("every layer is ready");
        let tree = match again {
            true => ready.tree.clone(),
            false => std::mem::replace(&mut ready.tree, Tree::new(Stat::IMPLIED_DIR)),
        };
        let notes = merger
            .add(tree, DeviceId(u16::try_from(i + 1).context("more than 65535 layers")?))
            .with_context(|| format!("layer {} ({})", i + 1, layer.label()))?;
        devices.push(LayerDevice {
            diff_id: layer.diff_id,
            blake3: ready.blake3,
            size: ready.size,
        });
        summary.cached += usize::from(ready.cached);
        summary.bytes_in += if ready.cached { 0 } else { layer.size };
        summary.bytes_out += ready.size;
        let mut entry = index::Layer {
            diff_id: layer.diff_id,
            digest: layer.digest,
            media_type: layer.media_type.clone(),
            compressed: layer.size,
            uncompressed: ready.uncompressed,
            path: bundle::layer_path(layer.diff_id),
            through_links: Vec::new(),
            dropped_xattrs: Vec::new(),
        };
        entry.note(&notes);
        if !notes.dropped_xattrs.is_empty() {
            let (n, count) = (i + 1, notes.dropped_xattrs.len());
            let text = format!(
                "layer {n}: {count} files lost xattrs that an image cannot have; inspect lists them"
            );
            reporter.event(Event::Warning(text));
        }
        entries.push(entry);
    }
    drop(ready);
    let tree = merger.finish();
    // From here on, there is one tree, and no layer matters to it.

    reporter.event(Event::Stage("write"));
    let fsmeta =
        fsmeta::write(&tree, &devices, staging.create(bundle::FSMETA)?).context(bundle::FSMETA)?;
    fsmeta.file.sync_all()?;
    let (fsmeta_hash, fsmeta_size) = (fsmeta.blake3, fsmeta.file.metadata()?.len());
    summary.inodes = fsmeta.inodes;
    summary.bytes_out += fsmeta_size;
    let upper = write_upper(&tree, manifest.upper.size.0, fsmeta_hash, &staging)?;

    let mut disk = vec![vmdk::Extent { path: bundle::FSMETA.into(), size: fsmeta_size }];
    let on_disk = entries.iter().zip(&devices);
    disk.extend(on_disk.map(|(l, d)| vmdk::Extent { path: l.path.clone(), size: d.size }));
    let cid = u32::from_le_bytes(*fsmeta_hash.as_bytes().first_chunk().expect("32 bytes"));
    // The largest numbers mean "no parent" and "no content".
    let descriptor = vmdk::descriptor(&disk, cid & 0x7fff_ffff);
    write_file(&staging, bundle::VMDK, descriptor.as_bytes())?;

    let hex = |hash: blake3::Hash| Content::Blake3(hash.to_hex().to_string());
    let entry = |path: &str, size, content| FileEntry { path: path.to_owned(), size, content };
    let mut files = vec![
        entry(bundle::VMDK, descriptor.len() as u64, hex(blake3::hash(descriptor.as_bytes()))),
        entry(bundle::FSMETA, fsmeta_size, hex(fsmeta_hash)),
        entry(bundle::UPPER, manifest.upper.size.0, upper),
    ];
    for (layer, device) in entries.iter().zip(&devices) {
        if !files.iter().any(|file| file.path == layer.path) {
            files.push(entry(&layer.path, device.size, hex(device.blake3)));
        }
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    let index = Index {
        format: index::FORMAT.into(),
        version: index::VERSION,
        image: index::Image {
            reference: manifest.image.to_string(),
            manifest_digest: image.manifest_digest,
            config_digest: image.config_digest,
            platform: image.platform.clone(),
        },
        config: Config::of(&image.config),
        boot: manifest.boot.clone(),
        layers: entries,
        files,
        disk: disk_map(&disk),
    };
    let mut json = serde_json::to_vec_pretty(&index)?;
    json.push(b'\n');
    write_file(&staging, bundle::INDEX, &json)?;
    staging.publish(request.force)?;
    // From here on, the bundle is there, whole.
    Ok(summary)
}

/// Brings every layer into the bundle, from the cache or from its blob.
fn layers(
    request: &Request,
    image: &Image,
    cache: &Cache,
    staging: &Staging,
    reporter: &dyn Reporter,
) -> Result<BTreeMap<DiffId, Ready>> {
    // Equal layers are one job. The largest come first, so that none is left
    // to one core at the end.
    let mut jobs: BTreeMap<DiffId, usize> = BTreeMap::new();
    for (i, layer) in image.layers.iter().enumerate() {
        jobs.entry(layer.diff_id).or_insert(i);
    }
    let mut order: Vec<usize> = jobs.into_values().collect();
    order.sort_by_key(|i| (std::cmp::Reverse(image.layers[*i].size), *i));

    let pool = rayon::ThreadPoolBuilder::new().num_threads(request.jobs).build()?;
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
                let ready = one_layer(request, image, i, cache, staging, reporter)
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

fn one_layer(
    request: &Request,
    image: &Image,
    i: usize,
    cache: &Cache,
    staging: &Staging,
    reporter: &dyn Reporter,
) -> Result<Ready> {
    let layer = &image.layers[i];
    let slot = cache.slot(layer.diff_id)?;
    let known = match slot.object()? {
        Some(object) => match read_object(&object) {
            Ok(tree) => Some((object, tree)),
            Err(error) => {
                let text = format!("a cached layer is rebuilt: {error:#}");
                reporter.event(Event::Warning(text));
                None
            }
        },
        None => None,
    };
    let cached = known.is_some();
    let (object, tree) = match known {
        Some(known) => known,
        None => {
            let made = make_object(request, image, i, &slot, reporter);
            if made.is_err() {
                slot.discard();
            }
            made?
        }
    };
    staging.adopt(&object.file, &object.path, &bundle::layer_path(layer.diff_id))?;
    // A hard link changed the inode, not what it holds.
    let object = slot.restamp(object)?;
    let record = &object.record;
    reporter.event(Event::Layer { layer: i, cached, bytes: record.size });
    Ok(Ready {
        tree,
        blake3: blake3::Hash::from_hex(&record.blake3).context("the cache's record")?,
        size: record.size,
        uncompressed: record.uncompressed,
        cached,
    })
}

fn read_object(object: &Object) -> Result<Tree<Extents>> {
    let bytes = map::file(&object.file)?;
    Ok(Reader::new(&bytes)?.tree(Form::Object)?)
}

fn make_object(
    request: &Request,
    image: &Image,
    i: usize,
    slot: &Slot,
    reporter: &dyn Reporter,
) -> Result<(Object, Tree<Extents>)> {
    let layer = &image.layers[i];
    let progress = |bytes| reporter.event(Event::Read { layer: i, bytes });
    let file = slot.create()?;
    let blob = image.blob(i)?;
    let (compiled, seen) = layer::compile(blob, layer.diff_id, file, &request.limits, &progress);
    match (layer.check(seen.digest, seen.size), seen.error, compiled) {
        // A damaged blob explains whatever else went wrong.
        (Err(error), ..) => Err(error),
        (_, Some(error), _) => Err(error),
        (_, _, Err(error)) => Err(error),
        (Ok(()), None, Ok(compiled)) => {
            ensure!(
                compiled.diff_id == layer.diff_id,
                "its content has the diff ID {}, not {} as the config says",
                compiled.diff_id,
                layer.diff_id
            );
            let object = slot.publish(compiled.file, compiled.blake3, compiled.uncompressed)?;
            Ok((object, compiled.tree))
        }
    }
}

/// Writes the upper: `/upper` looks like the merged root, `/work` is empty.
fn write_upper(
    tree: &Tree<Extents>,
    size: u64,
    seed: blake3::Hash,
    staging: &Staging,
) -> Result<Content> {
    let root = tree.inode(InodeId::ROOT);
    let mut upper = Tree::<Vec<u8>>::new(Stat::IMPLIED_DIR);
    for (name, stat, xattrs) in [
        ("upper", root.stat, root.xattrs.clone()),
        ("work", Stat { mode: 0o700, ..Stat::IMPLIED_DIR }, Xattrs::default()),
    ] {
        let id = upper.push(Inode { stat, xattrs, kind: Kind::Dir(Dir::default()) })?;
        let name = Name::new(name.as_bytes()).expect("a plain name");
        upper.dir_mut(InodeId::ROOT).expect("the root is a directory").entries.insert(name, id);
    }
    let file = staging.create(bundle::UPPER)?;
    let mut sink = FileSink::new(file);
    let options = ext4::Options { size, seed: *seed.as_bytes() };
    ext4::write(&upper, &options, &mut sink).context(bundle::UPPER)?;
    let (file, _) = sink.finish(&[])?;
    file.sync_all()?;
    Ok(nonzero_blocks(&file)?)
}

fn write_file(staging: &Staging, name: &str, bytes: &[u8]) -> Result<()> {
    let mut file: File = staging.create(name)?;
    file.write_all(bytes).and_then(|()| file.sync_all()).with_context(|| name.to_owned())
}

fn disk_map(extents: &[vmdk::Extent]) -> Vec<DiskExtent> {
    let mut offset = 0;
    let at = |extent: &vmdk::Extent| {
        let this = DiskExtent { path: extent.path.clone(), offset, size: extent.size };
        offset += extent.size;
        this
    };
    extents.iter().map(at).collect()
}
