//! Writing to the disk while more is being made.

use std::fs::File;
use std::io;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::{self, JoinHandle};

/// Bytes written between two times that the disk is asked to take them.
const STEP: u64 = 16 << 20;

/// Brings a file's data to the disk while it grows, on a thread of its own, so
/// that little is left to wait for when it must be there.
#[derive(Default)]
pub struct Behind {
    /// Bytes that the disk was asked to take.
    asked: u64,
    thread: Option<(SyncSender<()>, JoinHandle<io::Result<()>>)>,
}

impl Behind {
    /// Hears that `file` has `written` bytes now.
    pub fn written(&mut self, file: &File, written: u64) -> io::Result<()> {
        if written - self.asked < STEP {
            return Ok(());
        }
        self.asked = written;
        let (due, _) = match &mut self.thread {
            Some(thread) => thread,
            none => none.insert(start(file.try_clone()?)?),
        };
        // If the disk is not done with what it was asked for last, it will be
        // asked again soon.
        let _ = due.try_send(());
        Ok(())
    }

    /// Waits for what the disk is at, and says what failed. All of the file's
    /// errors must be heard of here: the system tells each of them once.
    pub fn finish(&mut self) -> io::Result<()> {
        let Some((due, thread)) = self.thread.take() else {
            return Ok(());
        };
        drop(due);
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

fn start(file: File) -> io::Result<(SyncSender<()>, JoinHandle<io::Result<()>>)> {
    let (due, asked) = sync_channel(1);
    let sync = move || asked.iter().try_for_each(|()| file.sync_data());
    Ok((due, thread::Builder::new().name("write-behind".into()).spawn(sync)?))
}
