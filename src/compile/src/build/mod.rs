//! A build: image, layers, merge, fsmeta, patches, upper, index, in this order.

mod context;
mod layers;
mod object;
mod request;
mod shared;
mod upper;

use std::collections::{BTreeMap, HashMap, HashSet};

use anyhow::{Context as _, Result};
use bundle::boot::Boot;
use bundle::content::ContentHash;
use bundle::index::{self, Config, DiskExtent, FileEntry, Index, NoteRoom, Signed};
use bundle::staging::{Staging, write_file};
use bundle::{seal, start, vmdk};
use fsimage::digest::{Blake3, DiffId, Digest};
use fsimage::erofs::fsmeta::{self, LayerDevice};
use fsimage::erofs::plan::index_bytes;
use fsimage::ext4;
use fsimage::io::dir::Dir;
use fsimage::tree::extents::Extents;
use fsimage::tree::merge::{Merger, on_device};
use fsimage::tree::weight::Weigh as _;
use fsimage::tree::{InodeId, Kind, Stat, Tree, Xattr};
use fsimage::units::DeviceId;
use oci::{Access, Image, ImageKey, ImageRef, Platform};

use self::layers::layers;
pub use self::request::{Preview, Request, Summary};
pub use self::upper::patch_time;
use crate::build::context::Build;
use crate::build::object::Ready;
use crate::cache::store::Cache;
use crate::layer::limits::{Budgets, take_sparse};
use crate::patch::content::Disks;
use crate::progress::{Event, LayerName, Reporter};

/// The result of the merge: the image as one tree, and what the later passes need to know of
/// its layers.
struct Linked {
    tree: Tree<Extents>,
    devices: Vec<LayerDevice>,
    disks: Disks,
    entries: Vec<index::Layer>,
    summary: Summary,
}

/// Builds the bundle that `request` asks for.
///
/// # Errors
/// It fails when the image cannot be read or lacks a signature that the manifest asks for, when
/// a layer or a patch is wrong or goes past a limit, and when the cache or the bundle cannot be
/// written.
pub fn build(request: &Request, reporter: &dyn Reporter) -> Result<Summary> {
    build_by(request, &|| Staging::new(&request.output, request.force), reporter)
}

/// As [`build`], in the open directory `parent`: only the last name of the output's path counts.
///
/// # Errors
/// It fails as [`build`] does, and when the output has no last name.
pub fn build_in(request: &Request, parent: &Dir, reporter: &dyn Reporter) -> Result<Summary> {
    let name = request.output.file_name().context("the bundle has no name")?;
    build_by(request, &|| Staging::new_in(parent, name, request.force), reporter)
}

fn build_by(
    request: &Request,
    staging: &dyn Fn() -> Result<Staging>,
    reporter: &dyn Reporter,
) -> Result<Summary> {
    let manifest = &request.manifest;
    let (image, signed) = open(request, reporter)?;
    // From here on, the image is known, and its documents have their digests.
    let config = config(&image, &manifest.boot, reporter)?;
    // From here on, a machine can start with what the image says.

    let staging = staging()?;
    let cache = Cache::open(&request.cache_dir)?;
    let budgets = Budgets::new(&request.limits);
    let (image, cache, budgets) = (&image, &cache, &budgets);
    let build = Build { request, image, budgets, cache, staging: Some(&staging), reporter };
    let ready = all_layers(&build)?;
    // From here on, the object of every layer is in the bundle. Its content is that of the
    // diff ID, or what a repository of --cache-from, which the user trusts, has for it.
    shared::send(request, &ready, cache, reporter);

    reporter.event(Event::Stage("merge"));
    let linked = link(&build, ready)?;
    let Linked { tree, devices, disks, entries, mut summary } = linked;
    // From here on, the image is one tree, and it does not matter from which layer a file came.

    reporter.event(Event::Stage("write"));
    let fsmeta =
        fsmeta::write(&tree, &devices, staging.create(bundle::FSMETA)?).context(bundle::FSMETA)?;
    let (fsmeta_hash, fsmeta_size) = (fsmeta.blake3, fsmeta.file.metadata()?.len());
    summary.inodes = fsmeta.inodes;
    summary.bytes_out += fsmeta_size;
    // Closed, because some file systems of FUSE cannot rename a directory with an open file
    // in it.
    drop(fsmeta);

    reporter.event(Event::Stage("patch"));
    let patched = upper::patch(&build, (tree, disks))?;
    let upper = patched.lay_out(&request.manifest)?;
    let size = upper.size();
    let upper = upper.write(fsmeta_hash, staging.create(bundle::UPPER)?)?;
    // Closed for the same reason: it may have the bundle's layers open.
    drop(patched);
    // From here on, everything that a machine reads is written.

    let mut disk = vec![vmdk::Extent { path: bundle::FSMETA.into(), size: fsmeta_size }];
    let on_disk = entries.iter().zip(&devices);
    disk.extend(on_disk.map(|(l, d)| vmdk::Extent { path: l.path.clone(), size: d.size }));
    let descriptor = vmdk::descriptor(&disk, vmdk::cid(&fsmeta_hash));
    write_file(&staging, bundle::VMDK, descriptor.as_bytes())?;

    let entry = |path: &str, size, content| FileEntry { path: path.to_owned(), size, content };
    let mut files = vec![
        entry(
            bundle::VMDK,
            descriptor.len() as u64,
            ContentHash::Blake3(Blake3::of(descriptor.as_bytes())),
        ),
        entry(bundle::FSMETA, fsmeta_size, ContentHash::Blake3(fsmeta_hash)),
        entry(bundle::UPPER, size, upper),
    ];
    let mut named = HashSet::new();
    for (layer, device) in entries.iter().zip(&devices) {
        if named.insert(&layer.path) {
            files.push(entry(&layer.path, device.size, ContentHash::Blake3(device.blake3)));
        }
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    let index = Index {
        format: index::FORMAT.into(),
        version: index::VERSION,
        seal: String::new(),
        image: index::Image {
            reference: manifest.image.to_string(),
            manifest_digest: image.manifest_digest,
            config_digest: image.config_digest,
            platform: image.platform.clone(),
            signed,
        },
        config,
        boot: manifest.boot.clone(),
        patches: manifest.patches.iter().map(|patch| patch.op.to_string()).collect(),
        layers: entries,
        files,
        disk: disk_map(&disk),
    };
    let json = seal::to_json(index).context(bundle::INDEX)?;
    write_file(&staging, bundle::INDEX, &json)?;
    staging.publish(request.force)?;
    // From here on, the bundle is at its place, and was checked as readers check it.
    Ok(summary)
}

/// Tells what the patches of `request` would change, without making a bundle.
///
/// # Errors
/// It fails when the image cannot be read or lacks a signature that the manifest asks for, when
/// a layer or a patch is wrong or goes past a limit, and when the cache cannot be written.
pub fn preview(request: &Request, reporter: &dyn Reporter) -> Result<Preview> {
    let (image, _) = open(request, reporter)?;
    let cache = Cache::open(&request.cache_dir)?;
    let budgets = Budgets::new(&request.limits);
    let (image, cache, budgets) = (&image, &cache, &budgets);
    let build = Build { request, image, budgets, cache, staging: None, reporter };
    let ready = all_layers(&build)?;
    reporter.event(Event::Stage("merge"));
    let Linked { tree, disks, .. } = link(&build, ready)?;
    reporter.event(Event::Stage("patch"));
    let patched = upper::patch(&build, (tree, disks))?;
    let upper = patched.lay_out(&request.manifest)?.size();
    Ok(Preview { upper, changes: patched.changes })
}

/// Finds the image, and reports its warnings.
fn open(request: &Request, reporter: &dyn Reporter) -> Result<(Image, Option<Signed>)> {
    let say = |text: &str| reporter.event(Event::Warning(text.to_owned()));
    // A manifest that was read from a file was checked before, one that code made was not.
    for patch in &request.manifest.patches {
        patch.op.check().with_context(|| patch.to_string())?;
    }
    let (image, signed) = find(request, &say)?;
    for warning in &image.warnings {
        reporter.event(Event::Warning(warning.clone()));
    }
    if let Some(note) = &image.note {
        reporter.event(Event::Note(note.clone()));
    }
    Ok((image, signed))
}

/// The config of `image`, checked and changed so that a machine can start with it.
fn config(image: &Image, boot: &Boot, reporter: &dyn Reporter) -> Result<Config> {
    let warn = &mut |text| reporter.event(Event::Warning(text));
    let config = start::usable(Config::of(&image.config), warn);
    start::check(&config, boot)?;
    Ok(config)
}

/// Finds the image that `request` means now; returns the digest of its manifest, or of its
/// config if it has none. `say` is told which process this waits for.
///
/// # Errors
/// It fails when the image cannot be read, lacks a signature that the manifest asks for, or is
/// not as the lock file requires, and when the lock file cannot be read or written.
pub fn resolve(request: &Request, say: &(dyn Fn(&str) + Sync)) -> Result<Digest> {
    let (image, _) = find(request, say)?;
    Ok(image.manifest_digest.unwrap_or(image.config_digest))
}

/// The image that `request` means, and the signature that was checked, if the manifest asks
/// for one.
fn find(request: &Request, say: &(dyn Fn(&str) + Sync)) -> Result<(Image, Option<Signed>)> {
    let wanted = request.platform.clone().or_else(|| request.manifest.platform.clone());
    let wanted = wanted.unwrap_or_else(Platform::host);
    let access = request.registries();
    let mut reference = request.manifest.image.clone();
    let in_registry = reference.registry_name().is_some() && reference.pin().is_none();
    if !in_registry {
        request.lock.check(&reference)?;
        let image = Image::open(&reference, &wanted, &access)?;
        let signed = signed(request, &image, &access)?;
        return Ok((image, signed));
    }
    let mut lock = request.lock.load()?;
    if let Some(digest) = request.lock.locked(&lock, &reference, &wanted)? {
        reference.lock(digest);
    }
    let image =
        Image::open(&reference, &wanted, &access).with_context(|| match reference.pin() {
            Some(_) => {
                let lock = request.lock.path.display();
                format!("as {lock} pins it (build --update asks the registry again)")
            }
            None => format!("for {wanted}"),
        })?;
    // Checked before the lock file records that this is the image.
    let signed = signed(request, &image, &access)?;
    if let Some(digest) = image.manifest_digest {
        request.lock.save(&mut lock, &reference, &wanted, digest, say)?;
    }
    Ok((image, signed))
}

/// Checks the signature of `image`, if the manifest asks for one.
fn signed(request: &Request, image: &Image, access: &Access) -> Result<Option<Signed>> {
    let Some(verify) = &request.manifest.verify_image else {
        return Ok(None);
    };
    let key = ImageKey::load(&verify.cosign_key)?;
    let digest = image.signed_by(&request.manifest.image, access, &key)?;
    Ok(Some(Signed { digest, key: key.digest }))
}

/// Compiles the layers of the image, and reports them.
fn all_layers(build: &Build<'_>) -> Result<BTreeMap<DiffId, Ready>> {
    let Build { request, image, reporter, .. } = build;
    let names = image.layers.iter().map(|l| LayerName { digest: l.label(), bytes: l.size });
    reporter.event(Event::Layers(names.collect()));
    let ready = layers(build);
    let reference = &request.manifest.image;
    match reference {
        // Errors of a layer from a registry name the image.
        ImageRef::Registry { .. } => ready.with_context(|| reference.to_string()),
        _ => ready,
    }
}

/// Merges the layers of the image, which are `ready`.
fn link(build: &Build<'_>, mut ready: BTreeMap<DiffId, Ready>) -> Result<Linked> {
    let Build { request, budgets, image, reporter, .. } = *build;
    let mut summary = Summary { layers: image.layers.len(), ..Summary::default() };
    let mut entries = Vec::new();
    let mut devices = Vec::new();
    let mut disks = Disks::default();
    let mut merger = Merger::new(budgets.bounds(&request.limits));
    let diff_ids = image.layers.iter().map(|layer| layer.diff_id);
    let last: HashMap<DiffId, usize> = diff_ids.zip(0..).collect();
    let mut room = NoteRoom::default();
    for (i, layer) in image.layers.iter().enumerate() {
        let again = last[&layer.diff_id] > i;
        let ready = ready.get_mut(&layer.diff_id).expect("every layer is ready");
        let tree = match again {
            true => {
                budgets.metadata.take(ready.tree.weight())?;
                ready.tree.clone()
            }
            false => std::mem::replace(&mut ready.tree, Tree::new(Stat::IMPLIED_DIR)),
        };
        // A layer that occurs twice counts twice: through symbolic links, the same entries can
        // get to other directories.
        take_sparse(&budgets.sparse, indexes(&tree))
            .with_context(|| format!("layer {} ({})", i + 1, layer.label()))?;
        let device = DeviceId(u16::try_from(i + 1).context("more than 65535 layers")?);
        let notes = merger
            .add(on_device(tree, device))
            .with_context(|| format!("layer {} ({})", i + 1, layer.label()))?;
        devices.push(LayerDevice {
            diff_id: layer.diff_id,
            blake3: ready.blake3,
            size: ready.size,
        });
        disks.0.push(ready.file.clone());
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
            over_files: Vec::new(),
            dropped_xattrs: Vec::new(),
            unlisted: 0,
        };
        entry.note(&notes, &mut room);
        if !notes.dropped_xattrs.is_empty() {
            let (n, count) = (i + 1, notes.dropped_xattrs.len());
            let text = format!(
                "layer {n}: {count} files lost xattrs that an image cannot have; inspect lists them"
            );
            reporter.event(Event::Warning(text));
        }
        entries.push(entry);
    }
    let tree = merger.finish();
    warn_of_large_xattrs(&tree, reporter);
    Ok(Linked { tree, devices, disks, entries, summary })
}

/// Bytes of the chunk indexes that the files of the layer `tree` have in fsmeta.
fn indexes(tree: &Tree<Extents>) -> u64 {
    let of = |id| match &tree.inode(id).kind {
        Kind::File(extents) => index_bytes(extents),
        _ => 0,
    };
    tree.ids().map(of).fold(0, u64::saturating_add)
}

/// Bytes of xattrs that always fit into an inode's block of xattrs in ext4.
const SMALL_XATTRS: usize = 2048;

/// The most bytes of an xattr in ext4 beside its name and its value: a header and padding.
const XATTR_ENTRY: usize = 24;

/// Warns of files that a machine cannot write to, because their xattrs do not fit into its
/// upper when the file is copied there (copy-up).
fn warn_of_large_xattrs(tree: &Tree<Extents>, reporter: &dyn Reporter) {
    let too_large = |id: &InodeId| {
        let xattrs = &tree.inode(*id).xattrs;
        let size = |xattr: &Xattr| xattr.name.len() + xattr.value.len() + XATTR_ENTRY;
        xattrs.iter().map(size).sum::<usize>() > SMALL_XATTRS && ext4::check_xattrs(xattrs).is_err()
    };
    let mut large = tree.ids().filter(too_large);
    // An inode that layers above have hidden has no path.
    let Some(path) = large.find_map(|id| tree.path_of(id)) else {
        return;
    };
    let more = match large.count() {
        0 => String::new(),
        others => format!(" (and up to {others} other files)"),
    };
    reporter.event(Event::Warning(format!(
        "/{path}{more}: its xattrs do not fit into the ext4 of a machine, which cannot change it"
    )));
}

/// The extents of the disk, each with its offset.
fn disk_map(extents: &[vmdk::Extent]) -> Vec<DiskExtent> {
    let mut offset = 0;
    let at = |extent: &vmdk::Extent| {
        let this = DiskExtent { path: extent.path.clone(), offset, size: extent.size };
        offset += extent.size;
        this
    };
    extents.iter().map(at).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use fsimage::tree::{DirId, Inode, Name};

    use super::*;

    #[test]
    fn many_small_xattrs_are_warned_of_like_few_large_ones() {
        let warnings = |count: usize, len: usize| {
            let xattr = |i: usize| Xattr {
                name: format!("user.{i}").into_bytes().into(),
                value: vec![0; len].into(),
            };
            let xattrs = (0..count).map(xattr).collect();
            let kind = Kind::File(Extents::default());
            let mut tree = Tree::new(Stat::IMPLIED_DIR);
            let file = Inode { stat: Stat::IMPLIED_DIR, xattrs, kind };
            tree.add(DirId::ROOT, Name::new(b"file").unwrap(), file).unwrap();
            let said = Mutex::new(0);
            warn_of_large_xattrs(&tree, &|_| *said.lock().unwrap() += 1);
            said.into_inner().unwrap()
        };
        assert_eq!((warnings(1, 100), warnings(100, 1)), (0, 0));
        assert_eq!((warnings(1, 5000), warnings(200, 1)), (1, 1));
    }
}
