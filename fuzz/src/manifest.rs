//! Manifests.

use std::collections::BTreeMap;
use std::path::Path;

use rootfs_compile::manifest::Manifest;

/// A path in a directory that is not there, so that no input names a file of this machine
/// without meaning to.
const PATH: &str = "/nowhere/at/all/manifest.yaml";

/// Any bytes as a manifest: it is read the same way twice, its patches can be shown, and an
/// error says in which file it is.
pub fn manifest(input: &[u8]) {
    let read = || Manifest::read(input, Path::new(PATH), &BTreeMap::new());
    match (read(), read()) {
        (Ok(one), Ok(two)) => {
            assert_eq!(one, two);
            assert!(one.upper_at.file == Path::new(PATH), "{}", one.upper_at);
            for patch in &one.patches {
                assert!(patch.to_string().contains(&patch.op.to_string()));
            }
        }
        (Err(one), Err(two)) => {
            let text = one.to_string();
            assert_eq!(text, two.to_string());
            assert!(text.contains(PATH), "{text}");
        }
        (one, two) => panic!("{:?}, then {:?}", one.err(), two.err()),
    }
}
