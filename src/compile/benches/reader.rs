//! Reads a mounted file system in one way, and says how long that took and what the disk below was asked for.
//!
//! ```text
//! reader cold|warm ACTION DIR [WORD...]    prints: nanoseconds, things counted, a sum over what was read, requests, sectors
//! reader                                   as PID 1: does what /plan says, and resets the machine
//! ```
//!
//! `cold` is with the kernel's caches dropped, `warm` is the second of two runs. Counts and sums depend on the tree alone, so that
//! they tell whether two file systems gave the same. Static, it needs nothing in the guest.

use std::ffi::CString;
use std::fs::File;
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt as _;
use std::process::{Command, Stdio, exit};
use std::time::{Instant, SystemTime};

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, openat, statat};
use rustix::mount::{MountFlags, mount};
use rustix::system::{RebootCommand, reboot};

mod tree;

use self::tree::{drop_caches, open, paths, read_whole, sum_of, walk};

const USAGE: &str = "reader cold|warm walk|read|random|open|absent|list|exec DIR [WORD...]";

/// How many blocks `random` reads.
const RANDOM_READS: usize = 4096;
const BLOCK: u64 = 4096;
/// How many absent names `absent` looks up, spread over all directories.
const ABSENT_NAMES: usize = 20_000;

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if words.is_empty() && std::process::id() == 1 {
        guest();
    }
    match measure(&words) {
        Ok(line) => println!("{line}"),
        Err(e) => {
            eprintln!("reader {}: {e}", words.join(" "));
            exit(1);
        }
    }
}

/// What an action found, whatever file system it was.
#[derive(Clone, Copy, Default, PartialEq)]
struct Found {
    count: u64,
    sum: u64,
}

fn measure(words: &[String]) -> io::Result<String> {
    let [state, action, dir, rest @ ..] = words else {
        return Err(io::Error::other(USAGE));
    };
    let mut disk = Disk::below(dir)?;
    let mut action = Action::prepare(action, dir, rest)?;
    match state.as_str() {
        "cold" => drop_caches(&mut disk.caches)?,
        "warm" => drop(action.run()?),
        _ => return Err(io::Error::other(USAGE)),
    }
    let before = disk.reads()?;
    let start = Instant::now();
    let found = action.run()?;
    let took = start.elapsed().as_nanos();
    let after = disk.reads()?;
    let (requests, sectors) = (after[0] - before[0], after[1] - before[1]);
    Ok(format!("{took} {} {} {requests} {sectors}", found.count, found.sum))
}

/// The disk under a directory, with what must be opened before a chroot hides it. An overlay
/// has none of its own, and no statistics.
struct Disk {
    statistics: Option<File>,
    caches: File,
}

impl Disk {
    fn below(dir: &str) -> io::Result<Self> {
        let device = rustix::fs::stat(dir)?.st_dev;
        let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
        Ok(Self {
            statistics: match File::open(format!("/sys/dev/block/{major}:{minor}/stat")) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => None,
                opened => Some(opened?),
            },
            caches: File::options().write(true).open("/proc/sys/vm/drop_caches")?,
        })
    }

    /// Requests for reading, and their sectors of 512 bytes.
    fn reads(&mut self) -> io::Result<[u64; 2]> {
        let mut text = String::new();
        let Some(statistics) = &mut self.statistics else {
            return Ok([0; 2]);
        };
        statistics.rewind()?;
        statistics.read_to_string(&mut text)?;
        let mut numbers = text.split_whitespace().map_while(|n| n.parse().ok());
        let [Some(requests), Some(_merged), Some(sectors)] =
            std::array::from_fn(|_| numbers.next())
        else {
            return Err(io::Error::other(
                "the disk's statistics are not what Linux says of a disk",
            ));
        };
        Ok([requests, sectors])
    }
}

/// What is done, with what had to be known beforehand.
enum Action {
    /// Every name of every directory, and `stat` of each.
    Walk(OwnedFd),
    /// A walk that reads every file instead.
    Read(OwnedFd),
    /// Blocks here and there: file and offset.
    Random(OwnedFd, Vec<(CString, u64)>),
    /// Every file opened by its path and closed.
    Open(OwnedFd, Vec<CString>),
    /// Names that are in none of the directories, and never the same again, because the kernel would remember.
    Absent { root: OwnedFd, dirs: Vec<CString>, fresh: u128 },
    /// The names of one directory.
    List(OwnedFd),
    /// A program of the tree, with the tree as its root.
    Exec(Vec<String>),
}

impl Action {
    fn prepare(action: &str, dir: &str, words: &[String]) -> io::Result<Self> {
        let root = openat(CWD, dir, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        Ok(match action {
            "walk" => Self::Walk(root),
            "read" => Self::Read(root),
            "random" => {
                let files = paths(&root, FileType::RegularFile)?;
                let picks = random_blocks(&root, &files)?;
                Self::Random(root, picks)
            }
            "open" => {
                let files = paths(&root, FileType::RegularFile)?;
                Self::Open(root, files)
            }
            "absent" => {
                let mut dirs = paths(&root, FileType::Directory)?;
                dirs.push(c".".to_owned());
                let now = SystemTime::UNIX_EPOCH.elapsed().map_err(io::Error::other)?;
                Self::Absent { root, dirs, fresh: now.as_nanos() }
            }
            "list" => Self::List(root),
            "exec" => {
                rustix::process::chroot(dir)?;
                rustix::process::chdir("/")?;
                Self::Exec(words.to_vec())
            }
            _ => return Err(io::Error::other(USAGE)),
        })
    }

    fn run(&mut self) -> io::Result<Found> {
        let mut found = Found::default();
        let mut add = |sum: u64| {
            found.count += 1;
            found.sum = found.sum.wrapping_add(sum);
        };
        match self {
            Self::Walk(root) => walk(root.as_fd(), &mut |dir, name, kind, _| {
                let stat = statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)?;
                // The size of a directory is the file system's own matter.
                add(if kind == FileType::Directory { 0 } else { stat.st_size as u64 });
                Ok(())
            })?,
            Self::Read(root) => {
                let mut buffer = vec![0; 128 << 10];
                walk(root.as_fd(), &mut |dir, name, kind, _| {
                    if kind == FileType::RegularFile {
                        add(read_whole(File::from(open(dir, name)?), &mut buffer)?);
                    }
                    Ok(())
                })?;
            }
            Self::Random(root, picks) => {
                let mut block = [0; BLOCK as usize];
                for (path, offset) in picks {
                    let file = File::from(open(root.as_fd(), path)?);
                    let read = file.read_at(&mut block, *offset)?;
                    add(sum_of(&block[..read]));
                }
            }
            Self::Open(root, files) => {
                for path in files {
                    open(root.as_fd(), path)?;
                    add(0);
                }
            }
            Self::Absent { root, dirs, fresh } => {
                let per_dir = ABSENT_NAMES.div_ceil(dirs.len());
                for dir in dirs {
                    let dir = open(root.as_fd(), dir)?;
                    for _ in 0..per_dir {
                        *fresh += 1;
                        // A first letter from all over the alphabet, for those who search by halves.
                        let letter = b'a' + (*fresh % 26) as u8;
                        let name = format!("{}-{fresh}", char::from(letter));
                        match statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW) {
                            Err(rustix::io::Errno::NOENT) => add(0),
                            Err(e) => return Err(e.into()),
                            Ok(_) => return Err(io::Error::other("an absent name is there")),
                        }
                    }
                }
            }
            Self::List(root) => {
                for entry in Dir::read_from(&*root)? {
                    add(sum_of(entry?.file_name().to_bytes()));
                }
            }
            Self::Exec(words) => {
                let [program, arguments @ ..] = &**words else {
                    return Err(io::Error::other(USAGE));
                };
                let mut command = Command::new(program);
                command.args(arguments).env_clear().env("PATH", "/usr/local/bin:/usr/bin:/bin");
                // Not /dev/null: there may be no /dev.
                let output = command.stdin(Stdio::inherit()).stderr(Stdio::inherit()).output()?;
                if !output.status.success() {
                    return Err(io::Error::other(format!("{program}: {}", output.status)));
                }
                add(sum_of(&output.stdout));
            }
        }
        Ok(found)
    }
}

/// Blocks of files that are picked without regard to their size, so that many are opened.
fn random_blocks(root: &OwnedFd, files: &[CString]) -> io::Result<Vec<(CString, u64)>> {
    let mut state = 20u64;
    // A linear congruential generator with Knuth's factor; the low bits are poor.
    let mut random = |below: u64| {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 33) % below.max(1)
    };
    let mut picks = Vec::with_capacity(RANDOM_READS);
    for _ in 0..RANDOM_READS.min(files.len() * 4) {
        let path = &files[random(files.len() as u64) as usize];
        let size = statat(root, path, AtFlags::SYMLINK_NOFOLLOW)?.st_size as u64;
        picks.push((path.clone(), random(size.div_ceil(BLOCK)) * BLOCK));
    }
    Ok(picks)
}

/// Does what /plan says, a line at a time: `mount TYPE DISK DIR`, or `do LABEL WORD...`, which runs this program with the words and
/// prints its line behind the label. Words are parted by tabs.
fn guest() -> ! {
    if let Err(e) = follow_plan() {
        println!("failed {e}");
    }
    // The machine ends with this; what is printed must be out.
    let _ = io::stdout().flush();
    let _ = reboot(RebootCommand::Restart);
    exit(1);
}

fn follow_plan() -> io::Result<()> {
    for (kind, at) in [("proc", "/proc"), ("sysfs", "/sys"), ("devtmpfs", "/dev")] {
        match mount(kind, at, kind, MountFlags::empty(), None) {
            Err(rustix::io::Errno::BUSY) | Ok(()) => {}
            Err(e) => return Err(io::Error::other(format!("mounting {at}: {e}"))),
        }
    }
    for line in std::fs::read_to_string("/plan")?.lines() {
        let words: Vec<&str> = line.split('\t').collect();
        match *words {
            ["mount", kind, disk, dir] => mount(disk, dir, kind, MountFlags::RDONLY, None)
                .map_err(|e| io::Error::other(format!("mounting {disk}: {e}")))?,
            ["do", label, ref words @ ..] => {
                let output = Command::new("/proc/self/exe").args(words).output()?;
                let (said, wrong) = (output.stdout, output.stderr);
                if !output.status.success() {
                    return Err(io::Error::other(String::from_utf8_lossy(&wrong).into_owned()));
                }
                print!("{label}\t{}", String::from_utf8_lossy(&said));
            }
            _ => return Err(io::Error::other(format!("no such line: {line}"))),
        }
    }
    println!("done");
    Ok(())
}
