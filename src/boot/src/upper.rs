//! The writable upper of one run: a clone that goes away, or a file that stays.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use anyhow::{Context as _, Result, bail, ensure};
use bundle::UPPER;
use bundle::boot::{ByteSize, UpperSize};
use bundle::open::OpenBundle;
use fsimage::io::temporary::Temporary;
use fsimage::io::{flock, holes};
use rustix::fs::OFlags;

/// Where ext4 keeps its magic number and its UUID.
const SUPERBLOCK: u64 = 1024;
const MAGIC_AT: usize = 0x38;
const UUID_AT: usize = 0x68;
const MAGIC: [u8; 2] = [0x53, 0xef];

/// An upper that nobody else writes.
pub(crate) struct Upper {
    pub file: File,
    /// Whether the file goes with the run, so that it need not reach the disk.
    pub throwaway: bool,
    /// Whether the guest has to grow the file system to the size of the file.
    pub grow: bool,
}

impl Upper {
    /// The bundle's own, which must not be written.
    pub(crate) fn shared(bundle: &OpenBundle) -> Result<Self> {
        let file = bundle.upper.file.try_clone()?;
        Ok(Self { file, throwaway: true, grow: false })
    }

    /// A copy of the bundle's without a name: it is gone with the run, however that ends.
    pub(crate) fn private(bundle: &OpenBundle, size: Option<u64>) -> Result<Self> {
        let size = grown(bundle.upper.size, size)?;
        // On the bundle's own file system blocks can be shared.
        let places = [bundle.dir.clone(), std::env::temp_dir(), "/var/tmp".into()];
        let mut failed = Vec::new();
        for (i, place) in places.iter().enumerate() {
            let copy = || -> io::Result<File> {
                // The bundle is where it was opened, whatever its path leads to by now.
                let file = match i {
                    0 => bundle.scratch()?,
                    _ => Temporary::create(place, 0o600)?.into_file(),
                };
                copy_sparse(&bundle.upper.file, &file, bundle.upper.size)?;
                file.set_len(size)?;
                Ok(file)
            };
            match copy() {
                Ok(file) => {
                    return Ok(Self { file, throwaway: true, grow: size > bundle.upper.size });
                }
                Err(error) => failed.push(format!("{}: {error}", place.display())),
            }
        }
        bail!(
            "no place for a private copy of {UPPER} (TMPDIR names another one, --ephemeral needs \
             none): {}",
            failed.join("; ")
        )
    }

    /// The file at `path`: made from the bundle's if it is not there yet.
    pub(crate) fn kept(bundle: &OpenBundle, path: &Path, size: Option<u64>) -> Result<Self> {
        Self::open_kept(bundle, path, size).with_context(|| format!("upper {}", path.display()))
    }

    fn open_kept(bundle: &OpenBundle, path: &Path, size: Option<u64>) -> Result<Self> {
        if !path.exists() {
            make_kept(bundle, path)?;
        }
        let (file, new) = Self::lock_kept(bundle, path, size)?;
        if new > file.metadata()?.len() {
            file.set_len(new)?;
        }
        Ok(Self { file, throwaway: false, grow: new > bundle.upper.size })
    }

    /// Refuses what [`Upper::kept`] would, and changes nothing. Returns the size in bytes that the
    /// upper would have.
    pub(crate) fn check_kept(bundle: &OpenBundle, path: &Path, size: Option<u64>) -> Result<u64> {
        let check = || match path.exists() {
            true => Self::lock_kept(bundle, path, size).map(|(_, size)| size),
            false => {
                let parent = path.parent().filter(|dir| !dir.as_os_str().is_empty());
                ensure!(parent.unwrap_or(Path::new(".")).is_dir(), "there is no such directory");
                Self::check_private(bundle, size)
            }
        };
        check().with_context(|| format!("upper {}", path.display()))
    }

    /// Refuses a size that [`Upper::private`] would; else returns it.
    pub(crate) fn check_private(bundle: &OpenBundle, size: Option<u64>) -> Result<u64> {
        grown(bundle.upper.size, size)
    }

    /// The upper at `path`, locked, and the size that it is to have.
    fn lock_kept(bundle: &OpenBundle, path: &Path, size: Option<u64>) -> Result<(File, u64)> {
        let mut options = File::options();
        options.read(true).write(true).custom_flags(OFlags::NONBLOCK.bits() as i32);
        let file = options.open(path)?;
        let metadata = file.metadata()?;
        ensure!(metadata.is_file(), "it is not a regular file");
        let inode = |m: &std::fs::Metadata| (m.dev(), m.ino());
        for own in bundle.disk.iter().chain([&bundle.upper]) {
            let same = inode(&own.file.metadata()?) == inode(&metadata);
            ensure!(!same, "it is the bundle's own, which stays as it was compiled");
        }
        let is_free = flock::try_lock(&file, flock::LockKind::Exclusive)?;
        ensure!(is_free, "another machine is using it");
        let wanted = uuid(&bundle.upper.file).context(UPPER)?;
        match uuid(&file)? {
            Some(found) => ensure!(
                Some(found) == wanted,
                "it was made for another bundle; an upper fits only the image it began with"
            ),
            None => bail!("it is there, and no ext4; it stays as it is"),
        }
        // Not from before the lock: the machine that held it may have grown the file.
        let new = grown(file.metadata()?.len(), size)?;
        Ok((file, new))
    }
}

/// Copies the bundle's upper to `path`, which appears whole or not at all.
fn make_kept(bundle: &OpenBundle, path: &Path) -> Result<()> {
    let parent = path.parent().filter(|dir| !dir.as_os_str().is_empty());
    let made = Temporary::create(parent.unwrap_or(Path::new(".")), 0o600).context("making it")?;
    copy_sparse(&bundle.upper.file, made.file(), bundle.upper.size)?;
    made.file().sync_all()?;
    match made.persist_new(path) {
        // Somebody else was first; theirs is as good.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => Ok(other.map(drop)?),
    }
}

/// The size to have: an upper only grows.
fn grown(old: u64, asked: Option<u64>) -> Result<u64> {
    let new = asked.unwrap_or(old);
    ensure!(new >= old, "an upper of {old} bytes cannot shrink to {new}");
    // The same sizes as in a manifest.
    Ok(UpperSize::try_from(ByteSize(new))?.0)
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

/// Makes `to`, which is empty, a copy of `from`: shared blocks where the file
/// system can, else what is not a hole.
fn copy_sparse(from: &File, to: &File, size: u64) -> io::Result<()> {
    if fsimage::io::system::share_blocks(from, to) {
        return Ok(());
    }
    to.set_len(size)?;
    let mut buffer = vec![0; 1 << 18];
    for data in holes::data(from, size, 1) {
        let Range { start: mut at, end } = data?;
        while at < end {
            let want = (end - at).min(buffer.len() as u64) as usize;
            from.read_exact_at(&mut buffer[..want], at)?;
            to.write_all_at(&buffer[..want], at)?;
            at += want as u64;
        }
    }
    Ok(())
}
