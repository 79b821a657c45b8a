//! An ahead-of-time compiler from container images to bundles: directories
//! that a virtual machine boots from, with the guest's own kernel.
//!
//! ```text
//! manifest ─► source ─► layer: inflate + digest ─► tar entries ─► object.erofs (data now, metadata at the end)
//!             (registry, OCI layout,                                   │ one per layer, keyed by diff ID, cached
//!              OCI archive, docker-archive)                            ▼
//!                                                     Tree per layer ─► merge ─► Tree of the image
//!                                                                                 │            │
//!                                                     patches of the manifest ────┼──► Tree of the upper
//!                                                                                 ▼            ▼
//!                                                bundle.vmdk ◄── fsmeta.erofs + layers     upper.ext4
//!                                                     │                                          │
//!                                                     ▼      boot: libkrun or qemu               ▼
//!                                                  /dev/vda ──► overlay in the guest ◄──────── /dev/vdb
//! ```
//!
//! Think of a linker. A layer is an object file: compiled once, cached, shared
//! by every image that has it; whiteouts, opaque directories and, where an entry's
//! meaning depends on what is below, the journal of all its entries are its
//! relocations. [`tree::merge`] is the link, and
//! `fsmeta.erofs` the linked program: metadata alone, whose file data lie on
//! the layers, with no relocation left.
//!
//! Large files are written past the page cache ([`sink`]): most of what a build
//! writes is read in machines, later, and a page of the cache costs a copy and a
//! wait. Metadata, which the next build and the first start read, stay in it.
//!
//! Nothing is seen half-made: a bundle is made beside its place ([`bundle::staging`])
//! and a file without a name ([`temporary`]); [`ending`] undoes both when a signal
//! ends the process. Nothing is removed that this program did not make.
//!
//! [`patch`] is what runs before the program does: it changes the linked tree as
//! a guest would have, and what overlayfs would have kept of that is the upper.
//!
//! Arrows point one way: `units, digest, sink ← tree ← {erofs, ext4} ← layer ←
//! patch, bundle ← compile, transfer ← bin`. `source` knows no tree; `erofs` and
//! `ext4` never meet. [`transfer`] carries bundles to registries and layouts, and
//! back. [`word`] tells what a word on the command line means, and [`bundle_cache`]
//! keeps bundles that were compiled to be run. [`boot`] takes a bundle as it lies on disk and knows nothing of how it
//! was compiled; the disk its guest starts from comes from the same EROFS writer.
//! `src/guest` is the init inside the machine, a program of its own.
//!
//! Who vouches for what: [`bundle::signature`] for a bundle, [`source::ImageKey`] for
//! an image; [`provenance`] says what a bundle was made of. What is printed goes
//! through [`printable`], and both programs begin in [`process`].

pub mod acl;
mod behind;
pub mod boot;
pub mod budget;
pub mod bundle;
pub mod bundle_cache;
pub mod cache;
pub mod checked;
pub mod compile;
pub mod digest;
mod dir;
pub mod ending;
pub mod erofs;
pub mod ext4;
mod flock;
mod foreign_json;
pub mod layer;
pub mod manifest;
pub mod map;
pub mod patch;
pub mod printable;
pub mod process;
pub mod progress;
pub mod provenance;
pub mod regular;
mod seal;
mod shared_dir;
pub mod sink;
pub mod source;
pub mod temporary;
mod threads;
pub mod transfer;
pub mod tree;
pub mod units;
pub mod whole;
pub mod word;
pub mod xattr;
