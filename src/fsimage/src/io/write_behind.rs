//! Write-behind: a thread writes to the disk, past the page cache (O_DIRECT), while more is being
//! made.

use std::fmt;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::FileExt as _;
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, Sender, bounded};

use crate::io::{system, threads};
use crate::units::PAGE_SIZE;

/// Bytes that are written at once: enough to reach the full throughput of a disk.
pub(super) const PART: usize = 1 << 20;

/// Full parts that may wait for the disk. Whoever makes more waits, too (back-pressure).
const PARTS: usize = 2;

/// Fewer bytes than this go through the page cache: a direct write waits for the disk.
const LEAST_DIRECT: usize = 64 << 10;

/// The bytes of a file from a multiple of [`PART`] on, or some of them.
pub(super) struct Part {
    /// Offset in the file of the first byte of `memory`'s pages.
    offset: u64,
    memory: Vec<u8>,
    /// Where the first page begins in `memory`.
    aligned: usize,
    /// What is there, counted from the first page on.
    used: Range<usize>,
    /// Whether the part is read soon, and belongs in the page cache.
    cached: bool,
}

/// Without the bytes.
impl fmt::Debug for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Part").field("offset", &self.offset).finish_non_exhaustive()
    }
}

impl Part {
    /// A part that begins at `offset`.
    pub(super) fn new(offset: u64) -> Self {
        let memory = vec![0; PART + PAGE_SIZE as usize];
        let aligned = memory.as_ptr().align_offset(PAGE_SIZE as usize);
        let mut part = Self { offset: 0, memory, aligned, used: 0..0, cached: false };
        part.start(offset);
        part
    }

    /// Empties it, to begin at `offset`.
    fn start(&mut self, offset: u64) {
        let at = (offset % PART as u64) as usize;
        self.offset = offset - at as u64;
        self.used = at..at;
    }

    /// The bytes that are in it.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.memory[self.aligned..][self.used.clone()]
    }

    /// Offset in the file of its first byte.
    pub(super) fn position(&self) -> u64 {
        self.offset + self.used.start as u64
    }

    /// Offset in the file of the byte behind its last.
    pub(super) fn end(&self) -> u64 {
        self.offset + self.used.end as u64
    }

    /// How much more it takes.
    pub(super) fn room(&self) -> usize {
        PART - self.used.end
    }

    /// Appends `bytes`, for which there is room.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        let start = self.aligned + self.used.end;
        self.memory[start..][..bytes.len()].copy_from_slice(bytes);
        self.used.end += bytes.len();
    }
}

/// Writes a file's parts on a thread of its own, past the page cache if the file system supports
/// O_DIRECT. Data that nobody reads soon would only be copied to the cache, and be written back
/// when the file is synced.
#[derive(Debug)]
pub(super) struct Behind {
    file: File,
    cached: bool,
    thread: Option<Thread>,
}

#[derive(Debug)]
struct Thread {
    parts: Option<Sender<Part>>,
    spent: Receiver<Part>,
    handle: Option<JoinHandle<io::Result<()>>>,
}

impl Behind {
    /// Writes to `file`.
    pub(super) fn new(file: File) -> Self {
        Self { file, cached: false, thread: None }
    }

    /// Lets the page cache keep what comes from now on.
    pub(super) fn cached(&mut self) {
        self.cached = true;
    }

    /// `error`, with the name of the file that was written.
    pub(super) fn named(file: &File, error: io::Error) -> io::Error {
        let link = format!("/proc/self/fd/{}", file.as_raw_fd());
        match std::fs::read_link(link) {
            Ok(path) => {
                io::Error::new(error.kind(), format!("writing {}: {error}", path.display()))
            }
            Err(_) => error,
        }
    }

    /// Has `part` written, and leaves an empty one in its place, from `next` on.
    pub(super) fn write(&mut self, part: &mut Part, next: u64) -> io::Result<()> {
        self.write_part(part, next).map_err(|error| Self::named(&self.file, error))
    }

    fn write_part(&mut self, part: &mut Part, next: u64) -> io::Result<()> {
        let thread = match &mut self.thread {
            Some(thread) => thread,
            // Most files are small.
            None if part.used.len() < PART / 2 => {
                self.file.write_all_at(part.bytes(), part.position())?;
                part.start(next);
                return Ok(());
            }
            none => none.insert(Thread::start(self.file.try_clone()?)?),
        };
        let mut empty = thread.spent.try_recv().unwrap_or_else(|_| Part::new(next));
        empty.start(next);
        let mut full = std::mem::replace(part, empty);
        full.cached = self.cached;
        match thread.parts.as_ref().map(|parts| parts.send(full)) {
            Some(Ok(())) => Ok(()),
            // The thread has ended; its result says why.
            _ => thread.wait(),
        }
    }

    /// Waits until all is written, and returns the file.
    pub(super) fn finish(mut self) -> io::Result<File> {
        if let Some(thread) = &mut self.thread {
            thread.wait().map_err(|error| Self::named(&self.file, error))?;
        }
        Ok(self.file)
    }
}

impl Thread {
    fn start(file: File) -> io::Result<Self> {
        let (parts, due) = bounded::<Part>(PARTS);
        let (done, spent) = bounded(PARTS + 1);
        let run = move || {
            let mut direct = system::past_the_page_cache(&file);
            for part in due {
                write(&file, &mut direct, &part)?;
                let _ = done.try_send(part);
            }
            Ok(())
        };
        let handle = threads::spawn("write-behind", run)?;
        Ok(Self { parts: Some(parts), spent, handle: Some(handle) })
    }

    /// Waits until all that it has is written.
    fn wait(&mut self) -> io::Result<()> {
        self.parts = None;
        let Some(handle) = self.handle.take() else {
            return Err(io::Error::other("an earlier write failed"));
        };
        handle.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

impl Drop for Thread {
    /// Waits for the thread, so that nothing writes to a file that was given up and is about to be
    /// removed.
    fn drop(&mut self) {
        self.parts = None;
        if let Some(handle) = self.handle.take() {
            let _ = handle.join();
        }
    }
}

/// Writes `part`: its whole pages with `direct` (O_DIRECT) while that works, the rest through
/// `file`. No page is written both ways, because the page cache would not see the direct write.
fn write(file: &File, direct: &mut Option<File>, part: &Part) -> io::Result<()> {
    let page = PAGE_SIZE as usize;
    let mut whole = part.used.start.next_multiple_of(page)..part.used.end / page * page;
    if part.cached || whole.len() < LEAST_DIRECT {
        return file.write_all_at(part.bytes(), part.position());
    }
    let pages = &part.memory[part.aligned..];
    let rest = [part.used.start..whole.start, whole.end..part.used.end];
    while let Some(disk) = direct.as_ref().filter(|_| !whole.is_empty()) {
        match disk.write_at(&pages[whole.clone()], part.offset + whole.start as u64) {
            Ok(n) if n > 0 && n.is_multiple_of(page) => whole.start += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // The disk may have larger sectors than a page; and if a limit is reached, the write
            // through the page cache fails with the better error.
            _ => *direct = None,
        }
    }
    for range in rest.into_iter().chain([whole]).filter(|range| !range.is_empty()) {
        file.write_all_at(&pages[range.clone()], part.offset + range.start as u64)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_given_up_is_nobodys() {
        let path = std::env::temp_dir().join(format!("behind-{}-dropped", std::process::id()));
        let mut behind = Behind::new(File::create(&path).unwrap());
        let mut part = Part::new(0);
        for i in 1..20 {
            part.push(&[7; PART]);
            behind.write(&mut part, i * PART as u64).unwrap();
        }
        drop(behind);
        let open = std::fs::read_dir("/proc/self/fd").unwrap();
        let mut open = open.filter_map(|fd| std::fs::read_link(fd.unwrap().path()).ok());
        assert!(!open.any(|open| open == path));
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn parts_come_to_the_file_whichever_way_works() {
        let path = std::env::temp_dir().join(format!("behind-{}", std::process::id()));
        for (start, len) in [(0, PART), (5000, 200_000), (4096, 65_536), (1, PART - 1), (9, 9)] {
            let mut part = Part::new(3 * PART as u64 + start as u64);
            part.push(&vec![7; len]);
            for way in 0..3 {
                let file = File::create(&path).unwrap();
                let mut direct = match way {
                    0 => system::past_the_page_cache(&file),
                    1 => None,
                    // Nothing can be written through this one.
                    _ => Some(File::open(&path).unwrap()),
                };
                write(&file, &mut direct, &part).unwrap();
                let mut expected = vec![0; 3 * PART + start + len];
                expected[3 * PART + start..].fill(7);
                assert!(std::fs::read(&path).unwrap() == expected, "{start} {len} {way}");
            }
        }
        std::fs::remove_file(path).unwrap();
    }
}
