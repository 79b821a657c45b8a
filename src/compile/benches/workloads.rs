//! What programs ask of the file system of a machine, timed inside it, on each kind of machine alike.
//!
//! ```text
//! workloads rows LABEL STATES ROOT WRITABLE LIBRARY SUFFIX COMMAND...    a line for each row
//! workloads first-line LABEL COMMAND...                                  a line: when COMMAND printed its first one
//! ```
//!
//! A row is `row LABEL STATE NAME NANOSECONDS COUNT SUM REQUESTS SECTORS`. STATES are letters: `c` is cold, with the kernel's
//! caches dropped before each row, `w` is warm, the second of two runs, `t` writes on a tmpfs. ROOT is where the image is
//! mounted, WRITABLE a new directory, LIBRARY a directory of ROOT with many files of which those that end in SUFFIX are read.
//! Count and sum depend on the image alone, so they tell whether two machines read the same. Static, it needs nothing in the
//! image.

use std::ffi::{CString, OsStr};
use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio, exit};
use std::time::Instant;

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, lstat, openat, statat};

mod tree;

use self::tree::{drop_caches, paths, read_whole, walk};

const USAGE: &str = "workloads rows LABEL STATES ROOT WRITABLE LIBRARY SUFFIX COMMAND... | first-line LABEL COMMAND...";

/// How many paths are opened, looked up and missed: spread evenly over all.
const PATHS: usize = 2000;
/// How many files are picked at random and read whole.
const RANDOM_FILES: usize = 200;
/// How many files are made, renamed and removed.
const NEW_FILES: usize = 1000;
/// How often a written file is synced, and how many of the image's files are written to.
const SYNCS: usize = 50;
const COPIED_UP: usize = 50;
const BLOCK: usize = 4096;

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let done = match *words {
        ["rows", label, states, root, writable, library, suffix, ref command @ ..] => {
            rows(label, states, &Image { root, writable, library, suffix, command })
        }
        ["first-line", label, program, ref words @ ..] => first_line(label, program, words),
        ["within", root, program, ref words @ ..] => within(root, program, words),
        _ => Err(io::Error::other(USAGE)),
    };
    if let Err(e) = done {
        eprintln!("workloads {}: {e}", words.join(" "));
        exit(1);
    }
}

/// What the rows are about.
struct Image<'a> {
    root: &'a str,
    writable: &'a str,
    library: &'a str,
    suffix: &'a str,
    command: &'a [&'a str],
}

/// What a row found, whatever file system it was.
#[derive(Default)]
struct Found {
    count: u64,
    sum: u64,
}

impl Found {
    fn add(&mut self, sum: u64) {
        self.count += 1;
        self.sum = self.sum.wrapping_add(sum);
    }
}

/// The paths that the rows take, found by the first walk.
struct Plan<'a> {
    image: &'a Image<'a>,
    usr: OwnedFd,
    library: OwnedFd,
    /// Below ROOT/usr, in an order that no file system has a say in.
    files: Vec<CString>,
    absent: Vec<CString>,
    /// Those of the library that are read.
    sources: Vec<CString>,
    /// Small ones that a row writes to, each once.
    copied_up: Vec<CString>,
}

fn rows(label: &str, states: &str, image: &Image) -> io::Result<()> {
    let mut caches = File::options().write(true).open("/proc/sys/vm/drop_caches")?;
    let usr = directory(&image.root.join("usr"))?;
    let mut files = Vec::new();
    measure(label, "boot", "first walk", || {
        let mut found = Found::default();
        walk(usr.as_fd(), &mut |_, _, kind, path| {
            found.add(path.len() as u64);
            if kind == FileType::RegularFile {
                files.push(CString::new(path)?);
            }
            Ok(())
        })?;
        Ok(found)
    })?;
    let mut plan = Plan::new(image, usr, files)?;
    for state in states.chars() {
        match state {
            'c' => plan.run(label, "cold", |_, _| drop_caches(&mut caches))?,
            'w' => plan.run(label, "warm", |plan, row| row.run(plan).map(drop))?,
            't' => on_tmpfs(label)?,
            _ => return Err(io::Error::other(USAGE)),
        }
    }
    Ok(())
}

trait Join {
    fn join(self, name: &str) -> PathBuf;
}

impl Join for &str {
    fn join(self, name: &str) -> PathBuf {
        Path::new(self).join(name)
    }
}

fn directory(path: &Path) -> io::Result<OwnedFd> {
    let opened = openat(CWD, path, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
    opened.map_err(|e| io::Error::other(format!("{}: {e}", path.display())))
}

/// Times what is done, with what the disks were asked for meanwhile.
fn measure(
    label: &str,
    state: &str,
    name: &str,
    work: impl FnOnce() -> io::Result<Found>,
) -> io::Result<()> {
    let before = disks()?;
    let start = Instant::now();
    let found = work()?;
    let took = start.elapsed().as_nanos();
    let after = disks()?;
    let (requests, sectors) = (after[0] - before[0], after[1] - before[1]);
    let name = name.replace(' ', "-");
    // All at once: a console may be shared.
    let line = format!(
        "row {label} {state} {name} {took} {} {} {requests} {sectors}\n",
        found.count, found.sum
    );
    io::stdout().write_all(line.as_bytes())
}

/// Requests for reading of all virtio disks together, and their sectors of 512 bytes.
fn disks() -> io::Result<[u64; 2]> {
    let mut sums = [0; 2];
    for disk in fs::read_dir("/sys/block")? {
        let disk = disk?;
        if !disk.file_name().as_bytes().starts_with(b"vd") {
            continue;
        }
        let text = fs::read_to_string(disk.path().join("stat"))?;
        let numbers: Vec<u64> = text.split_whitespace().map_while(|n| n.parse().ok()).collect();
        let [requests, _merged, sectors, ..] = *numbers else {
            return Err(io::Error::other("the disk's statistics are not what Linux says"));
        };
        sums = [sums[0] + requests, sums[1] + sectors];
    }
    Ok(sums)
}

#[derive(Clone, Copy)]
enum Row {
    Scan,
    ReadSources,
    Open,
    Stat,
    Absent,
    Names,
    Random,
    Sequential,
    Command,
    Create,
    Rename,
    Remove,
    Sync,
    CopyUp,
}

const ROWS: [(Row, &str); 14] = [
    (Row::Scan, "scan the library"),
    (Row::ReadSources, "read its sources"),
    (Row::Open, "open and close 2000"),
    (Row::Stat, "stat 2000"),
    (Row::Absent, "2000 absent names"),
    (Row::Names, "list all directories"),
    (Row::Random, "read 200 random files"),
    (Row::Sequential, "read 64 MiB"),
    (Row::Command, "start the runtime"),
    (Row::Create, "create 1000"),
    (Row::Rename, "rename 1000"),
    (Row::Remove, "remove 1000"),
    (Row::Sync, "write and fsync 50"),
    (Row::CopyUp, "copy up 50"),
];

impl Row {
    /// Whether the row finds its files as it left them, so that it can be run twice.
    fn reads(self) -> bool {
        !matches!(self, Self::Create | Self::Rename | Self::Remove | Self::Sync | Self::CopyUp)
    }

    fn run(self, plan: &mut Plan) -> io::Result<Found> {
        let writable = Path::new(plan.image.writable);
        match self {
            Self::Scan => plan.scan(),
            Self::ReadSources => read_all(&plan.library, &plan.sources),
            Self::Open => plan.open(),
            Self::Stat => plan.stat(),
            Self::Absent => plan.miss(),
            Self::Names => plan.names(),
            Self::Random => plan.random(),
            Self::Sequential => {
                let large = plan.image.root.join("bench/large");
                let mut found = Found::default();
                found.add(read_whole(File::open(large)?, &mut vec![0; 128 << 10])?);
                Ok(found)
            }
            Self::Command => plan.command(),
            Self::Create => create(writable),
            Self::Rename => rename(writable),
            Self::Remove => remove(writable),
            Self::Sync => sync(&writable.with_extension("synced")),
            Self::CopyUp => plan.copy_up(),
        }
    }
}

impl<'a> Plan<'a> {
    fn new(image: &'a Image, usr: OwnedFd, mut files: Vec<CString>) -> io::Result<Self> {
        files.sort();
        let library = directory(&image.root.join(image.library))?;
        let mut sources = paths(&library, FileType::RegularFile)?;
        sources.retain(|path| path.to_bytes().ends_with(image.suffix.as_bytes()));
        let directories = paths(&usr, FileType::Directory)?;
        let absent = spread(&directories).enumerate().map(|(n, directory)| {
            let mut path = directory.to_bytes().to_vec();
            path.extend_from_slice(format!("/absent-{n}").as_bytes());
            CString::new(path)
        });
        let absent = absent.collect::<Result<_, _>>()?;
        let mut copied_up = Vec::new();
        for path in files.iter().filter(|path| path.to_bytes().starts_with(b"share/")) {
            let size = statat(&usr, path, AtFlags::SYMLINK_NOFOLLOW)?.st_size;
            if (1..1 << 20).contains(&size) && copied_up.len() < 3 * COPIED_UP {
                copied_up.push(path.clone());
            }
        }
        if files.is_empty() || sources.is_empty() || copied_up.len() < 3 * COPIED_UP {
            return Err(io::Error::other("the image has too few files for these rows"));
        }
        Ok(Self { image, usr, library, files, absent, sources, copied_up })
    }

    /// Runs each row, prepared by `before`.
    fn run(
        &mut self,
        label: &str,
        state: &str,
        mut before: impl FnMut(&mut Self, Row) -> io::Result<()>,
    ) -> io::Result<()> {
        for (row, name) in ROWS {
            if row.reads() || state == "cold" {
                before(self, row)?;
            }
            measure(label, state, name, || row.run(self))?;
        }
        Ok(())
    }

    /// Looks at each name of the library, as a program that watches its files.
    fn scan(&self) -> io::Result<Found> {
        let mut found = Found::default();
        walk(self.library.as_fd(), &mut |dir, name, kind, _| {
            let stat = statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)?;
            // The size of a directory is the file system's own matter.
            found.add(if kind == FileType::Directory { 0 } else { stat.st_size as u64 });
            Ok(())
        })?;
        Ok(found)
    }

    fn open(&self) -> io::Result<Found> {
        let mut found = Found::default();
        for path in spread(&self.files) {
            tree::open(self.usr.as_fd(), path)?;
            found.add(0);
        }
        Ok(found)
    }

    fn stat(&self) -> io::Result<Found> {
        let mut found = Found::default();
        for path in spread(&self.files) {
            found.add(statat(&self.usr, path, AtFlags::SYMLINK_NOFOLLOW)?.st_size as u64);
        }
        Ok(found)
    }

    fn miss(&self) -> io::Result<Found> {
        let mut found = Found::default();
        for path in &self.absent {
            match statat(&self.usr, path, AtFlags::SYMLINK_NOFOLLOW) {
                Err(rustix::io::Errno::NOENT) => found.add(0),
                Err(e) => return Err(e.into()),
                Ok(_) => return Err(io::Error::other("an absent name is there")),
            }
        }
        Ok(found)
    }

    fn names(&self) -> io::Result<Found> {
        let mut found = Found::default();
        walk(self.usr.as_fd(), &mut |_, name, _, _| {
            found.add(name.to_bytes().len() as u64);
            Ok(())
        })?;
        Ok(found)
    }

    fn random(&self) -> io::Result<Found> {
        let mut state = 20u64;
        let picks = (0..RANDOM_FILES).map(|_| {
            // A linear congruential generator with Knuth's factor; the low bits are poor.
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            &self.files[((state >> 33) % self.files.len() as u64) as usize]
        });
        read_all(&self.usr, picks)
    }

    fn command(&self) -> io::Result<Found> {
        let [program, words @ ..] = self.image.command else {
            return Err(io::Error::other(USAGE));
        };
        let mut command = if self.image.root == "/" {
            Command::new(program)
        } else {
            let mut command = Command::new("/proc/self/exe");
            command.args(["within", self.image.root, program]);
            command
        };
        command.args(words).stdin(Stdio::inherit()).stderr(Stdio::inherit());
        let output = command.output()?;
        if !output.status.success() {
            return Err(io::Error::other(format!("{program}: {}", output.status)));
        }
        let mut found = Found::default();
        found.add(tree::sum_of(&output.stdout));
        Ok(found)
    }

    /// Appends to files of the image, which an overlay copies for that.
    fn copy_up(&mut self) -> io::Result<Found> {
        let mut found = Found::default();
        for path in self.copied_up.drain(..COPIED_UP) {
            let path = self.image.root.join("usr").join(OsStr::from_bytes(path.to_bytes()));
            File::options().append(true).open(&path)?.write_all(b"\n")?;
            found.add(lstat(&path)?.st_size as u64);
        }
        Ok(found)
    }
}

/// As many of `paths` as a row takes, evenly spread; some of them more than once where there are fewer.
fn spread(paths: &[CString]) -> impl Iterator<Item = &CString> {
    (0..PATHS).map(|n| &paths[n * paths.len() / PATHS])
}

fn read_all<'p>(root: &OwnedFd, paths: impl IntoIterator<Item = &'p CString>) -> io::Result<Found> {
    let (mut found, mut buffer) = (Found::default(), vec![0; 128 << 10]);
    for path in paths {
        let file = File::from(tree::open(root.as_fd(), path)?);
        found.add(read_whole(file, &mut buffer)?);
    }
    Ok(found)
}

fn create(writable: &Path) -> io::Result<Found> {
    fs::create_dir(writable)?;
    each_new(|n| {
        let mut file = File::create_new(writable.join(format!("a{n:04}")))?;
        file.write_all(&[b'x'; BLOCK])
    })
}

fn rename(writable: &Path) -> io::Result<Found> {
    each_new(|n| fs::rename(writable.join(format!("a{n:04}")), writable.join(format!("b{n:04}"))))
}

fn remove(writable: &Path) -> io::Result<Found> {
    let found = each_new(|n| fs::remove_file(writable.join(format!("b{n:04}"))))?;
    fs::remove_dir(writable)?;
    Ok(found)
}

fn each_new(mut what: impl FnMut(usize) -> io::Result<()>) -> io::Result<Found> {
    let mut found = Found::default();
    for n in 0..NEW_FILES {
        what(n)?;
        found.add(0);
    }
    Ok(found)
}

fn sync(path: &Path) -> io::Result<Found> {
    let (mut file, mut found) = (File::create(path)?, Found::default());
    for _ in 0..SYNCS {
        file.write_all(&[b'y'; BLOCK])?;
        file.sync_all()?;
        found.add(0);
    }
    fs::remove_file(path)?;
    Ok(found)
}

/// The same writes where no disk is below. They are rows of their own, and no file system's merit.
fn on_tmpfs(label: &str) -> io::Result<()> {
    let writable = Path::new("/dev/shm/bench");
    for (row, name) in
        [(create as fn(&_) -> _, "create 1000"), (rename, "rename 1000"), (remove, "remove 1000")]
    {
        measure(label, "tmpfs", name, || row(writable))?;
    }
    Ok(())
}

/// Becomes a program of the image that is mounted at `root`.
fn within(root: &str, program: &str, words: &[&str]) -> io::Result<()> {
    std::os::unix::fs::chroot(root)?;
    std::env::set_current_dir("/")?;
    Err(Command::new(program).args(words).exec())
}

/// Runs a command to its end, and tells when its first byte came.
fn first_line(label: &str, program: &str, words: &[&str]) -> io::Result<()> {
    let start = Instant::now();
    let mut command = Command::new(program);
    let mut child = command.args(words).stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
    let mut output = child.stdout.take().expect("the output is a pipe");
    let mut first = [0];
    output.read_exact(&mut first)?;
    let came = start.elapsed().as_nanos();
    io::copy(&mut output, &mut io::sink())?;
    let status = child.wait()?;
    let took = start.elapsed().as_nanos();
    if !status.success() {
        return Err(io::Error::other(format!("{program}: {status}")));
    }
    println!("first-line {label} {came} {took}");
    Ok(())
}
