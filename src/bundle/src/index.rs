//! `bundle.json`: the description of a bundle, for people and for programs that run it.

#![cfg_attr(doc, doc = "\n\n", doc = include_str!("../../../docs/bundle.md"))]

use std::collections::{BTreeMap, BTreeSet};

use fsimage::digest::{DiffId, Digest};
use fsimage::tree::GuestPath;
use fsimage::tree::merge::Notes;
use oci::Platform;
use oci_spec::image::ImageConfiguration;
use serde::{Deserialize, Serialize};

use super::content::ContentHash;
use crate::boot::bad_value::BadValue;
use crate::boot::options::Boot;
use crate::boot::signal::Signal;

/// The value of the field `format`, which tells an index from any other file of that name.
pub const FORMAT: &str = "rootfs-compile bundle";

/// The version of the format. Readers refuse a version that they do not know.
pub const VERSION: u32 = 2;

/// All of `bundle.json`, of which [`super::seal`] makes bytes.
///
/// Invariant: format, version and seal are the first fields, in this order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Index {
    /// [`FORMAT`] in every index of a bundle.
    pub format: String,
    /// [`VERSION`] in every index that this program reads.
    pub version: u32,
    /// A hash of the rest (see [`super::seal`]). Empty in an index that was not read from a
    /// file.
    pub seal: String,
    /// Where the image came from.
    pub image: Image,
    /// How the image is to be run, by its own config.
    pub config: Config,
    /// The manifest's `boot:`.
    #[serde(default, skip_serializing_if = "is_default")]
    pub boot: Boot,
    /// The patches of the manifest: each one's operation, and what it is about.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub patches: Vec<String>,
    /// The image's layers, the lowest first.
    pub layers: Vec<Layer>,
    /// Every file of the bundle but the index and a signature, sorted by path.
    pub files: Vec<FileEntry>,
    /// The files of which the disk consists, in order.
    pub disk: Vec<DiskExtent>,
}

/// Where the image came from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Image {
    /// The reference, as the manifest has it.
    pub reference: String,
    /// Digest of the image's manifest; None for a classic docker-archive.
    pub manifest_digest: Option<Digest>,
    /// Digest of the image's config: the image ID.
    pub config_digest: Digest,
    /// The platform that the image is for.
    pub platform: Platform,
    /// The signature that the build checked, if the manifest asked for one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signed: Option<Signed>,
}

/// A signature of an image that a build checked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Signed {
    /// Digest of what is signed: the manifest, or an index that lists it.
    pub digest: Digest,
    /// Digest of the public key's DER.
    pub key: Digest,
}

/// How the image is to be run, by its own config.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// When the image was made, by its config.
    pub created: Option<String>,
    /// The program to run, with its first arguments; None if the image names none.
    pub entrypoint: Option<Vec<String>>,
    /// Arguments behind the entrypoint, or the whole command without one; None if the
    /// image has none.
    pub cmd: Option<Vec<String>>,
    /// Environment variables, each as `NAME=VALUE`; without a `=`, the value is empty.
    pub env: Vec<String>,
    /// Who runs the command, as `USER[:GROUP]`; None if the image names nobody.
    pub user: Option<String>,
    /// Working directory of the command; None if the image names none.
    pub working_dir: Option<String>,
    /// Ports that the image says it listens on, as `PORT[/PROTOCOL]`.
    pub exposed_ports: BTreeSet<String>,
    /// Paths that the image declares as volumes.
    pub volumes: BTreeSet<String>,
    /// The signal that asks the command to end; None is SIGTERM.
    pub stop_signal: Option<String>,
    /// The image's labels, by name.
    pub labels: BTreeMap<String, String>,
}

/// A layer of the image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Layer {
    /// Digest of the layer's uncompressed tar stream.
    pub diff_id: DiffId,
    /// Digest of the blob; none in a classic docker-archive.
    pub digest: Option<Digest>,
    /// Media type of the blob; that of docker's tar layers in a classic docker-archive.
    pub media_type: String,
    /// Bytes of the blob.
    pub compressed: u64,
    /// Bytes of the tar stream.
    pub uncompressed: u64,
    /// Path of its file in the bundle.
    pub path: String,
    /// Directories that the layer names through symbolic links of lower layers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub through_links: Vec<ThroughLink>,
    /// Xattrs of the layer that were left out of the image.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dropped_xattrs: Vec<DroppedXattrs>,
    /// Directories that the layer also has as something else. The other entry is dropped,
    /// because the paths of other entries lead through the directory.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub over_files: Vec<String>,
    /// How many notes of these three kinds are not listed, for want of room.
    #[serde(default, skip_serializing_if = "is_default")]
    pub unlisted: u64,
}

/// A directory that the layer names through a symbolic link of a lower layer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ThroughLink {
    /// Path of the directory, as the layer names it.
    pub path: String,
    /// Path of the directory to which the link leads, where the layer's entries went.
    pub to: String,
}

/// Xattrs of a file that were left out, because an image cannot have them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DroppedXattrs {
    /// Path of the file that had them.
    pub path: String,
    /// Names of the xattrs; bytes that are not printable ASCII are escaped.
    pub names: Vec<String>,
}

/// A file of the bundle.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileEntry {
    /// Path in the bundle.
    pub path: String,
    /// Bytes of the file.
    pub size: u64,
    /// Hash of the file's content.
    #[serde(flatten)]
    pub content: ContentHash,
}

/// An extent of the disk, which one file provides.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DiskExtent {
    /// Path of its file in the bundle.
    pub path: String,
    /// Bytes from the disk's start.
    pub offset: u64,
    /// Bytes of the extent: all of the file.
    pub size: u64,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// The most notes of one kind that are listed for one layer.
const MAX_NOTES: usize = 1000;

/// The budget for the notes of all layers of an index, without which a hostile layer could
/// make the index as large as it likes.
#[derive(Debug)]
pub struct NoteRoom {
    /// Bytes of JSON that are left.
    bytes: usize,
}

impl Default for NoteRoom {
    fn default() -> Self {
        Self { bytes: 1 << 20 }
    }
}

impl NoteRoom {
    /// The first `notes`, as many as there is room for, and the number of the others.
    fn list<T: Serialize>(&mut self, notes: impl Iterator<Item = T>) -> (Vec<T>, u64) {
        let (mut listed, mut left_out) = (Vec::new(), 0);
        for note in notes {
            let len = serde_json::to_vec(&note).map_or(usize::MAX, |json| json.len());
            match self.bytes.checked_sub(len) {
                Some(rest) if listed.len() < MAX_NOTES && left_out == 0 => {
                    self.bytes = rest;
                    listed.push(note);
                }
                _ => left_out += 1,
            }
        }
        (listed, left_out)
    }
}

impl Config {
    /// The part of `config` that says how to run the image.
    pub fn of(config: &ImageConfiguration) -> Self {
        let created = config.created().clone();
        let Some(run) = config.config() else {
            return Self { created, ..Self::default() };
        };
        let set = |list: &Option<Vec<String>>| list.iter().flatten().cloned().collect();
        Self {
            created,
            entrypoint: run.entrypoint().clone(),
            cmd: run.cmd().clone(),
            env: run.env().clone().unwrap_or_default(),
            user: run.user().clone(),
            working_dir: run.working_dir().clone(),
            exposed_ports: set(run.exposed_ports()),
            volumes: set(run.volumes()),
            stop_signal: run.stop_signal().clone(),
            labels: run.labels().iter().flatten().map(|(k, v)| (k.clone(), v.clone())).collect(),
        }
    }
}

impl Config {
    /// The signal that asks the image's command to end; SIGTERM if the image does not name
    /// one.
    ///
    /// # Errors
    /// When the name is not that of a signal.
    pub fn stop_signal(&self) -> Result<Signal, BadValue> {
        self.stop_signal.as_deref().map_or(Ok(Signal::TERM), str::parse)
    }
}

impl Layer {
    /// Records the notes of the merge, as far as there is `room`.
    pub fn note(&mut self, notes: &Notes, room: &mut NoteRoom) {
        let text = GuestPath::to_string;
        let through = notes.through_links.iter();
        let through = through.map(|(a, b)| ThroughLink { path: text(a), to: text(b) });
        let dropped = notes.dropped_xattrs.iter().map(|(path, names)| DroppedXattrs {
            path: text(path),
            names: names.split(|b| *b == 0).map(|n| n.escape_ascii().to_string()).collect(),
        });
        let over_files = notes.over_files.iter().map(text);
        let mut left_out = [0; 3];
        (self.through_links, left_out[0]) = room.list(through);
        (self.dropped_xattrs, left_out[1]) = room.list(dropped);
        (self.over_files, left_out[2]) = room.list(over_files);
        self.unlisted = left_out.iter().sum::<u64>() + notes.left_out;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_beyond_the_room_are_counted() {
        let mut room = NoteRoom::default();
        let (listed, left_out) = room.list((0..5000).map(|n| n.to_string()));
        assert_eq!((listed.len(), left_out), (MAX_NOTES, 4000));
        let (listed, left_out) = room.list(["x".repeat(2 << 20), "y".to_owned()].into_iter());
        assert_eq!((listed.len(), left_out), (0, 2));
        let (listed, left_out) = room.list((0..1000).map(|_| "z".repeat(4096)));
        assert!((200..256).contains(&listed.len()), "{}", listed.len());
        assert_eq!(listed.len() as u64 + left_out, 1000);
    }
}
