//! Files, threads and signals: what every crate of this project does with them, in one way.

pub mod atomic_file;
pub mod checked;
pub mod dir;
pub mod ending;
pub mod flock;
pub mod hash;
pub mod holes;
pub mod mmap;
pub mod printable;
pub mod process;
pub mod regular;
pub mod seal;
pub mod shared_dir;
pub mod signals;
pub mod sink;
pub mod stamp;
pub mod system;
pub mod temporary;
pub mod threads;
mod write_behind;
