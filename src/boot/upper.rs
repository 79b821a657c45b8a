//! The writable upper of one run: a clone that goes away, or a file that stays.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;

use anyhow::{Context as _, Result, bail, ensure};
use rustix::fs::{FlockOperation, Mode, OFlags, SeekFrom};

use crate::bundle::UPPER;
use crate::bundle::open::OpenBundle;

/// Where ext4 keeps its magic number and its UUID.
const SUPERBLOCK: u64 = 1024;
const MAGIC_AT: usize = 0x38;
const UUID_AT: usize = 0x68;
const MAGIC: [u8; 2] = [0x53, 0xef];
const BLOCK: u64 = 4096;
/// What ext4 with 32-bit block numbers can hold.
const MAX_SIZE: u64 = 16 << 40;

/// An upper that nobody else writes.
pub struct Upper {
    pub file: File,
    /// Nobody will read it after the run.
    pub throwaway: bool,
    /// The file is larger than the file system in it.
    pub grow: bool,
}

impl Upper {
    /// The bundle's own, which must not be written.
    pub fn shared(bundle: &OpenBundle) -> Result<Self> {
        let file = bundle.upper.file.try_clone()?;
        Ok(Self { file, throwaway: true, grow: false })
    }

    /// A copy of the bundle's without a name: it is gone with the run, however that ends.
    pub fn private(bundle: &OpenBundle, size: Option<u64>) -> Result<Self> {
        let size = grown(bundle.upper.size, size)?;
        // On the bundle's own file system blocks can be shared.
        let places = [bundle.dir.clone(), std::env::temp_dir(), "/var/tmp".into()];
        let mut failed = None;
        for place in &places {
            let copy = || -> io::Result<File> {
                let file = unnamed(place)?;
                copy_sparse(&bundle.upper.file, &file, bundle.upper.size)?;
                file.set_len(size)?;
                Ok(file)
            };
            match copy() {
                Ok(file) => {
                    return Ok(Self { file, throwaway: true, grow: size > bundle.upper.size });
                }
                Err(error) => failed = Some((place, error)),
            }
        }
        let (place, error) = failed.expect("there are places");
        Err(error).with_context(|| {
            format!(
                "no place for a private copy of {UPPER}; tried the bundle, {} too",
                place.display()
            )
        })
    }

    /// The file at `path`: made from the bundle's if it is not there yet.
    pub fn kept(bundle: &OpenBundle, path: &Path, size: Option<u64>) -> Result<Self> {
        let shown = path.display();
        let open = || -> Result<Self> {
            let mut options = File::options();
            options.read(true).write(true).create(true).truncate(false).mode(0o600);
            options.custom_flags(OFlags::NONBLOCK.bits() as i32);
            let file = options.open(path)?;
            ensure!(file.metadata()?.is_file(), "it is no regular file");
            match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Err(rustix::io::Errno::WOULDBLOCK) => bail!("another machine is using it"),
                other => other?,
            }
            let wanted = uuid(&bundle.upper.file).context(UPPER)?.context("it is no ext4")?;
            let length = file.metadata()?.len();
            let old = match uuid(&file)? {
                Some(found) => {
                    ensure!(
                        found == wanted,
                        "it was made for another bundle; an upper fits only the image it began with"
                    );
                    length
                }
                None => {
                    // A copy that was cut short has no superblock yet.
                    ensure!(blank(&file)?, "it is there, and no ext4; it stays as it is");
                    fill(&bundle.upper.file, &file, bundle.upper.size)?;
                    bundle.upper.size
                }
            };
            let new = grown(old, size)?;
            file.set_len(new)?;
            Ok(Self { file, throwaway: false, grow: new > bundle.upper.size })
        };
        open().with_context(|| format!("upper {shown}"))
    }
}

/// The size to have: an upper only grows.
fn grown(old: u64, asked: Option<u64>) -> Result<u64> {
    let new = asked.unwrap_or(old);
    ensure!(new >= old, "an upper of {old} bytes cannot shrink to {new}");
    ensure!(
        new <= MAX_SIZE && new.is_multiple_of(BLOCK),
        "an upper has whole blocks of {BLOCK} bytes, and at most 16 TiB"
    );
    Ok(new)
}

/// The UUID of an ext4, or none if there is none.
fn uuid(file: &File) -> Result<Option<[u8; 16]>> {
    let mut superblock = [0; 1024];
    match file.read_exact_at(&mut superblock, SUPERBLOCK) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        other => other?,
    }
    let is_ext4 = superblock[MAGIC_AT..][..2] == MAGIC;
    Ok(is_ext4.then(|| *superblock[UUID_AT..].first_chunk().expect("a superblock is longer")))
}

/// Whether the first block is all zeros, or not there.
fn blank(file: &File) -> io::Result<bool> {
    let mut block = [0; BLOCK as usize];
    let len = file.read_at(&mut block, 0)?;
    Ok(block[..len].iter().all(|b| *b == 0))
}

/// Copies everything, the block with the superblock last.
fn fill(from: &File, to: &File, size: u64) -> Result<()> {
    to.set_len(0)?;
    to.set_len(size)?;
    copy_ranges(from, to, BLOCK, size)?;
    to.sync_all()?;
    copy_ranges(from, to, 0, BLOCK.min(size))?;
    Ok(to.sync_all()?)
}

fn unnamed(dir: &Path) -> io::Result<File> {
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    Ok(File::from(rustix::fs::open(dir, flags, Mode::RUSR | Mode::WUSR)?))
}

/// Makes `to`, which is empty, a copy of `from`: shared blocks where the file
/// system can, else what is not a hole.
fn copy_sparse(from: &File, to: &File, size: u64) -> io::Result<()> {
    if rustix::fs::ioctl_ficlone(to, from).is_ok() {
        return Ok(());
    }
    to.set_len(size)?;
    copy_ranges(from, to, 0, size)
}

fn copy_ranges(from: &File, to: &File, start: u64, end: u64) -> io::Result<()> {
    let mut buffer = vec![0; 1 << 18];
    let mut at = start;
    while at < end {
        at = match rustix::fs::seek(from, SeekFrom::Data(at)) {
            Ok(data) => data,
            Err(rustix::io::Errno::NXIO) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let hole = rustix::fs::seek(from, SeekFrom::Hole(at))?.min(end);
        while at < hole {
            let want = (hole - at).min(buffer.len() as u64) as usize;
            from.read_exact_at(&mut buffer[..want], at)?;
            to.write_all_at(&buffer[..want], at)?;
            at += want as u64;
        }
    }
    Ok(())
}
