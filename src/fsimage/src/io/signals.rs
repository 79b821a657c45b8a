//! Signals as a thread of this program hears them, one after the other.

use std::io::{self, Read};
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::Duration;

use signal_hook::iterator::backend::{Pending, SignalDelivery};
use signal_hook::iterator::exfiltrator::SignalOnly;

/// The time between two looks for signals while the socket that tells of them fails.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// Signals that are caught, until this is dropped.
#[derive(Debug)]
pub struct Signals {
    delivery: SignalDelivery<UnixStream, SignalOnly>,
    came: Pending<SignalOnly>,
}

impl Signals {
    /// Catches `wanted` from now on. One that is ignored already, as by nohup, stays ignored.
    ///
    /// # Errors
    /// When the signals cannot be caught.
    pub fn catch(wanted: &[i32]) -> io::Result<Self> {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let ignored = ignored(&status);
        let wanted = wanted.iter().filter(|&&signal| ignored >> (signal - 1) & 1 == 0);
        let (read, write) = UnixStream::pair()?;
        let mut delivery = SignalDelivery::with_pipe(read, write, SignalOnly, wanted)?;
        let came = delivery.pending();
        Ok(Self { delivery, came })
    }

    /// Waits for the next signal. What came twice before it was heard counts once.
    pub fn wait(&mut self) -> i32 {
        loop {
            if let Some(signal) = self.came.next() {
                return signal;
            }
            // The crate's own iterator panics on an error here. What the handlers noted is in memory,
            // so it is found without the socket too.
            if self.delivery.get_read_mut().read(&mut [0]).is_err() {
                thread::sleep(LOOK_AGAIN);
            }
            self.came = self.delivery.pending();
        }
    }
}

/// The ignored signals as /proc/PID/status has them, a bit for each from 1 on.
fn ignored(status: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    line.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;

    use signal_hook::consts::{SIGURG, SIGWINCH};
    use signal_hook::low_level::raise;

    use super::*;

    #[test]
    fn ignored_signals_are_read_from_the_status() {
        assert_eq!(ignored("Name:\tx\nSigIgn:\t0000000000001001\nSigCgt:\t1\n"), 0x1001);
        assert_eq!(ignored("Name:\tx\n"), 0);
    }

    #[test]
    fn a_signal_is_heard_though_the_socket_fails() {
        let mut signals = Signals::catch(&[SIGURG, SIGWINCH]).unwrap();
        raise(SIGURG).unwrap();
        assert_eq!(signals.wait(), SIGURG);
        // Reads of a directory fail.
        let directory = OwnedFd::from(std::fs::File::open("/").unwrap());
        *signals.delivery.get_read_mut() = directory.into();
        raise(SIGWINCH).unwrap();
        assert_eq!(signals.wait(), SIGWINCH);
    }
}
