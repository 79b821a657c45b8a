//! An ahead-of-time compiler from container images to bundles: directories that a
//! virtual machine boots from, with the guest's own kernel.
//!
//! ```text
//! manifest ─► oci ─► layer: inflate + digest ─► tar entries ─► object.erofs (data now, metadata at the end)
//!             (registry, layout,                                   │ one per layer, keyed by diff ID, cached
//!              archive, daemon)                                    ▼
//!                                                  Tree per layer ─► merge ─► Tree of the image
//!                                                                              │            │
//!                                                  patches of the manifest ────┼──► Tree of the upper
//!                                                                              ▼            ▼
//!                                             bundle.vmdk ◄── fsmeta.erofs + layers     upper.ext4
//!                                                  │                                          │
//!                                                  ▼      boot: libkrun or qemu               ▼
//!                                               /dev/vda ──► overlay in the guest ◄──────── /dev/vdb
//! ```
//!
//! Think of a linker. A layer is an object file: it is compiled once, cached, and shared
//! by every image that has it. Whiteouts, opaque directories and, where the meaning of an
//! entry depends on the layers below, the journal of all entries are its relocations.
//! [`fsimage::tree::merge`] is the link, and `fsmeta.erofs` is the linked program: only
//! metadata, whose file data lie on the layers, with no relocation left.
//!
//! # Crates
//!
//! `fsimage ← oci ← bundle ← boot ← compile`: each crate knows only those to its left.
//!
//! * [`fsimage`]: file system images from trees and back (EROFS, ext4), and the files,
//!   locks and signals that every crate deals with.
//! * [`oci`]: images where they are. Without its feature `images` it has only platforms,
//!   and this is how `bundle` and `boot` use it: no program that boots a bundle holds
//!   HTTP, TLS or a registry client.
//! * [`bundle`]: the bundle directory: its index, its disk map, what makes it sound,
//!   signatures, and how one is published.
//! * [`rootfs_boot`]: a bundle as a running machine. This crate knows its command line,
//!   because `rootfs-compile run` takes the same options. `src/guest` is the init inside
//!   the machine, a program of its own.
//! * this crate: the manifest, layers, patches, the passes of a build, and the transfer
//!   of bundles to registries and layouts and back.
//!
//! ```no_run
//! use rootfs_compile::build::{Request, build};
//! use rootfs_compile::manifest::Manifest;
//! use rootfs_compile::progress::Silent;
//!
//! let manifest = Manifest::load("app.yaml".as_ref(), &Default::default())?;
//! let summary = build(&Request::new(manifest, "app", "cache"), &Silent)?;
//! println!("{} of {} layers were cached", summary.cached, summary.layers);
//! # Ok::<(), anyhow::Error>(())
//! ```
//!
//! # Glossary
//!
//! * **object**: a layer, compiled: an EROFS image with the file data first and the
//!   metadata at its end, in the cache or in a bundle.
//! * **fsmeta**: the merged metadata of all layers, as an EROFS image without data.
//! * **upper**: the ext4 image that overlayfs writes to; the patches are in it.
//! * **mark**: an xattr of an object, by which merge knows what a tar layer meant: that a
//!   directory is opaque or implied, or that a file is a hard link to a lower layer's. A
//!   whiteout needs none: it is a character device 0:0, as overlayfs has it.
//! * **implied directory**: one that no entry of its layer names, only a path through it.
//! * **journal**: all entries of a layer in their order, kept where the tree alone cannot
//!   tell what they do to the layers below.
//! * **floor**: the time that no build can go below, which is reading, inflating and hashing
//!   the layers; `ci/bench` divides by it.

#![warn(missing_debug_implementations, missing_docs, clippy::missing_errors_doc)]

pub mod artifact;
pub mod build;
pub mod bundle_cache;
pub mod cache;
pub mod layer;
pub mod manifest;
pub mod patch;
pub mod progress;
pub mod provenance;
pub mod transfer;
pub mod word;
