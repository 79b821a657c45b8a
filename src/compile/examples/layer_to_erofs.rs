//! A layer, as a registry has it, becomes an EROFS image, in one pass and without being unpacked.
//!
//! ```sh
//! cargo run -p rootfs-compile --example layer_to_erofs -- layer.tar.gz layer.erofs && fsck.erofs layer.erofs
//! ```

use std::fs::File;
use std::io::Read;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use fsimage::digest::DiffId;
use rootfs_compile::layer::{self, Budgets, Compiled, Limits};

/// Compiles `blob` (a tar: plain, gzip or zstd) into `file`, which is empty.
fn compile(blob: impl Read + Send, file: File) -> Result<Compiled> {
    let limits = Limits::default();
    let budgets = Budgets::new(&limits);
    // An image's config says which diff ID a layer has; here nobody does. It becomes the image's UUID.
    let diff_id = DiffId::of(b"");
    let progress = |_bytes| {};
    let outcome = layer::compile(blob, diff_id, file, &limits, &budgets, &progress);
    // A manifest would say which digest and size the blob has.
    outcome.checked(|_digest, _size| Ok(()))
}

fn main() -> Result<()> {
    let mut paths = std::env::args_os().skip(1).map(PathBuf::from);
    let (from, to) = paths.next().zip(paths.next()).context("usage: layer_to_erofs TAR FILE")?;
    let blob = File::open(&from).with_context(|| from.display().to_string())?;
    let file = File::create_new(&to).with_context(|| to.display().to_string())?;
    let compiled = compile(blob, file)?;
    println!("{}: {} inodes, diff ID {}", to.display(), compiled.tree.len(), compiled.diff_id);
    Ok(())
}

#[test]
fn the_layer_is_in_the_image() {
    use std::io::Write as _;

    use fsimage::budget::Budget;
    use fsimage::erofs::plan::Form;
    use fsimage::erofs::read::Reader;
    use fsimage::tree::{GuestPath, Kind};

    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_ustar();
    header.set_size(6);
    header.set_mode(0o644);
    tar.append_data(&mut header, "etc/motd", &b"hello\n"[..]).unwrap();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&tar.into_inner().unwrap()).unwrap();
    let blob = gzip.finish().unwrap();

    let compiled = compile(&blob[..], tempfile::tempfile().unwrap()).unwrap();
    let image = fsimage::io::mmap::file(&compiled.file).unwrap();
    let reader = Reader::new(&image).unwrap();
    let tree = reader.tree(Form::Object, &Budget::new(1 << 20)).unwrap();
    let motd = tree.lookup(&GuestPath::parse(b"etc/motd").unwrap()).unwrap();
    let Kind::File(extents) = &tree.inode(motd).kind else { panic!("motd is a file") };
    assert_eq!(extents.size, 6);
    assert_eq!(tree.len(), compiled.tree.len());
}
