//! Disks by serial and ports by name: their numbers depend on the engine.

use crate::arena::{Str, join};
use crate::config::{bare, number};
use crate::sys;

/// The device of the disk with this serial.
pub fn disk(serial: &str) -> sys::Result<Str> {
    let mut device = Err(sys::ENOENT);
    sys::each_name(b"/sys/block\0", |name| {
        let mut buffer = [0; 64];
        let found = sys::read_into(join(&[b"/sys/block/", name, b"/serial"]), &mut buffer);
        let same = found.is_ok_and(|found| found.trim_ascii() == serial.as_bytes());
        if same {
            device = Ok(join(&[b"/dev/", name]));
        }
        same
    })?;
    device
}

/// How many bytes the disk at `device` has.
pub fn size(device: Str) -> sys::Result<u64> {
    let name = device.strip_prefix(b"/dev/").unwrap_or(device);
    let mut buffer = [0; 64];
    let text = sys::read_into(join(&[b"/sys/block/", bare(name), b"/size"]), &mut buffer)?;
    Ok(number(text.trim_ascii()).unwrap_or(0) * 512)
}

/// The kernel reads no more ahead at once than its default window.
const WINDOW: usize = 128 << 10;

/// What is read before the command starts. The rest would delay what the command itself asks for first.
const AT_ONCE: usize = 4 << 20;

/// The metadata of a mounted disk, which the kernel is to have in memory.
pub struct Metadata {
    /// The address of its mapping.
    at: usize,
    bytes: usize,
    kept: usize,
}

impl Metadata {
    /// Has the first `bytes` of a disk read; nobody waits for that.
    pub fn read_ahead(device: Str, bytes: u64) -> sys::Result<Self> {
        let (fd, bytes) = (sys::open(device, 0, 0)?, bytes as usize);
        let at_once = AT_ONCE.min(bytes);
        for at in (0..at_once).step_by(WINDOW) {
            sys::read_ahead(fd, at, WINDOW.min(at_once - at));
        }
        let mapped = sys::map(fd, bytes);
        sys::close(fd);
        Ok(Self { at: mapped?, bytes, kept: 0 })
    }

    /// Keeps one more window of it in memory, until the kernel finds nothing else to drop: pages that
    /// a process has mapped go last. What is dropped comes back in requests of one block each, four
    /// for a page. Tells whether there is more.
    pub fn keep_more(&mut self) -> bool {
        let len = WINDOW.min(self.bytes - self.kept);
        let done = sys::populate(self.at + self.kept, len);
        self.kept += len;
        // Before Linux 5.14 there is no such call, and metadata is only slower.
        done.is_ok() && self.kept < self.bytes
    }
}

/// Opens the port with this name, which the driver announces a while after start.
pub fn port(name: &str) -> Option<usize> {
    for wait in 0..2000 {
        let mut fd = None;
        let _ = sys::each_name(b"/sys/class/virtio-ports\0", |port| {
            let mut buffer = [0; 64];
            let found =
                sys::read_into(join(&[b"/sys/class/virtio-ports/", port, b"/name"]), &mut buffer);
            if found.is_ok_and(|found| found.trim_ascii() == name.as_bytes()) {
                fd = sys::open(join(&[b"/dev/", port]), sys::O_RDWR, 0).ok();
            }
            fd.is_some()
        });
        if fd.is_some() {
            return fd;
        }
        // Eagerly at first, ten seconds in all.
        let _ = sys::poll(&mut [], Some(if wait < 100 { 1 } else { 5 }));
    }
    None
}
