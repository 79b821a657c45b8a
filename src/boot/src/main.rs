//! The command line: arguments, exit codes.

use std::io::Write as _;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context as _, anyhow};
use clap::Parser as _;
use fsimage::io::{ending, printable, process};
use rootfs_boot::MACHINE_FAILED;
use rootfs_boot::args::Cli;

fn main() -> ExitCode {
    let started = Instant::now();
    let mut machine = std::env::args_os().skip(1);
    if machine.next().is_some_and(|first| first == rootfs_boot::MACHINE_ARGUMENT) {
        let number = machine.next().unwrap_or_default();
        let Err(error) = rootfs_boot::enter_machine(&number.to_string_lossy());
        return ExitCode::from(failed(&error));
    }
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are no errors; what was mistyped must not look like
            // an exit code of the command.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { MACHINE_FAILED } else { 0 });
        }
    };
    let dry_run = cli.dry_run;
    let run = || {
        let options = cli.options()?;
        if dry_run {
            let json = printable::json(&rootfs_boot::dry_run(&options)?)?;
            writeln!(std::io::stdout(), "{json}").context("standard output")?;
            return Ok(0);
        }
        let ran = rootfs_boot::run(&options, started);
        ending::wait_if_ending();
        ran
    };
    let run = || run().unwrap_or_else(|error| failed(&error));
    let ran = process::run("rootfs-boot: ", MACHINE_FAILED, run);
    ExitCode::from(ran.unwrap_or_else(|error| failed(&anyhow!(error))))
}

fn failed(error: &anyhow::Error) -> u8 {
    let text = format!("{error:#}");
    match process::advice(&text) {
        Some(advice) => rootfs_boot::notice(&format!("{text}: {advice}")),
        None => rootfs_boot::notice(&text),
    }
    MACHINE_FAILED
}
