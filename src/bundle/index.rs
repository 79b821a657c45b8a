//! `bundle.json`: what a bundle is, for people and for whoever runs it.

use std::collections::{BTreeMap, BTreeSet};

use oci_spec::image::ImageConfiguration;
use serde::{Deserialize, Serialize};

use super::content::Content;
use crate::digest::{DiffId, Digest};
use crate::manifest::{BadValue, Boot, Platform, Signal};
use crate::tree::GuestPath;
use crate::tree::merge::Notes;

/// Tells a bundle from any other directory.
pub const FORMAT: &str = "rootfs-compile bundle";

/// Readers refuse a version that they do not know.
pub const VERSION: u32 = 1;

/// All of `bundle.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Index {
    pub format: String,
    pub version: u32,
    pub image: Image,
    pub config: Config,
    /// The manifest's `boot:`.
    #[serde(default, skip_serializing_if = "is_default")]
    pub boot: Boot,
    /// What the manifest changed in the image: operations and what they are about.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub patches: Vec<String>,
    pub layers: Vec<Layer>,
    /// Every file but this one, by path.
    pub files: Vec<FileEntry>,
    /// What the disk strings together, in order.
    pub disk: Vec<DiskExtent>,
}

/// Where the image came from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// As the manifest wrote it.
    pub reference: String,
    /// None for a classic docker-archive.
    pub manifest_digest: Option<Digest>,
    pub config_digest: Digest,
    pub platform: Platform,
}

/// How the image wants to be run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Config {
    /// When the image was made, as it says.
    pub created: Option<String>,
    pub entrypoint: Option<Vec<String>>,
    pub cmd: Option<Vec<String>>,
    pub env: Vec<String>,
    pub user: Option<String>,
    pub working_dir: Option<String>,
    pub exposed_ports: BTreeSet<String>,
    pub volumes: BTreeSet<String>,
    pub stop_signal: Option<String>,
    pub labels: BTreeMap<String, String>,
}

/// A layer, the lowest first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layer {
    pub diff_id: DiffId,
    /// Digest of the blob; none in a classic docker-archive.
    pub digest: Option<Digest>,
    pub media_type: String,
    /// Bytes of the blob.
    pub compressed: u64,
    /// Bytes of the tar stream.
    pub uncompressed: u64,
    /// Its file in the bundle.
    pub path: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub through_links: Vec<ThroughLink>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dropped_xattrs: Vec<DroppedXattrs>,
    /// Directories that the layer also has as something else, which is gone: an
    /// entry's path goes through them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub over_files: Vec<String>,
}

/// A directory that the layer names through a symbolic link of a lower layer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ThroughLink {
    pub path: String,
    /// Where its entries went.
    pub to: String,
}

/// Xattrs that an image cannot have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DroppedXattrs {
    pub path: String,
    pub names: Vec<String>,
}

/// A file of the bundle.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileEntry {
    pub path: String,
    pub size: u64,
    #[serde(flatten)]
    pub content: Content,
}

/// A stretch of the disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskExtent {
    pub path: String,
    /// Bytes from the disk's start.
    pub offset: u64,
    pub size: u64,
}

fn is_default(boot: &Boot) -> bool {
    *boot == Boot::default()
}

impl Config {
    /// What `config` says of running the image.
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
    /// The signal that asks the image's command to end: SIGTERM, if the image names none.
    ///
    /// # Errors
    /// When it names one that nobody knows, or an empty one.
    pub fn stop_signal(&self) -> Result<Signal, BadValue> {
        self.stop_signal.as_deref().map_or(Ok(Signal::TERM), str::parse)
    }
}

impl Layer {
    /// Takes over what the merge noted.
    pub fn note(&mut self, notes: &Notes) {
        let text = GuestPath::to_string;
        let through = notes.through_links.iter();
        self.through_links =
            through.map(|(a, b)| ThroughLink { path: text(a), to: text(b) }).collect();
        let dropped = notes.dropped_xattrs.iter().map(|(path, names)| DroppedXattrs {
            path: text(path),
            names: names.split(|b| *b == 0).map(|n| n.escape_ascii().to_string()).collect(),
        });
        self.dropped_xattrs = dropped.collect();
        self.over_files = notes.over_files.iter().map(text).collect();
    }
}
