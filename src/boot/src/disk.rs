//! Files that exist only as open descriptors: the boot disk, and the disk's descriptor.

use std::fs::File;
use std::io::Write as _;
use std::os::fd::AsRawFd as _;
use std::sync::Arc;

use anyhow::Result;
use bundle::opened::OpenFile;
use bundle::vmdk;
use fsimage::digest::DiffId;
use fsimage::erofs::layer::ObjectWriter;
use fsimage::io::sink::Sink as _;
use fsimage::tree::extents::Extents;
use fsimage::tree::{Dir, DirId, Inode, Kind, Name, Stat, Tree, Xattrs};
use fsimage::units::{BLOCK_SIZE, BlockAddr, DeviceId, blocks_of};

use crate::system::{fd_path, memory_file};

/// The guest's PID 1; see `src/guest`.
const INIT: &[u8] = include_bytes!(env!("GUEST_INIT"));

/// Where the init mounts things before the command's root is entered.
const MOUNT_POINTS: [&str; 8] =
    ["dev", "files", "lower", "proc", "root", "scratch", "sys", "upper"];

/// The disk that the guest's kernel starts from: `/init`, `/config` and mount points.
pub(crate) fn boot_disk(config: &[u8]) -> Result<File> {
    let mut writer = ObjectWriter::new(memory_file("boot")?)?;
    let add = |tree: &mut Tree<Extents>, name: &str, mode, kind| -> Result<()> {
        let stat = Stat { mode, ..Stat::IMPLIED_DIR };
        let inode = Inode { stat, xattrs: Xattrs::default(), kind };
        tree.add(DirId::ROOT, Name::new(name.as_bytes())?, inode)?;
        Ok(())
    };
    let mut tree = Tree::<Extents>::new(Stat::IMPLIED_DIR);
    for (name, mode, bytes) in [("config", 0o600, config), ("init", 0o700, INIT)] {
        let sink = writer.data();
        let start = BlockAddr::from_offset(sink.position()).expect("files begin at blocks");
        sink.data(bytes)?;
        sink.zeros(sink.position().next_multiple_of(BLOCK_SIZE) - sink.position())?;
        let size = bytes.len() as u64;
        let blocks = u32::try_from(blocks_of(size)).expect("both are small");
        let extents = Extents::contiguous(size, DeviceId::PRIMARY, start, blocks);
        add(&mut tree, name, mode, Kind::File(extents))?;
    }
    for name in MOUNT_POINTS {
        add(&mut tree, name, 0o755, Kind::Dir(Dir::default()))?;
    }
    let (file, _) = writer.finish(&tree, DiffId::of(b""))?;
    Ok(file)
}

/// A descriptor over the open files themselves: nothing that is done to their
/// names reaches the machine.
pub(crate) fn private_descriptor(disk: &[Arc<OpenFile>]) -> Result<File> {
    let extent = |file: &Arc<OpenFile>| vmdk::Extent {
        path: fd_path(file.file.as_raw_fd()),
        size: file.size,
    };
    let extents: Vec<_> = disk.iter().map(extent).collect();
    let mut file = memory_file("bundle.vmdk")?;
    file.write_all(vmdk::descriptor(&extents, 1).as_bytes())?;
    Ok(file)
}
