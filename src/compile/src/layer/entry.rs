//! Tar headers to entries: what a member is, before it has a place in a tree.

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use fsimage::tree::{Rdev, Stat, Timestamp, Xattrs, shown};
use tar::Header;

use super::header::{self, BLOCK};
use super::limits::Limits;
use super::pax::Pax;
use super::sparse::{self, SparseMap};
use super::stream::Stream;
use super::{number, xattr};

/// A member of a layer's tar.
pub struct Entry {
    /// As written: leading `/`, `./` and all.
    pub path: Vec<u8>,
    pub stat: Stat,
    pub xattrs: Xattrs,
    pub what: What,
    /// Bytes that the header announces although its type has none. The next header
    /// is expected right behind it all the same, as Go's reader does.
    pub announced: u64,
}

/// What kind of member.
pub enum What {
    Dir,
    File(Stored),
    HardLink(Vec<u8>),
    Symlink(Vec<u8>),
    Char(Rdev),
    Block(Rdev),
    Fifo,
}

/// A regular file's bytes, next in the stream.
pub struct Stored {
    /// Bytes in the stream.
    pub stored: u64,
    /// Where they belong, if not one behind the other.
    pub map: Option<SparseMap>,
    /// Bytes in the stream behind them, to the next header.
    pub padding: u64,
}

/// Extended headers longer than this, beyond the xattrs that are allowed.
const MAX_EXTENSION: u64 = 1 << 20;

/// What extension headers say of the member that follows.
#[derive(Default)]
struct Extensions {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    pax: Pax,
}

/// Reads the headers of the next member, or `None` at the archive's end; an
/// extended header that nothing follows is passed over.
///
/// The stream then stands at the member's bytes, which are the caller's to take.
pub fn next(stream: &mut Stream<'_>, limits: &Limits) -> Result<Option<Entry>> {
    let mut extensions = Extensions::default();
    loop {
        let Some(header) = header::next(stream)? else {
            return Ok(None);
        };
        let kind = header.as_old().linkflag[0];
        if !matches!(kind, b'x' | b'g' | b'L' | b'K' | b'V') {
            let path = path(&header, &extensions);
            let name = shown(&path).to_string();
            return entry(&header, path, extensions, stream, limits).context(name).map(Some);
        }
        let size = header::size(&header)?;
        ensure!(
            size <= MAX_EXTENSION + 2 * limits.xattr_bytes,
            "an extension header of {size} bytes (--max-xattr-bytes limits them)"
        );
        let bytes = stream.bytes(size)?;
        stream.skip_padding(size.next_multiple_of(BLOCK) - size)?;
        match kind {
            b'x' => extensions.pax = Pax::parse(bytes)?,
            b'L' => extensions.path = long(&bytes),
            b'K' => extensions.link = long(&bytes),
            // Global headers hold a comment in archives of git. Docker and containerd
            // pass over them, once Go's archive/tar has read them.
            b'g' => drop(Pax::parse(bytes)?),
            // A volume header, which holds a label.
            _ => {}
        }
    }
}

/// A GNU long name; an empty one leaves the header's own in force.
fn long(bytes: &[u8]) -> Option<Vec<u8>> {
    Some(header::until_nul(bytes).to_vec()).filter(|name| !name.is_empty())
}

fn path(header: &Header, extensions: &Extensions) -> Vec<u8> {
    let pax = &extensions.pax;
    // The name that a sparse file has in the header is a made-up one.
    let long = pax.field("GNU.sparse.name").or_else(|| pax.field("path"));
    match long.or(extensions.path.as_deref()) {
        Some(path) => path.to_vec(),
        None => header::path(header),
    }
}

fn entry(
    header: &Header,
    path: Vec<u8>,
    extensions: Extensions,
    stream: &mut Stream<'_>,
    limits: &Limits,
) -> Result<Entry> {
    let pax = &extensions.pax;
    ensure!(!path.contains(&0), "the path holds a NUL");
    ensure!(
        path.len() as u64 <= limits.path,
        "a path of {} bytes (raise --max-path to allow it)",
        path.len()
    );
    let stat = stat(header, pax)?;
    let xattrs = xattr::from_pax(pax, limits.xattr_bytes)?;
    let link = || match pax.field("linkpath").or(extensions.link.as_deref()) {
        Some(link) => link.to_vec(),
        None => header::until_nul(&header.as_old().linkname).to_vec(),
    };
    let kind = header.as_old().linkflag[0];
    let what = match kind {
        // Archives from before the type for directories.
        0 if path.ends_with(b"/") => What::Dir,
        b'0' | 0 | b'7' | b'S' => What::File(stored(header, pax, stream, limits)?),
        b'1' => What::HardLink(link()),
        b'2' => What::Symlink(link()),
        b'3' => What::Char(header::rdev(header)?),
        b'4' => What::Block(header::rdev(header)?),
        b'5' => What::Dir,
        b'6' => What::Fifo,
        // GNU's incremental dumps: a directory, with a list of its names as data.
        b'D' => {
            let size = header::size(header)?;
            stream.skip(size)?;
            stream
                .skip_padding(size.checked_next_multiple_of(BLOCK).map_or(0, |end| end - size))?;
            What::Dir
        }
        b'M' => bail!("a file continued from another volume"),
        other => bail!("a tar entry of type \"{}\", which is not known", other.escape_ascii()),
    };
    let announced = match what {
        What::File(_) => 0,
        _ if kind == b'D' => 0,
        _ => header::size(header).unwrap_or(0),
    };
    Ok(Entry { path, stat, xattrs, what, announced })
}

fn stat(header: &Header, pax: &Pax) -> Result<Stat> {
    let old = header.as_old();
    let owner = |what, key, field: &[u8]| -> Result<u32> {
        let number = match pax.field(key) {
            Some(value) => number::decimal(value),
            None => number::header_number(field),
        };
        let number = number.context(what)?;
        // The largest means "leave it" to chown.
        u32::try_from(number)
            .ok()
            .filter(|id| *id != u32::MAX)
            .ok_or_else(|| anyhow!("{what} {number} is not between 0 and 4294967294"))
    };
    let mtime = match pax.field("mtime") {
        Some(value) => number::time(value)?,
        None => {
            let sec = number::header_number(&old.mtime).context("mtime")?;
            let sec = i64::try_from(sec).map_err(|_| anyhow!("mtime {sec} is out of range"))?;
            Timestamp { sec, nsec: 0 }
        }
    };
    let mode = number::header_number(&old.mode).context("mode")?;
    Ok(Stat {
        mode: (mode & 0o7777) as u16,
        uid: owner("uid", "uid", &old.uid)?,
        gid: owner("gid", "gid", &old.gid)?,
        mtime,
    })
}

fn stored(header: &Header, pax: &Pax, stream: &mut Stream<'_>, limits: &Limits) -> Result<Stored> {
    let in_stream = match pax.field("size") {
        Some(value) => number::unsigned(value)?,
        None => header::size(header)?,
    };
    let end = in_stream.checked_next_multiple_of(BLOCK);
    let padding = end.ok_or_else(|| anyhow!("a file of {in_stream} bytes"))? - in_stream;
    let mut stored = in_stream;
    let map = if header.as_old().linkflag[0] == b'S' {
        Some(sparse::old_gnu(header, stream)?)
    } else if let Some((map, taken)) = sparse::before_data(pax, in_stream, stream)? {
        stored -= taken;
        Some(map)
    } else {
        sparse::from_records(pax)?
    };
    if let Some(map) = &map {
        map.check(stored)?;
    }
    let size = map.as_ref().map_or(stored, |map| map.size);
    ensure!(
        size <= limits.file_bytes,
        "a file of {size} bytes (raise --max-file-bytes to allow it)"
    );
    // Far beyond any limit that makes sense, but sums of offsets stay in range.
    ensure!(size < 1 << 62, "a file of {size} bytes");
    Ok(Stored { stored, map, padding })
}
