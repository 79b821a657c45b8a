//! What was typed.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use bundle::boot::ByteSize;
use bundle::opened::Place;
use clap::{Args, Parser, Subcommand, ValueEnum};
use fsimage::budget::MAX_SPARSE;
use oci::{BadName, ImageRef, Platform, Reference, check_tag};
use rootfs_compile::layer::Limits;

use crate::machine::MachineArgs;

/// Compiles container images to bundles that a virtual machine boots.
#[derive(Parser)]
#[command(name = "rootfs-compile", version, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Compile an image, or what a manifest makes of one, to a bundle
    Build(Box<Build>),
    /// Compile an image unless that is done, and become the process inside
    Run(Box<Run>),
    /// Show what a bundle holds
    Inspect(Inspect),
    /// Check a bundle: every hash, block, inode and entry
    Verify(Verify),
    /// Make a pair of keys to sign bundles with: FILE, which is secret, and FILE.pub
    Keygen(Keygen),
    /// Sign a bundle, all of whose files are checked before
    Sign(Sign),
    /// Send a bundle to a registry; what the registry has is not sent
    Push(Push),
    /// Bring a bundle from a registry, a layout or an archive
    #[command(visible_alias = "import")]
    Pull(Pull),
    /// Write a bundle as an OCI layout or archive, or its disk as one flat file
    Export(Export),
    /// Look after the cache of compiled layers
    #[command(subcommand)]
    Cache(Cache),
    /// Print the JSON Schema of manifests, for editors that complete and check
    Schema(Schema),
}

#[derive(Args)]
pub(crate) struct Build {
    /// An image reference, an image's archive or layout, or a manifest (YAML; - for
    /// standard input)
    #[arg(value_name = "IMAGE|MANIFEST|FILE")]
    pub image: OsString,
    /// The bundle's directory
    #[arg(short, long, value_name = "DIR", required_unless_present = "dry_run")]
    pub output: Option<PathBuf>,
    /// Make no bundle: list what each patch would make (+), change (~) and remove (-)
    #[arg(long)]
    pub dry_run: bool,
    /// Print that list as JSON
    #[arg(long, requires = "dry_run")]
    pub json: bool,
    /// Replace a bundle that is there
    #[arg(long)]
    pub force: bool,
    /// Write down what the bundle was made of: a statement of in-toto (SLSA provenance)
    #[arg(long, value_name = "FILE", conflicts_with = "dry_run")]
    pub provenance: Option<PathBuf>,
    /// Say more
    #[arg(short, long, conflicts_with = "quiet")]
    pub verbose: bool,
    #[command(flatten)]
    pub compile: CompileArgs,
    #[command(flatten)]
    pub lock: LockArgs,
    #[command(flatten)]
    pub shared: SharedArgs,
}

#[derive(Args)]
pub(crate) struct Run {
    /// An image reference, an image's archive or layout, or a manifest (YAML; - for
    /// standard input)
    #[arg(value_name = "IMAGE|MANIFEST|FILE")]
    pub image: OsString,
    /// In place of the image's command; its entrypoint stays
    #[arg(value_name = "COMMAND", trailing_var_arg = true)]
    pub command: Vec<OsString>,
    /// When to ask a registry for an image whose tag was seen before
    #[arg(long, value_enum, default_value_t = PullPolicy::Missing)]
    pub pull: PullPolicy,
    #[command(flatten)]
    pub compile: CompileArgs,
    #[command(flatten)]
    pub machine: MachineArgs,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum PullPolicy {
    /// Never, as long as what it led to is still there
    Missing,
    /// Each time
    Always,
    /// Not even for an image that is not there
    Never,
}

/// What all that compiles is told.
#[derive(Args)]
pub(crate) struct CompileArgs {
    /// Define a variable of the manifest; wins over its own vars
    #[arg(long, value_name = "NAME=VALUE", value_parser = pair)]
    pub set: Vec<(String, String)>,
    /// Seconds since 1970: the time of what patches make [default: when the image was made]
    #[arg(long, env = "SOURCE_DATE_EPOCH", value_name = "SECONDS", allow_negative_numbers = true)]
    pub source_date_epoch: Option<Epoch>,
    /// Take the image for this platform, whatever the manifest says
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    pub platform: Option<Platform>,
    /// Layers compiled at once [default: one for each core]
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub jobs: Option<u16>,
    #[command(flatten)]
    pub cache: CacheDir,
    /// How progress is shown
    #[arg(long, value_enum, default_value_t = Progress::Auto)]
    pub progress: Progress,
    /// Say nothing but errors
    #[arg(short, long)]
    pub quiet: bool,
    #[command(flatten)]
    pub registry: RegistryArgs,
    #[command(flatten)]
    pub limits: LimitArgs,
}

/// How images of a registry are reached. Name and password are those of docker
/// login or podman login; ROOTFS_COMPILE_USERNAME and ROOTFS_COMPILE_PASSWORD win at
/// one registry, the image's own or the one that ROOTFS_COMPILE_REGISTRY names.
#[derive(Args)]
#[command(next_help_heading = "Registries")]
pub(crate) struct RegistryArgs {
    /// Speak plain HTTP to this registry; one on loopback needs no option.
    /// ROOTFS_COMPILE_INSECURE_REGISTRIES has more of them
    #[arg(long, value_name = "HOST[:PORT]")]
    pub insecure_registry: Vec<String>,
    /// Trust these certificates (PEM) besides the system's
    #[arg(long, value_name = "FILE")]
    pub ca_cert: Vec<PathBuf>,
    /// Give up what brings fewer bytes in each second of waiting, over two minutes; 0 waits for ever [default: 1KiB]
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub min_rate: Option<u64>,
    /// Connect to nothing: use what is cached
    #[arg(long)]
    pub offline: bool,
}

/// Compiled layers in a registry, for machines that build the same ones.
#[derive(Args)]
#[command(next_help_heading = "Shared layers")]
pub(crate) struct SharedArgs {
    /// Take compiled layers from this repository, and trust them
    #[arg(long, value_name = "[HOST/]NAME", value_parser = repository)]
    pub cache_from: Vec<Reference>,
    /// Put the compiled layers into this repository
    #[arg(long, value_name = "[HOST/]NAME", value_parser = repository)]
    pub cache_to: Vec<Reference>,
}

/// A tag as registries have them.
fn tag(text: &str) -> Result<String, BadName> {
    check_tag(text).map(|()| text.to_owned())
}

/// A name without a tag.
fn repository(text: &str) -> Result<Reference, String> {
    let name: Reference = text.parse().map_err(|error| format!("{error}"))?;
    let last = text.rsplit('/').next().unwrap_or_default();
    match name.digest().is_some() || last.contains(':') {
        true => Err("a repository has neither tag nor digest: its tags are the layers".into()),
        false => Ok(name),
    }
}

/// Which image a tag is.
#[derive(Args)]
#[command(next_help_heading = "Locks")]
pub(crate) struct LockArgs {
    /// Write down which image a tag led to, in NAME.lock beside the manifest; builds use it from then on
    #[arg(long)]
    pub lock: bool,
    /// Ask again which image the tag leads to, and write it down
    #[arg(long, conflicts_with_all = ["locked", "offline"])]
    pub update: bool,
    /// Fail where the lock does not say which image it is
    #[arg(long)]
    pub locked: bool,
}

#[derive(Args)]
pub(crate) struct CacheDir {
    /// Where compiled layers are kept [default: $XDG_CACHE_HOME/rootfs-compile]
    #[arg(long = "cache-dir", env = "ROOTFS_COMPILE_CACHE", value_name = "DIR")]
    pub cache_dir: Option<PathBuf>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Progress {
    /// Bars on a terminal, else plain
    Auto,
    /// Bars
    Tty,
    /// A line for each layer
    Plain,
    /// A JSON object for each step
    Json,
    /// Nothing
    None,
}

/// Bounds against images that are made to exhaust the machine.
#[derive(Args)]
#[command(next_help_heading = "Limits")]
pub(crate) struct LimitArgs {
    /// Uncompressed bytes of one layer [default: 256GiB]
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub max_layer_bytes: Option<u64>,
    /// Bytes of one file, holes included [default: 1TiB]
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub max_file_bytes: Option<u64>,
    /// Entries of one layer [default: 16777216]
    #[arg(long, value_name = "N")]
    pub max_entries: Option<u64>,
    /// Bytes of a path [default: 4096]
    #[arg(long, value_name = "N")]
    pub max_path: Option<u64>,
    /// Directories on a path [default: 1024]
    #[arg(long, value_name = "N")]
    pub max_depth: Option<u64>,
    /// Bytes of one file's xattrs [default: 1MiB]
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub max_xattr_bytes: Option<u64>,
    /// Zeros and indexes on the disk for sparse files whose data lie far apart, of all layers; at most 32GiB [default: 16GiB]
    #[arg(long, value_name = "SIZE", value_parser = sparse_size)]
    pub max_sparse_bytes: Option<u64>,
    /// Memory for names, links, xattrs and extents of all layers, and for patches [default: 1280MiB]
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub max_metadata_bytes: Option<u64>,
    /// Bytes of all layers beyond 1024 times their blobs' [default: 16GiB]
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub max_expansion_bytes: Option<u64>,
    /// Components of all paths, those of symbolic links on them, and records of extended headers [default: 536870912]
    #[arg(long, value_name = "N")]
    pub max_steps: Option<u64>,
    /// Bytes of indexes, manifests and configs that are read to find an image [default: 512MiB]
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub max_document_bytes: Option<u64>,
    /// Bytes of an archive that is compressed as a whole [default: 256GiB]
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub max_archive_bytes: Option<u64>,
}

/// Seconds since 1970; a variable that is set to nothing says nothing.
#[derive(Clone, Copy)]
pub(crate) struct Epoch(pub Option<i64>);

impl std::str::FromStr for Epoch {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.is_empty() { Ok(Self(None)) } else { text.parse().map(|sec| Self(Some(sec))) }
    }
}

fn pair(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("write NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

fn size(text: &str) -> Result<u64, String> {
    text.parse::<ByteSize>().map(|size| size.0).map_err(|error| error.to_string())
}

fn sparse_size(text: &str) -> Result<u64, String> {
    match size(text)? {
        bytes if bytes <= MAX_SPARSE => Ok(bytes),
        _ => Err("readers of bundles allow 32GiB".to_owned()),
    }
}

impl LimitArgs {
    /// The defaults with what was given in their place.
    pub(crate) fn limits(&self) -> Limits {
        let default = Limits::default();
        Limits {
            layer_bytes: self.max_layer_bytes.unwrap_or(default.layer_bytes),
            file_bytes: self.max_file_bytes.unwrap_or(default.file_bytes),
            entries: self.max_entries.unwrap_or(default.entries),
            path: self.max_path.unwrap_or(default.path),
            depth: self.max_depth.unwrap_or(default.depth),
            xattr_bytes: self.max_xattr_bytes.unwrap_or(default.xattr_bytes),
            sparse_bytes: self.max_sparse_bytes.unwrap_or(default.sparse_bytes),
            metadata_bytes: self.max_metadata_bytes.unwrap_or(default.metadata_bytes),
            expansion: default.expansion,
            expansion_bytes: self.max_expansion_bytes.unwrap_or(default.expansion_bytes),
            steps: self.max_steps.unwrap_or(default.steps),
        }
    }
}

/// Bounds against bundles that are made to exhaust the machine.
#[derive(Args)]
#[command(next_help_heading = "Limits")]
pub(crate) struct ReadArgs {
    /// Memory for names, links, xattrs and extents of each file system [default: 1280MiB]
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub max_metadata_bytes: Option<u64>,
}

impl ReadArgs {
    /// What was given, or the default.
    pub(crate) fn metadata_bytes(&self) -> u64 {
        self.max_metadata_bytes.unwrap_or(Limits::default().metadata_bytes)
    }

    /// The bundle at `path`, to be read within these bounds.
    pub(crate) fn bundle(&self, path: &Path) -> anyhow::Result<Place> {
        Ok(Place::find(path)?.within(self.metadata_bytes()))
    }
}

#[derive(Args)]
pub(crate) struct Inspect {
    /// The bundle's directory
    pub dir: PathBuf,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub cache: CacheDir,
    #[command(flatten)]
    pub read: ReadArgs,
}

#[derive(Args)]
pub(crate) struct Verify {
    /// The bundle's directory
    pub dir: PathBuf,
    #[command(flatten)]
    pub key: KeyArgs,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub read: ReadArgs,
}

#[derive(Subcommand)]
pub(crate) enum Cache {
    /// Check all that the cache holds, and remove what killed runs left there
    Verify(CacheVerify),
}

#[derive(Args)]
pub(crate) struct CacheVerify {
    /// Remove what is wrong; it is compiled again when it is needed
    #[arg(long)]
    pub remove: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub cache: CacheDir,
    #[command(flatten)]
    pub read: ReadArgs,
}

#[derive(Args)]
pub(crate) struct Keygen {
    /// Where the secret key goes; the public one is called so with .pub behind it.
    /// ROOTFS_COMPILE_KEY_PASSWORD protects the secret key, if it is set
    #[arg(short, long, value_name = "FILE")]
    pub output: PathBuf,
}

#[derive(Args)]
pub(crate) struct Sign {
    /// The bundle's directory
    pub dir: PathBuf,
    /// A secret key, of keygen or minisign. ROOTFS_COMPILE_KEY_PASSWORD has its password
    #[arg(long, value_name = "FILE")]
    pub key: PathBuf,
    #[command(flatten)]
    pub read: ReadArgs,
}

/// Whose signature a bundle must have.
#[derive(Args)]
pub(crate) struct KeyArgs {
    /// Refuse a bundle that is not signed with this public key, or with one of several
    #[arg(long, value_name = "FILE")]
    pub key: Vec<PathBuf>,
}

#[derive(Args)]
pub(crate) struct Push {
    /// The bundle's directory
    pub dir: PathBuf,
    /// [HOST[:PORT]/]NAME[:TAG]
    pub reference: ImageRef,
    /// Send a statement of what the bundle was made of, too, as its referrer
    #[arg(long, value_name = "FILE")]
    pub provenance: Option<PathBuf>,
    #[command(flatten)]
    pub cache: CacheDir,
    #[command(flatten)]
    pub registry: RegistryArgs,
    #[command(flatten)]
    pub read: ReadArgs,
}

#[derive(Args)]
pub(crate) struct Pull {
    /// [HOST[:PORT]/]NAME[:TAG], oci:DIR[:TAG] or oci-archive:FILE[:TAG]
    pub reference: ImageRef,
    /// The bundle's directory
    #[arg(short, long, value_name = "DIR")]
    pub output: PathBuf,
    /// Replace a bundle that is there
    #[arg(long)]
    pub force: bool,
    #[command(flatten)]
    pub key: KeyArgs,
    #[command(flatten)]
    pub cache: CacheDir,
    #[command(flatten)]
    pub registry: RegistryArgs,
    #[command(flatten)]
    pub read: ReadArgs,
}

#[derive(Args)]
#[group(skip)]
pub(crate) struct Export {
    /// The bundle's directory
    pub dir: PathBuf,
    #[command(flatten)]
    pub to: ExportTo,
    /// The name it gets there
    #[arg(long, default_value = "latest", value_parser = tag, conflicts_with_all = ["raw", "tar"])]
    pub tag: String,
    #[command(flatten)]
    pub cache: CacheDir,
    #[command(flatten)]
    pub read: ReadArgs,
}

#[derive(Args)]
#[group(required = true, multiple = false)]
pub(crate) struct ExportTo {
    /// An OCI layout, which may be there already
    #[arg(long, value_name = "DIR")]
    pub oci_layout: Option<PathBuf>,
    /// An OCI layout in a tar
    #[arg(long, value_name = "FILE")]
    pub oci_archive: Option<PathBuf>,
    /// The bundle's directory as a tar; its upper keeps its holes
    #[arg(long, value_name = "FILE")]
    pub tar: Option<PathBuf>,
    /// The disk alone, for machines that read no descriptor
    #[arg(long, value_name = "FILE")]
    pub raw: Option<PathBuf>,
}

#[derive(Args)]
pub(crate) struct Schema {
    /// Of what
    #[arg(value_enum, default_value_t = SchemaOf::Manifest)]
    pub of: SchemaOf,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum SchemaOf {
    /// A manifest
    Manifest,
    /// A file that a manifest includes: a list of patches
    Patches,
}
