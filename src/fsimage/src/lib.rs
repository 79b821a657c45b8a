//! File system images from trees and back: EROFS and ext4, read and written. This crate
//! knows no container image, no network and no manifest.
//!
//! Layer objects and the upper are written past the page cache ([`io::sink`]): most of
//! what a build writes is read in machines, later, and a page of the cache costs a copy and a
//! wait. Metadata, which the next build and the first start read, stay in it.
//!
//! Nothing is seen half-made: a file has no name until it is whole ([`io::temporary`]), and
//! [`io::ending`] undoes what is begun when a signal ends the process.
//!
//! ```
//! use fsimage::ext4::Layout;
//! use fsimage::io::sink::FileSink;
//! use fsimage::tree::{DirId, Name, Stat, Tree};
//!
//! let mut tree = Tree::<Vec<u8>>::new(Stat::IMPLIED_DIR);
//! tree.add_dir(DirId::ROOT, Name::new(b"etc")?, Stat::IMPLIED_DIR)?;
//! let layout = Layout::leaving(&tree, 1 << 20)?;
//! let mut sink = FileSink::new(tempfile::tempfile()?);
//! layout.write(&[7; 32], &mut sink)?;
//! let (file, _) = sink.finish(&[])?;
//! assert_eq!(file.metadata()?.len(), layout.size());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! `erofs` and `ext4` do not know each other; both take a [`tree::Tree`].

#![warn(missing_debug_implementations, missing_docs, clippy::missing_errors_doc)]

pub mod budget;
pub mod digest;
pub mod erofs;
pub mod ext4;
mod fields;
pub mod io;
pub mod tree;
pub mod units;
pub mod xattr;
