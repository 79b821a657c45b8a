//! How a bundle boots: the values of a manifest's `boot:`, which the bundle's index and the
//! options of `rootfs-boot` have as well.

pub(super) mod bad_value;
pub mod lenient;
pub(super) mod options;
#[cfg(feature = "schema")]
mod schema;
pub(super) mod signal;
pub(super) mod size;
pub(super) mod value;

pub use self::options::Boot;
pub use self::signal::Signal;
pub use self::size::{BadSize, ByteSize, UpperSize};
pub use self::value::Dns;
pub use self::value::HostEntry;
pub use self::value::Hostname;
pub use self::value::Memory;
pub use self::value::Publish;
pub use self::value::Span;
pub use self::value::Tmpfs;
pub use self::value::User;
pub use self::value::absolute;
pub use self::value::argument;
pub use self::value::variable;
pub use crate::boot::bad_value::BadValue;
pub use crate::boot::bad_value::MAX_CPUS;
