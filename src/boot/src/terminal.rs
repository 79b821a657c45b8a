//! The terminal this program was started from, if it was.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, IsTerminal as _};
use std::os::fd::{BorrowedFd, OwnedFd};

use anyhow::Result;
use rustix::termios::{OptionalActions, Termios};

use super::wire::stdio;
use crate::system::fd_path;

/// Which of the three standard streams are a terminal.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Terminal {
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
}

impl Terminal {
    pub(crate) fn now() -> Self {
        Self {
            stdin: std::io::stdin().is_terminal(),
            stdout: std::io::stdout().is_terminal(),
            stderr: std::io::stderr().is_terminal(),
        }
    }

    pub(crate) fn any(self) -> bool {
        self.stdin || self.stdout || self.stderr
    }

    /// As the guest's init reads it: `t` or `p` for each stream.
    pub(crate) fn kinds(self) -> String {
        let kind = |is_terminal| if is_terminal { stdio::TERMINAL } else { stdio::PIPE };
        [self.stdin, self.stdout, self.stderr].map(kind).iter().collect()
    }

    /// What kind of terminal the host says it is.
    pub(crate) fn name(self) -> Option<OsString> {
        self.any().then(|| std::env::var_os("TERM").unwrap_or_else(|| "xterm".into()))
    }

    /// Rows and columns.
    pub(crate) fn size(self) -> Option<(u16, u16)> {
        let size = rustix::termios::tcgetwinsize(self.stream()?).ok()?;
        Some((size.ws_row, size.ws_col))
    }

    /// One of the streams that is the terminal.
    fn stream(self) -> Option<BorrowedFd<'static>> {
        use rustix::stdio;
        if self.stdin {
            Some(stdio::stdin())
        } else if self.stdout {
            Some(stdio::stdout())
        } else if self.stderr {
            Some(stdio::stderr())
        } else {
            None
        }
    }

    /// Where what the guest writes to its terminal goes, if it has one.
    pub(crate) fn output(self) -> io::Result<Option<OwnedFd>> {
        use rustix::stdio;
        let output = match (self.stdout, self.stderr, self.stdin) {
            (true, ..) => stdio::stdout().try_clone_to_owned()?,
            (_, true, _) => stdio::stderr().try_clone_to_owned()?,
            // Standard input may be open for reading alone.
            (.., true) => File::options().write(true).open(fd_path(0))?.into(),
            _ => return Ok(None),
        };
        Ok(Some(output))
    }
}

/// Keys go to the guest as they are typed, until this is dropped.
pub(crate) struct Raw {
    before: Termios,
}

impl Raw {
    /// Makes the terminal raw; does nothing where standard input is not one.
    pub(crate) fn enter(terminal: Terminal) -> Result<Option<Self>> {
        if !terminal.stdin {
            return Ok(None);
        }
        let stdin = rustix::stdio::stdin();
        let before = rustix::termios::tcgetattr(stdin)?;
        let mut raw = before.clone();
        raw.make_raw();
        rustix::termios::tcsetattr(stdin, OptionalActions::Now, &raw)?;
        Ok(Some(Self { before }))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // A terminal that is gone needs nothing restored.
        let _ =
            rustix::termios::tcsetattr(rustix::stdio::stdin(), OptionalActions::Now, &self.before);
    }
}
