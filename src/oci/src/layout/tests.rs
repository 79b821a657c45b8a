//! What a reference finds in a layout.

use std::collections::HashMap;
use std::io::Read;

use serde_json::json;

use super::*;
use crate::layout_file;

/// A layout in memory.
#[derive(Debug, Default)]
struct Layout {
    files: HashMap<String, Vec<u8>>,
    entries: Vec<serde_json::Value>,
}

impl Store for Layout {
    fn open(&self, key: &Key) -> Result<Option<(Box<dyn Read + Send + '_>, u64)>> {
        let file = self.files.get(&key.to_string()).map(Vec::as_slice);
        Ok(file.map(|bytes| -> (Box<dyn Read + Send + '_>, u64) {
            (Box::new(bytes), bytes.len() as u64)
        }))
    }
}

impl Layout {
    fn blob(&mut self, bytes: Vec<u8>) -> serde_json::Value {
        let digest = Digest::of(&bytes);
        let size = bytes.len();
        self.files.insert(layout_file::blob(digest), bytes);
        json!({ "mediaType": media_type::MANIFEST, "digest": digest.to_string(), "size": size })
    }

    /// An image without layers whose command is `command`, called `name`.
    fn image(&mut self, command: &str, name: &str) -> Digest {
        let config =
            json!({ "os": "linux", "architecture": "amd64", "config": { "Cmd": command } });
        let mut config = self.blob(config.to_string().into_bytes());
        config["mediaType"] = "application/vnd.oci.image.config.v1+json".into();
        let manifest = json!({ "schemaVersion": 2, "config": config, "layers": [] });
        let mut entry = self.blob(manifest.to_string().into_bytes());
        entry["annotations"] = json!({ REF_NAME: name });
        let digest = entry["digest"].as_str().unwrap().parse().unwrap();
        self.entries.push(entry);
        digest
    }

    fn find(&mut self, reference: &str) -> Result<Digest, String> {
        let index = json!({ "schemaVersion": 2, "manifests": self.entries });
        self.files.insert(INDEX.to_owned(), index.to_string().into_bytes());
        let wanted = "linux/amd64".parse().unwrap();
        match find(&*self, &reference.parse().unwrap(), &wanted) {
            Ok(Found::Image(chosen)) => Ok(chosen.digest),
            Ok(Found::Nothing(why)) => Err(why),
            Err(error) => Err(format!("{error:#}")),
        }
    }
}

#[test]
fn no_name_takes_the_place_of_a_digest_that_was_asked_for() {
    let meant = Layout::default().image("meant", "hello");
    let mut layout = Layout::default();
    let other = layout.image("other", &format!("hello@{meant}"));
    let error = layout.find(&format!("oci:dir:hello@{meant}")).unwrap_err();
    assert!(error.contains("there is no tag \"hello\""), "{error}");
    layout.image("yet another", "hello");
    let error = layout.find(&format!("oci:dir:hello@{meant}")).unwrap_err();
    assert!(error.contains(&format!("nothing here has the digest {meant}")), "{error}");
    layout.image("meant", "hello");
    assert_eq!(layout.find(&format!("oci:dir:hello@{meant}")), Ok(meant));
    // A name is taken as it is, where it leads to the digest in it.
    let named = Layout::default().image("named", "");
    layout.image("named", &format!("x@{named}"));
    assert_eq!(layout.find(&format!("oci:dir:x@{named}")), Ok(named));
    assert!(layout.find(&format!("oci:dir:x@{other}")).is_err());
}

/// An index may have one manifest twice, for two platforms: its digest names both entries.
#[test]
fn a_digest_names_a_manifest_for_each_of_its_platforms() {
    let mut layout = Layout::default();
    let digest = layout.image("meant", "other");
    let entry = layout.entries.pop().unwrap();
    for architecture in ["s390x", "amd64"] {
        let mut entry = entry.clone();
        entry["platform"] = json!({ "os": "linux", "architecture": architecture });
        layout.entries.push(entry);
    }
    assert_eq!(layout.find(&format!("oci:dir@{digest}")), Ok(digest));
    assert_eq!(layout.find("oci:dir:other"), Ok(digest));
    layout.entries.pop();
    let error = layout.find(&format!("oci:dir@{digest}")).unwrap_err();
    assert!(error.contains("for linux/amd64; there are some for: linux/s390x"), "{error}");
}

#[test]
fn a_size_is_compared_though_the_blob_is_not_read() {
    for (told, good) in [(4, true), (5, false), (u64::MAX, false)] {
        let mut layout = Layout::default();
        let mut layer = layout.blob(b"blob".to_vec());
        layer["mediaType"] = "application/vnd.oci.image.layer.v1.tar".into();
        layer["size"] = told.into();
        let diff_ids = [layer["digest"].clone()];
        let config =
            json!({ "os": "linux", "architecture": "amd64", "rootfs": { "diff_ids": diff_ids } });
        let mut config = layout.blob(config.to_string().into_bytes());
        config["mediaType"] = "application/vnd.oci.image.config.v1+json".into();
        let manifest = json!({ "schemaVersion": 2, "config": config, "layers": [layer] });
        let entry = layout.blob(manifest.to_string().into_bytes());
        layout.entries.push(entry);
        layout.find("oci:dir").unwrap();
        let reference = "oci:dir".parse().unwrap();
        let image = open(Box::new(layout), &reference, &"linux/amd64".parse().unwrap()).unwrap();
        assert_eq!(image.check_size(0).is_ok(), good, "{told}");
    }
}
