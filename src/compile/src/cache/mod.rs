//! Compiled layers, kept by diff ID and format version.
//!
//! `v<N>/<hex>.erofs` is an object, `<hex>.json` what is known of it, and
//! `<hex>.lock` is locked by whoever makes or uses it. Objects are mode 0444
//! and appear by rename, the record last: an object without one does not count.
//!
//! An object is hashed when it is made, when anything touched it, once a week, and
//! while it is copied; between that, a record that is to the byte as it was written
//! speaks for it. Whoever may write to the directory is trusted all the same: a
//! record is sealed, and not signed.
//!
//! A cache may be shared ([`fsimage::io::shared_dir`]), and may be one that this user
//! cannot write to: what it has is used.

mod check;
mod record;
pub(super) mod store;

pub use self::check::check;
pub use self::record::Record;
pub use self::store::{Cache, Object, Slot};
