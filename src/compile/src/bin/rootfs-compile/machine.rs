//! The options of `rootfs-boot` as options of `run`: read by its own rules, so that
//! a mistake is told before anything is compiled, and passed on as they were given.

use std::ffi::OsString;

use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, Args, Command, CommandFactory as _, FromArgMatches};
use rootfs_boot::args::Cli;

/// What `rootfs-boot` is to be told.
pub(crate) struct MachineArgs(pub Vec<OsString>);

/// All options of `rootfs-boot` but those that only `run` itself uses.
fn options() -> Vec<Arg> {
    let command = Cli::command();
    let is_option = |arg: &&Arg| !arg.is_positional() && !arg.is_hide_set();
    command.get_arguments().filter(is_option).cloned().collect()
}

impl Args for MachineArgs {
    fn augment_args(command: Command) -> Command {
        command.args(options())
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for MachineArgs {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut given = Vec::new();
        for arg in options() {
            let (id, Some(long)) = (arg.get_id().as_str(), arg.get_long()) else {
                continue;
            };
            // What is a default, or of the environment, the program finds itself.
            if matches.value_source(id) != Some(ValueSource::CommandLine) {
                continue;
            }
            if !arg.get_action().takes_values() {
                given.push(format!("--{long}").into());
                continue;
            }
            for value in matches.get_raw_occurrences(id).into_iter().flatten().flatten() {
                let mut option = OsString::from(format!("--{long}="));
                option.push(value);
                given.push(option);
            }
        }
        Ok(Self(given))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}
