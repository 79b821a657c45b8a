//! Data flows one way, and so do the uses between rooms.

use std::fs;
use std::path::Path;

/// Each room, and those that it must not know.
const FORBIDDEN: [(&str, &[&str]); 12] = [
    (
        "tree",
        &["erofs", "ext4", "layer", "patch", "source", "bundle", "cache", "compile", "manifest"],
    ),
    ("erofs", &["ext4", "layer", "patch", "source", "bundle", "cache", "compile", "manifest"]),
    ("ext4", &["erofs", "layer", "patch", "source", "bundle", "cache", "compile", "manifest"]),
    ("source", &["tree", "erofs", "ext4", "layer", "patch", "bundle", "cache", "compile"]),
    ("layer", &["ext4", "patch", "source", "bundle", "cache", "compile", "manifest"]),
    ("patch", &["erofs", "ext4", "source", "bundle", "cache", "compile", "boot"]),
    (
        "manifest",
        &[
            "tree", "erofs", "ext4", "layer", "patch", "source", "bundle", "cache", "compile",
            "boot",
        ],
    ),
    ("bundle", &["layer", "patch", "source", "compile", "boot"]),
    ("transfer", &["tree", "erofs", "ext4", "layer", "patch", "compile", "boot"]),
    ("word", &["tree", "erofs", "ext4", "layer", "patch", "cache", "compile", "boot"]),
    ("bundle_cache", &["tree", "ext4", "layer", "patch", "source", "cache", "compile", "boot"]),
    ("boot", &["ext4", "layer", "patch", "source", "cache", "compile"]),
];

#[test]
fn no_room_knows_what_comes_behind_it() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut seen = 0;
    for (room, forbidden) in FORBIDDEN {
        let mut dirs = vec![src.join(room)];
        while let Some(dir) = dirs.pop() {
            for entry in fs::read_dir(&dir).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    dirs.push(path);
                    continue;
                }
                seen += 1;
                let text = fs::read_to_string(&path).unwrap();
                for other in forbidden {
                    let used = text.contains(&format!("crate::{other}"));
                    assert!(!used, "{} uses {other}", path.display());
                }
            }
        }
    }
    assert!(seen > 30, "only {seen} files were looked at");
}
