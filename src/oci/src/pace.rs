//! A limit on how slowly a server may send.
//!
//! A server that sends a byte now and then never runs into a timeout, and could hold a build
//! for as long as it likes. Only the time during which this program waited counts: on a busy
//! machine, or while a disk is slow, it is the server that waits.

use std::time::Duration;

/// The time of waiting after which the rate is judged.
pub(crate) const WINDOW: Duration = Duration::from_secs(120);

/// The least bytes a second, by default: a tenth of what a modem brings.
pub(crate) const LEAST: u64 = 1024;

/// The bytes that came since the rate was last judged, and how long they were waited for.
#[derive(Debug)]
pub(crate) struct Pace {
    /// Bytes for each second; any number is enough if it is 0.
    least: u64,
    waited: Duration,
    came: u64,
}

/// Too little came for too long.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "only {came} bytes came in {seconds} s of waiting, fewer than {least} a second (--min-rate \
     allows less)"
)]
pub(crate) struct TooSlow {
    came: u64,
    seconds: u64,
    least: u64,
}

impl Pace {
    /// A pace that refuses less than `least` bytes a second.
    pub(crate) fn new(least: u64) -> Self {
        Self { least, waited: Duration::ZERO, came: 0 }
    }

    /// Counts `bytes` that came after `waited`.
    ///
    /// # Errors
    /// When a [`WINDOW`] of waiting is over in which fewer bytes came than they must.
    pub(crate) fn came(&mut self, bytes: u64, waited: Duration) -> Result<(), TooSlow> {
        self.waited += waited;
        self.came = self.came.saturating_add(bytes);
        if self.waited < WINDOW {
            return Ok(());
        }
        let (least, came, seconds) = (self.least, self.came, self.waited.as_secs());
        *self = Self::new(least);
        match came >= least.saturating_mul(seconds) {
            true => Ok(()),
            false => Err(TooSlow { came, seconds, least }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drip_is_given_up_and_whatever_brings_enough_is_not() {
        let run = |least, bytes, pause| {
            let mut pace = Pace::new(least);
            (0..1000).position(|_| pace.came(bytes, Duration::from_secs(pause)).is_err())
        };
        assert_eq!(run(1024, 1, 2), Some(59));
        assert_eq!(run(1024, 1023, 1), Some(119));
        assert_eq!(run(1024, 1024, 1), None);
        // A whole window may pass in silence, if much came before or comes then.
        assert_eq!(run(1024, 1 << 20, 119), None);
        assert_eq!(run(0, 0, 60), None);
        // Nobody was waited for.
        assert_eq!(run(1024, 1, 0), None);
        let error = Pace::new(1024).came(1, WINDOW).unwrap_err().to_string();
        assert!(error.contains("--min-rate"), "{error}");
    }
}
