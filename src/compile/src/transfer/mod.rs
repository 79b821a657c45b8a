//! Bundles on their way: to a registry, to a layout, and back.

mod layout;
mod new_file;
mod pull;
mod push;
mod raw;
mod tarball;

use bundle::seal::MAX_INDEX;

pub use self::layout::{to_archive, to_layout};
pub use self::pull::{PullTarget, pull};
pub use self::push::{Pushed, push};
pub use self::raw::to_raw;
pub use self::tarball::to_tar;

// A bundle that can be written can be pushed, and what was pushed can be pulled.
const _: () = assert!(MAX_INDEX <= oci::MAX_DOCUMENT);
