//! What the guest's init says, a line for each thing.
//!
//! An image whose command is root can write there too. So each word counts once, and a
//! line that is not a word is dropped where it is read. What is for the person at the
//! terminal is printed by the thread that reads: a terminal that blocks then holds up the
//! guest (back-pressure), and not the supervisor, which is to end it.

use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::Sender;

use anyhow::Result;
use fsimage::io::threads;

use super::super::wire::{code, word};
use super::event::{Event, Status, Word};
use crate::notice::notice;

/// Bytes of a line of the guest's init; the rest of a longer one counts as another line.
const MAX_LINE: u64 = 1 << 16;
/// Messages of the guest's init that are shown to the person at the terminal.
const MOST_NOTICES: u32 = 100;

/// What was heard so far.
struct Ears {
    /// Whether notes are shown.
    verbose: bool,
    hello: bool,
    runs: bool,
    last: bool,
    notices: u32,
}

impl Ears {
    fn new(verbose: bool) -> Self {
        Self { verbose, hello: false, runs: false, last: false, notices: 0 }
    }

    /// The word in `line`, the first time that it is said; `show` gets what is for a person.
    fn hear(&mut self, line: &str, mut show: impl FnMut(&str)) -> Option<Word> {
        let (first_word, rest) = line.split_once(' ')?;
        let first = |heard: &mut bool| !std::mem::replace(heard, true);
        let micros = || rest.parse().unwrap_or(0);
        match first_word {
            word::HELLO => first(&mut self.hello).then(|| Word::Hello(micros())),
            word::RUN => first(&mut self.runs).then(|| Word::Runs(micros())),
            word::NOTE if !self.verbose => None,
            word::WARN | word::NOTE => {
                match self.notices {
                    ..MOST_NOTICES => show(&failure(rest)),
                    MOST_NOTICES => show("the guest's init says more; the rest is left out"),
                    _ => return None,
                }
                self.notices += 1;
                None
            }
            _ => {
                let status = Status::parse(first_word, rest)?;
                first(&mut self.last).then_some(Word::Last(status))
            }
        }
    }
}

/// Sends what the guest's init says to `events`, and its end.
pub(super) fn forward(control: UnixStream, verbose: bool, events: Sender<Event>) -> Result<()> {
    threads::spawn("control", move || {
        let mut control = BufReader::new(control);
        let mut ears = Ears::new(verbose);
        let mut line = Vec::new();
        loop {
            line.clear();
            match control.by_ref().take(MAX_LINE).read_until(b'\n', &mut line) {
                Ok(0) | Err(_) => {
                    let _ = events.send(Event::ControlEnded);
                    return;
                }
                Ok(_) => {}
            }
            let text = String::from_utf8_lossy(&line);
            let word = ears.hear(text.trim_end_matches('\n'), notice);
            if word.is_some_and(|word| events.send(Event::Said(word)).is_err()) {
                return;
            }
        }
    })?;
    Ok(())
}

impl Status {
    fn parse(first_word: &str, rest: &str) -> Option<Self> {
        let of_signal = match first_word {
            word::ERROR => {
                let (code, rest) = rest.split_once(' ')?;
                let code = code.parse().unwrap_or(code::MACHINE_FAILED);
                return Some(Self::Failed { code, why: failure(rest) });
            }
            word::EXIT => false,
            word::SIGNAL => true,
            _ => return None,
        };
        let mut numbers = rest.split(' ').map_while(|n| n.parse::<u64>().ok());
        let mut next = || numbers.next();
        let (number, micros, sent) = (next()?, next()?, [next()?, next()?, next()?]);
        let code = match u8::try_from(number) {
            Ok(signal) if of_signal => signal.saturating_add(code::SIGNAL),
            Err(_) if of_signal => u8::MAX,
            known => known.unwrap_or(code::MACHINE_FAILED),
        };
        Some(Self::Ended { code, micros, sent })
    }
}

/// `ERRNO WHAT` as a person reads it.
fn failure(text: &str) -> String {
    let (errno, what) = text.split_once(' ').unwrap_or(("0", text));
    match errno.parse().unwrap_or(0) {
        0 => what.to_owned(),
        errno => {
            let error = std::io::Error::from_raw_os_error(errno).to_string();
            // The number means nothing to whoever reads it.
            format!("{what}: {}", error.split(" (os error").next().unwrap_or(&error))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn each_word_counts_once() {
        let mut ears = Ears::new(false);
        let mut hear = |line: &str| ears.hear(line, |_| {});
        assert_eq!(hear("hello 7"), Some(Word::Hello(7)));
        assert_eq!(hear("run 8"), Some(Word::Runs(8)));
        for line in
            ["hello 1", "run 9", "run 9", "", "x", "run", "exit 1", "exit 1 2 3 4", "no 1 2 3 4 5"]
        {
            assert_eq!(hear(line), None, "{line}");
        }
        let last = Status::Ended { code: 137, micros: 5, sent: [1, 2, u64::MAX] };
        assert_eq!(hear("signal 9 5 1 2 18446744073709551615"), Some(Word::Last(last)));
        assert_eq!(hear("exit 0 5 0 0 0"), None);
        for (line, code) in [("exit 255", 255), ("exit 256", 125), ("signal 300", 255)] {
            let ended = Status::Ended { code, micros: 5, sent: [0; 3] };
            let heard = Ears::new(false).hear(&format!("{line} 5 0 0 0"), |_| {});
            assert_eq!(heard, Some(Word::Last(ended)), "{line}");
        }
        let failed = Status::Failed { code: 127, why: "/x: No such file or directory".into() };
        assert_eq!(Ears::new(false).hear("error 127 2 /x", |_| {}), Some(Word::Last(failed)));
    }

    #[test]
    fn a_guest_says_so_much_to_a_person_and_no_more() {
        for (verbose, word, shown) in
            [(false, "warn", 101), (true, "warn", 101), (false, "note", 0), (true, "note", 101)]
        {
            let (mut ears, mut said) = (Ears::new(verbose), Vec::new());
            for _ in 0..1000 {
                assert_eq!(
                    ears.hear(&format!("{word} 2 x"), |text| said.push(text.to_owned())),
                    None
                );
            }
            assert_eq!(said.len(), shown, "{word}");
            assert!(said.first().is_none_or(|text| text == "x: No such file or directory"));
            assert!(said.last().is_none_or(|text| text.ends_with("left out")));
        }
    }

    #[test]
    fn what_a_guest_repeats_is_kept_nowhere() {
        let (events, received) = mpsc::channel();
        let (control, mut guest) = UnixStream::pair().unwrap();
        forward(control, false, events).unwrap();
        let flood = "run 0\nx\nnote 0 \nhello 1\n".repeat(50_000);
        guest.write_all(flood.as_bytes()).unwrap();
        drop(guest);
        let heard: Vec<Event> = received.iter().collect();
        let [Event::Said(Word::Runs(0)), Event::Said(Word::Hello(1)), Event::ControlEnded] =
            &heard[..]
        else {
            panic!("{} events", heard.len());
        };
    }
}
