//! Files that are in memory, because the fuzzer makes thousands a second.

use std::fs::File;
use std::os::unix::fs::FileExt as _;

use rustix::fs::{MemfdFlags, memfd_create};

/// A new, empty file without a name.
pub(crate) fn file() -> File {
    memfd_create("fuzz", MemfdFlags::CLOEXEC).expect("memory can be had").into()
}

/// All bytes of `file`.
pub(crate) fn bytes(file: &File) -> Vec<u8> {
    let len = file.metadata().expect("it is open").len();
    let mut bytes = vec![0; len as usize];
    file.read_exact_at(&mut bytes, 0).expect("it is as long as it says");
    bytes
}
