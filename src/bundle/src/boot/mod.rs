//! How a bundle boots: the values of a manifest's `boot:`, of the bundle's index, and of the options of `rootfs-boot`.

pub mod lenient;
mod options;
mod signal;
mod size;
mod value;

pub use self::options::Boot;
pub use self::signal::Signal;
pub use self::size::{BadSize, ByteSize, UpperSize};
pub use self::value::{
    BadValue, Dns, HostEntry, Hostname, MAX_CPUS, Memory, Publish, Span, Tmpfs, User, absolute,
    argument, variable,
};
