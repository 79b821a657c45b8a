//! Tar headers to entries: what a member is, before it has a place in a tree.

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use fsimage::budget::Steps;
use fsimage::tree::{Rdev, Stat, Timestamp, Xattrs, shown};
use fsimage::xattr::Holder;
use tar::Header;

use super::header::{self, BLOCK};
use super::limits::Limits;
use super::pax::Pax;
use super::sparse::{self, Form, SparseMap};
use super::stream::Stream;
use super::{number, xattr};

/// A member of a layer's tar.
pub(super) struct Entry {
    /// As written: leading `/`, `./` and all.
    pub path: Vec<u8>,
    pub stat: Stat,
    pub xattrs: Xattrs,
    pub kind: EntryKind,
    /// Bytes that the header announces although its type has none. The next header
    /// is expected right behind it all the same, as Go's reader does.
    pub announced: u64,
}

/// What kind of member, with what only this kind has.
pub(super) enum EntryKind {
    Dir,
    File(Stored),
    HardLink(Vec<u8>),
    Symlink(Vec<u8>),
    Char(Rdev),
    Block(Rdev),
    Fifo,
}

/// A regular file's bytes, next in the stream.
pub(super) struct Stored {
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
pub(super) fn next(
    stream: &mut Stream<'_>,
    limits: &Limits,
    steps: &Steps,
) -> Result<Option<Entry>> {
    let mut extensions = Extensions::default();
    loop {
        let Some(header) = header::next(stream)? else {
            return Ok(None);
        };
        let typeflag = header.as_old().linkflag[0];
        if !matches!(typeflag, b'x' | b'g' | b'L' | b'K' | b'V') {
            let meant = meant(&header, &extensions);
            steps.take(1 + meant.path.iter().filter(|b| **b == b'/').count())?;
            let name = shown(&meant.path).to_string();
            return entry(&header, meant, extensions, stream, limits).context(name).map(Some);
        }
        let size = header::size(&header)?;
        ensure!(
            size <= MAX_EXTENSION + 2 * limits.xattr_bytes,
            "an extension header of {size} bytes (--max-xattr-bytes limits them)"
        );
        let bytes = stream.bytes(size)?;
        stream.skip_padding(size.next_multiple_of(BLOCK) - size)?;
        match typeflag {
            b'x' => {
                extensions.pax = Pax::parse(bytes)?;
                steps.take(extensions.pax.records)?;
            }
            b'L' => extensions.path = long(&bytes),
            b'K' => extensions.link = long(&bytes),
            // Global headers hold a comment in archives of git. Docker and containerd
            // pass over them, once Go's archive/tar has read them. It takes them for
            // members, so what stands before one says nothing of what follows it.
            b'g' => {
                steps.take(Pax::parse(bytes)?.records)?;
                extensions = Extensions::default();
            }
            // A volume header, which holds a label.
            _ => extensions = Extensions::default(),
        }
    }
}

/// A GNU long name; an empty one leaves the header's own in force.
fn long(bytes: &[u8]) -> Option<Vec<u8>> {
    Some(header::until_nul(bytes).to_vec()).filter(|name| !name.is_empty())
}

/// What a member is, by all that its headers say together.
struct Meant {
    path: Vec<u8>,
    /// The type, which archives from before the one for directories leave to the name.
    typeflag: u8,
    /// Of a sparse file.
    form: Option<Form>,
}

/// As Go's archive/tar has it: GNU's long names win over PAX, wherever they stand, and
/// a sparse file's own name over both, the one in its header being made up.
fn meant(header: &Header, extensions: &Extensions) -> Meant {
    let pax = &extensions.pax;
    let long = extensions.path.as_deref().or_else(|| pax.field("path"));
    let path = long.map_or_else(|| header::path(header), <[u8]>::to_vec);
    let typeflag = match header.as_old().linkflag[0] {
        0 if path.ends_with(b"/") => b'5',
        0 => b'0',
        other => other,
    };
    let form = sparse::form(typeflag, pax);
    let own = pax.field("GNU.sparse.name").filter(|_| form.is_some_and(|form| form.is_pax()));
    Meant { path: own.map_or(path, <[u8]>::to_vec), typeflag, form }
}

fn entry(
    header: &Header,
    Meant { path, typeflag, form }: Meant,
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
    let link = || match extensions.link.as_deref().or_else(|| pax.field("linkpath")) {
        Some(link) => link.to_vec(),
        None => header::until_nul(&header.as_old().linkname).to_vec(),
    };
    let kind = match typeflag {
        b'0' | b'7' | b'S' => EntryKind::File(stored(header, pax, form, stream, limits)?),
        _ if form.is_some() => bail!("the records of a sparse file, and it is not a file"),
        b'1' => EntryKind::HardLink(link()),
        b'2' => EntryKind::Symlink(link()),
        b'3' => EntryKind::Char(header::rdev(header)?),
        b'4' => EntryKind::Block(header::rdev(header)?),
        b'5' => EntryKind::Dir,
        b'6' => EntryKind::Fifo,
        // GNU's incremental dumps: a directory, with a list of its names as data.
        b'D' => {
            let size = header::size(header)?;
            stream.skip(size)?;
            stream
                .skip_padding(size.checked_next_multiple_of(BLOCK).map_or(0, |end| end - size))?;
            EntryKind::Dir
        }
        b'M' => bail!("a file continued from another volume"),
        other => bail!("a tar entry of type \"{}\", which is not known", other.escape_ascii()),
    };
    let announced = match kind {
        EntryKind::File(_) => 0,
        _ if typeflag == b'D' => 0,
        _ => header::size(header).unwrap_or(0),
    };
    let holder = match kind {
        // The xattrs of a hard link describe nothing.
        EntryKind::File(_) | EntryKind::HardLink(_) => Holder::File,
        EntryKind::Dir => Holder::Dir,
        EntryKind::Symlink(_) => Holder::Symlink,
        EntryKind::Char(_) | EntryKind::Block(_) | EntryKind::Fifo => Holder::Other,
    };
    let xattrs = xattr::from_pax(pax, holder, stat.mode, limits.xattr_bytes)?;
    Ok(Entry { path, stat, xattrs, kind, announced })
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

fn stored(
    header: &Header,
    pax: &Pax,
    form: Option<Form>,
    stream: &mut Stream<'_>,
    limits: &Limits,
) -> Result<Stored> {
    let in_stream = match pax.field("size") {
        Some(value) => number::unsigned(value)?,
        None => header::size(header)?,
    };
    let end = in_stream.checked_next_multiple_of(BLOCK);
    let padding = end.ok_or_else(|| anyhow!("a file of {in_stream} bytes"))? - in_stream;
    let mut stored = in_stream;
    let map = match form {
        None => None,
        Some(Form::OldGnu) => Some(sparse::old_gnu(header, stream)?),
        Some(Form::Records) => Some(sparse::from_records(pax, in_stream)?),
        Some(Form::BeforeData) => {
            let (map, taken) = sparse::before_data(pax, in_stream, stream)?;
            stored -= taken;
            Some(map)
        }
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

#[cfg(test)]
mod tests {
    use fsimage::budget::Budget;

    use super::super::stream::{Allowed, with_stream};
    use fsimage::budget::EXPANSION;

    use super::*;

    fn padded(bytes: &[u8]) -> Vec<u8> {
        let mut padded = bytes.to_vec();
        padded.resize(bytes.len().next_multiple_of(512), 0);
        padded
    }

    fn member(name: &str, kind: u8, link: &str, data: &[u8]) -> Vec<u8> {
        let mut header = Header::new_gnu();
        header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
        header.as_mut_bytes()[157..157 + link.len()].copy_from_slice(link.as_bytes());
        header.as_old_mut().linkflag[0] = kind;
        header.set_size(data.len() as u64);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_cksum();
        [header.as_bytes(), &padded(data)[..]].concat()
    }

    fn file(name: &str, data: &[u8]) -> Vec<u8> {
        member(name, b'0', "", data)
    }

    fn long(kind: u8, value: &str) -> Vec<u8> {
        member("././@LongLink", kind, "", &[value.as_bytes(), b"\0"].concat())
    }

    fn pax_of(kind: u8, records: &[(&str, &str)]) -> Vec<u8> {
        let record = |(key, value): &(&str, &str)| {
            let body = format!(" {key}={value}\n");
            let len = (1..).find(|digits| (body.len() + digits).to_string().len() == *digits);
            format!("{}{body}", body.len() + len.unwrap())
        };
        member("pax", kind, "", records.iter().map(record).collect::<String>().as_bytes())
    }

    fn pax(records: &[(&str, &str)]) -> Vec<u8> {
        pax_of(b'x', records)
    }

    /// Of each member: its path, what it links to or the bytes of the file, and of
    /// those the runs that are stored.
    fn read(parts: &[Vec<u8>]) -> Result<Vec<String>> {
        let tar = [parts.concat(), vec![0; 1024]].concat();
        let (limits, steps, budget) = (Limits::default(), Steps::new(1000), Budget::default());
        let allowed = Allowed { most: u64::MAX, times: EXPANSION, expansion: &budget };
        let take = |stream: &mut Stream<'_>| {
            let mut lines = Vec::new();
            while let Some(entry) = next(stream, &limits, &steps)? {
                let what = match entry.kind {
                    EntryKind::File(Stored { stored, map, padding }) => {
                        stream.skip(stored + padding)?;
                        match map {
                            Some(SparseMap { size, runs }) => format!("{size} {runs:?}"),
                            None => stored.to_string(),
                        }
                    }
                    EntryKind::HardLink(to) | EntryKind::Symlink(to) => String::from_utf8(to)?,
                    EntryKind::Dir => "/".to_owned(),
                    _ => "?".to_owned(),
                };
                lines.push(format!("{}: {what}", shown(&entry.path)));
            }
            Ok(lines)
        };
        with_stream(&tar[..], allowed, &|_| {}, take).made
    }

    #[track_caller]
    fn check(parts: &[Vec<u8>], lines: &[&str]) {
        assert_eq!(read(parts).unwrap(), lines);
    }

    #[test]
    fn the_names_of_gnu_win_over_those_of_pax() {
        let (gnu, of_pax) = (long(b'L', "gnu"), pax(&[("path", "pax"), ("linkpath", "to-pax")]));
        check(&[gnu.clone(), of_pax.clone(), file("header", b"x")], &["gnu: 1"]);
        check(&[of_pax.clone(), gnu, file("header", b"x")], &["gnu: 1"]);
        let link = || member("header", b'2', "to-header", b"");
        check(&[long(b'K', "to-gnu"), of_pax.clone(), link()], &["pax: to-gnu"]);
        check(&[of_pax.clone(), long(b'K', "to-gnu"), link()], &["pax: to-gnu"]);
        check(&[of_pax, link()], &["pax: to-pax"]);
        // What stands before a global header says nothing of what follows it.
        let global = pax_of(b'g', &[("comment", "x")]);
        check(&[pax(&[("path", "lost")]), global.clone(), file("header", b"x")], &["header: 1"]);
        check(&[long(b'L', "lost"), global, file("header", b"x")], &["header: 1"]);
    }

    #[test]
    fn records_of_sparse_files_mean_something_on_those_alone() {
        let sparse = |records: &[(&str, &str)], data: &[u8]| [pax(records), file("h", data)];
        let name = ("GNU.sparse.name", "own");
        check(&sparse(&[name], b"x"), &["h: 1"]);
        check(&sparse(&[name, ("GNU.sparse.size", "10")], b"x"), &["h: 1"]);
        // Versions that Go does not know.
        for (major, minor) in [("0", "2"), ("1", "1"), ("2", "0"), ("1", ""), ("", "0")] {
            let version = [("GNU.sparse.major", major), ("GNU.sparse.minor", minor)];
            let map = ("GNU.sparse.map", "0,1");
            check(&sparse(&[version[0], version[1], name, map], b"x"), &["h: 1"]);
        }
        let one = [("GNU.sparse.map", "4,1"), ("GNU.sparse.numblocks", "1")];
        let size = |key| [name, (key, "9"), one[0], one[1]];
        check(&sparse(&size("GNU.sparse.size"), b"x"), &["own: 9 [(4, 1)]"]);
        check(&sparse(&size("GNU.sparse.realsize"), b"x"), &["own: 9 [(4, 1)]"]);
        // The runs of version 0.0 are a map too, and win over one.
        let runs = [("GNU.sparse.offset", "5"), ("GNU.sparse.numbytes", "1")];
        let both = [runs[0], runs[1], one[0], one[1], ("GNU.sparse.size", "9")];
        check(&sparse(&both, b"x"), &["h: 9 [(5, 1)]"]);
        // The name of an old directory is told from the one that it has in any case.
        let old = [pax(&[("path", "p"), ("GNU.sparse.name", "own/"), one[0], one[1]])];
        let old = [&old[..], &[member("h", 0, "", b"x")]].concat();
        assert!(read(&old).unwrap_err().to_string().contains("own/"), "one byte, in a file");
        check(&[pax(&[name]), member("h/", 0, "", b"")], &["h/: /"]);
        check(&[pax(&[name]), member("h", b'5', "", b"")], &["h: /"]);
        // In version 1.0, both sizes may stand there.
        let version = [("GNU.sparse.major", "1"), ("GNU.sparse.minor", "0")];
        let sizes = [("GNU.sparse.realsize", "5"), ("GNU.sparse.size", "7")];
        let data = [padded(b"1\n0\n1\n"), b"z".to_vec()].concat();
        check(&sparse(&[version[0], version[1], sizes[0], sizes[1]], &data), &["h: 7 [(0, 1)]"]);
        check(&sparse(&[version[0], version[1], sizes[0], name], &data), &["own: 5 [(0, 1)]"]);
    }

    #[test]
    fn what_go_takes_for_a_damaged_sparse_file_is_an_error() {
        let fails = |records: &[(&str, &str)], kind, words: &str| {
            let error = read(&[pax(records), member("h", kind, "", b"")]).unwrap_err();
            assert!(format!("{error:#}").contains(words), "{error:#}");
        };
        let map = ("GNU.sparse.map", "0,1");
        fails(&[map], b'0', "GNU.sparse.numblocks is missing");
        fails(&[map, ("GNU.sparse.numblocks", "2")], b'0', "GNU.sparse.numblocks is 2");
        fails(&[("GNU.sparse.map", "0,1,")], b'0', "odd");
        fails(&[("GNU.sparse.offset", "1")], b'0', "take turns");
        fails(&[("GNU.sparse.numbytes", "1"), ("GNU.sparse.offset", "1")], b'0', "take turns");
        for kind in *b"123456D" {
            fails(&[map, ("GNU.sparse.numblocks", "1")], kind, "not a file");
            fails(&[("GNU.sparse.major", "1"), ("GNU.sparse.minor", "0")], kind, "not a file");
        }
    }

    #[test]
    fn paths_and_records_are_steps() {
        let fails = |parts: &[Vec<u8>]| {
            let error = read(parts).unwrap_err().to_string();
            assert!(error.contains("--max-steps"), "{error}");
        };
        fails(&[long(b'L', &"d/".repeat(1000)), file("h", b"")]);
        fails(&[pax(&[("a", "b"); 1001]), file("h", b"")]);
        fails(&[pax_of(b'g', &[("a", "b"); 1001]), file("h", b"")]);
        check(&[pax(&[("a", "b"); 900]), file("h", b"")], &["h: 0"]);
    }
}
