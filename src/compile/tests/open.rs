//! A bundle is opened as it was checked, or not at all.

use std::fs;
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
use std::path::Path;

use bundle::open::OpenBundle;
use bundle::sound::Depth;
use rootfs_compile::build::{Request, build};
use rootfs_compile::manifest::Manifest;
use rootfs_compile::progress::Silent;

fn hello(name: &str) -> (std::path::PathBuf, std::path::PathBuf) {
    let scratch = std::env::temp_dir().join(format!("open-{name}-{}", std::process::id()));
    let _ = fs::remove_dir_all(&scratch);
    let top = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."));
    let manifest = Manifest::load(&top.join("manifests/hello.yaml"), &Default::default()).unwrap();
    let mut request = Request::new(manifest, scratch.join("bundle"), scratch.join("cache"));
    request.platform = Some("linux/amd64".parse().unwrap());
    build(&request, &Silent).unwrap();
    (scratch.clone(), scratch.join("bundle"))
}

#[test]
fn a_file_that_changes_after_the_check_is_noticed() {
    let (scratch, dir) = hello("changed");
    let bundle = OpenBundle::open(&dir.join("bundle.vmdk"), Depth::Full).unwrap();
    bundle.unchanged().unwrap();
    assert_eq!(bundle.disk.len(), 6);
    let path = dir.join("upper.ext4");
    let upper = fs::File::options().write(true).open(&path).unwrap();
    let size = upper.metadata().unwrap().len();
    upper.set_len(size + 1).unwrap();
    upper.set_len(size).unwrap();
    let error = bundle.unchanged().unwrap_err().to_string();
    assert!(error.contains("upper.ext4 was changed while"), "{error}");
    fs::remove_dir_all(scratch).unwrap();
}

/// Whoever owns a file can set its mtime back, but not its ctime; and a second name,
/// which another build gives a layer, changes the ctime and nothing else.
#[test]
fn a_write_is_noticed_whose_mtime_was_set_back() {
    let (scratch, dir) = hello("set-back");
    let bundle = OpenBundle::open(&dir, Depth::Full).unwrap();
    let layer = fs::read_dir(dir.join("layers")).unwrap().next().unwrap().unwrap().path();
    fs::hard_link(&layer, scratch.join("second")).unwrap();
    bundle.unchanged().unwrap();
    fs::set_permissions(&layer, fs::Permissions::from_mode(0o644)).unwrap();
    let file = fs::File::options().read(true).write(true).open(&layer).unwrap();
    let modified = file.metadata().unwrap().modified().unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, 4000).unwrap();
    file.write_all_at(&[byte[0] ^ 1], 4000).unwrap();
    file.set_modified(modified).unwrap();
    let error = bundle.unchanged().unwrap_err().to_string();
    assert!(error.contains("layers/sha256-") && error.contains("was changed while"), "{error}");
    file.write_all_at(&byte, 4000).unwrap();
    file.set_modified(modified).unwrap();
    bundle.unchanged().unwrap();
    fs::remove_dir_all(scratch).unwrap();
}

#[test]
fn a_bundle_that_moves_is_still_the_one_that_was_opened() {
    let (scratch, dir) = hello("moved");
    let bundle = OpenBundle::open(&dir, Depth::Boot).unwrap();
    fs::rename(&dir, scratch.join("other")).unwrap();
    fs::create_dir(&dir).unwrap();
    bundle.unchanged().unwrap();
    assert!(OpenBundle::open(&dir, Depth::Boot).unwrap_err().to_string().contains("bundle"));
    let error = format!("{:#}", OpenBundle::open(&scratch.join("cache"), Depth::Boot).unwrap_err());
    assert!(error.contains("bundle.json: it is missing"), "{error}");
    fs::remove_dir_all(scratch).unwrap();
}
