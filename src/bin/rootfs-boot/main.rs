//! The command line: arguments, exit codes.

use std::process::ExitCode;
use std::time::Instant;

use clap::Parser as _;
use rootfs_compile::boot::args::Cli;
use rootfs_compile::boot::{self, MACHINE_FAILED};

fn main() -> ExitCode {
    let started = Instant::now();
    let mut machine = std::env::args_os().skip(1);
    if machine.next().is_some_and(|first| first == boot::MACHINE_ARGUMENT) {
        let number = machine.next().unwrap_or_default();
        let Err(error) = boot::enter_machine(&number.to_string_lossy());
        return failed(&error);
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
            println!("{:#}", boot::dry_run(&options)?);
            return Ok(0);
        }
        boot::run(&options, started)
    };
    match run() {
        Ok(code) => ExitCode::from(code),
        Err(error) => failed(&error),
    }
}

fn failed(error: &anyhow::Error) -> ExitCode {
    boot::engine::notice(&format!("{error:#}"));
    ExitCode::from(MACHINE_FAILED)
}
