//! Manifests that code made, and no reader has checked.

use std::path::Path;

use rootfs_compile::build::{Request, build};
use rootfs_compile::manifest::Manifest;
use rootfs_compile::patch::op::{Include, Op};
use rootfs_compile::patch::{Location, Patch};

use rootfs_compile::progress::Silent;

/// The error of a build whose manifest has the patch `op`.
fn error(op: Op) -> String {
    let tmp = tempfile::tempdir().unwrap();
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let text = "image: oci:testimages/hello:latest\nplatform: linux/amd64\n";
    let read = Manifest::read(text.as_bytes(), &top.join("m.yaml"), &Default::default());
    let mut manifest = read.unwrap();
    let at = Location { file: "code".into(), line: 0 };
    manifest.patches.push(Patch { at, op });
    let request = Request::new(manifest, tmp.path().join("out"), tmp.path().join("cache"));
    let error = build(&request, &Silent).map(drop).unwrap_err();
    assert!(!tmp.path().join("out").exists());
    format!("{error:#}")
}

#[test]
fn its_patches_are_checked_when_it_is_built() {
    let write: Op = serde_json::from_str(r#"{"write": {"path": "x", "content": ""}}"#).unwrap();
    let error_of_path = error(write);
    assert!(
        error_of_path.starts_with("code: ") && error_of_path.contains("\"x\" is not absolute"),
        "{error_of_path}"
    );
    let two = r#"{"write": {"path": "/x", "content": "", "from": "y"}}"#;
    assert!(error(serde_json::from_str(two).unwrap()).contains("both content and from"));
    assert!(error(Op::Include(Include("/nowhere.yaml".into()))).contains("include patches"));
}
