//! A build from code: an image and some patches become a bundle, as `rootfs-compile build` does it.
//!
//! ```sh
//! cargo run -p rootfs-compile --example build_bundle -- bundle && rootfs-boot bundle -- cat /etc/motd
//! ```

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use rootfs_compile::build::{Request, Summary, build};
use rootfs_compile::manifest::Manifest;
use rootfs_compile::progress::Event;

/// Prints what a person may want to know, and leaves out how far it is.
fn print(event: Event) {
    match event {
        Event::Stage(stage) => println!("{stage}"),
        Event::Warning(text) => println!("warning: {text}"),
        _ => {}
    }
}

/// Builds the image that comes with the project, with another motd, into `output`. `cache`
/// keeps compiled layers.
fn hello(output: &Path, cache: &Path) -> Result<Summary> {
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize()?;
    let text = "image: oci:testimages/hello:latest\nplatform: linux/amd64\n\
                patches:\n- write: { path: /etc/motd, content: \"from code\\n\" }\n";
    // The file need not exist: errors name it, and paths in the text are relative to it.
    let manifest = Manifest::read(text.as_bytes(), &top.join("example.yaml"), &Default::default())?;
    build(&Request::new(manifest, output, cache), &print)
}

fn main() -> Result<()> {
    let output = std::env::args_os().nth(1).context("usage: build_bundle DIR")?;
    let output = std::path::absolute(PathBuf::from(output))?;
    let summary = hello(&output, &output.with_extension("cache"))?;
    println!("{}: {} layers, {} inodes", output.display(), summary.layers, summary.inodes);
    Ok(())
}

#[test]
fn the_bundle_is_sound() {
    use bundle::open::OpenBundle;
    use bundle::sound::Depth;

    let dir = tempfile::tempdir().unwrap();
    let output = dir.path().join("bundle");
    let summary = hello(&output, &dir.path().join("cache")).unwrap();
    assert_eq!(summary.layers, 5);
    OpenBundle::open(&output, Depth::Full).unwrap();
}
