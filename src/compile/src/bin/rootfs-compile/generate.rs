//! `generate`: man pages and completions of both programs, for packages.

use std::fs;
use std::io::Write as _;
use std::path::Path;

use anyhow::{Context as _, Result};
use clap::builder::{Resettable, StyledStr};
use clap::{Command, CommandFactory as _};
use clap_complete::{Shell, generate as complete};
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};

use crate::args::{Cli, Generate};

/// Writes below `PREFIX/share`, where man and the shells look.
pub(crate) fn generate(args: &Generate) -> Result<u8> {
    let share = args.prefix.join("share");
    for command in [Cli::command(), rootfs_boot::args::Cli::command()] {
        let mut command = shown(&command);
        command.build();
        pages(&command, &share.join("man/man1"))?;
        let name = command.get_name().to_owned();
        for (shell, place) in [
            (Shell::Bash, format!("bash-completion/completions/{name}")),
            (Shell::Zsh, format!("zsh/site-functions/_{name}")),
            (Shell::Fish, format!("fish/vendor_completions.d/{name}.fish")),
        ] {
            let mut text = Vec::new();
            complete(shell, &mut command, &*name, &mut text);
            // For bash, clap_complete 4.6 turns the - of a program's name into one thing where it
            // enters a subcommand and into another where it is in one, so that nothing matches.
            let text = String::from_utf8(text)?;
            let text = text.replace(&name.replace('-', "__subcmd__"), &name.replace('-', "__"));
            write(&share.join(place), text.as_bytes())?;
        }
    }
    Ok(0)
}

/// A copy of `command` without what is hidden, which completions would offer.
fn shown(command: &Command) -> Command {
    // clap takes names that live as long as the program, which does nothing else.
    let kept = |name: &str| -> &'static str { name.to_owned().leak() };
    let copy = |text: Option<&StyledStr>| Resettable::from(text.cloned());
    let arguments = command.get_arguments().filter(|argument| !argument.is_hide_set());
    let subcommands = command.get_subcommands().filter(|subcommand| !subcommand.is_hide_set());
    Command::new(kept(command.get_name()))
        .version(command.get_version().map(kept))
        .about(copy(command.get_about()))
        .long_about(copy(command.get_long_about()))
        .after_help(copy(command.get_after_help()))
        .override_usage(copy(command.get_overridden_usage()))
        .visible_aliases(command.get_visible_aliases().map(kept))
        .subcommand_required(command.is_subcommand_required_set())
        .disable_help_subcommand(true)
        .args(arguments)
        .subcommands(subcommands.map(shown))
}

fn write(path: &Path, text: &[u8]) -> Result<()> {
    let write = || {
        fs::create_dir_all(path.parent().unwrap_or(path))?;
        fs::write(path, text)
    };
    write().with_context(|| path.display().to_string())
}

/// A page for `command` and for each of its subcommands.
fn pages(command: &Command, dir: &Path) -> Result<()> {
    for subcommand in command.get_subcommands() {
        pages(subcommand, dir)?;
    }
    let man = Man::new(command.clone());
    write(&dir.join(man.get_filename()), &page(command, &man)?)
}

fn page(command: &Command, man: &Man) -> Result<Vec<u8>> {
    let mut page = Vec::new();
    // The page has no date, which the man macros want as an empty word.
    let (name, version) = (own_name(command), env!("CARGO_PKG_VERSION"));
    writeln!(page, r#".TH {name} 1 "" "rootfs-compile {version}""#)?;
    man.render_name_section(&mut page)?;
    // As --help has it: some commands have too many options to list them twice.
    let usage = command.clone().render_usage().to_string();
    let usage = usage.trim_start_matches("Usage:").trim().to_owned();
    let mut synopsis = Roff::new();
    synopsis.control("SH", ["SYNOPSIS"]).text([roman(usage)]);
    synopsis.to_writer(&mut page)?;
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    if command.has_subcommands() {
        man.render_subcommands_section(&mut page)?;
    }
    let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
    end_of_page(command, &help).to_writer(&mut page)?;
    Ok(page)
}

fn own_name(command: &Command) -> &str {
    command.get_display_name().unwrap_or_else(|| command.get_name())
}

/// The examples, which stand behind the help, and the other program's page.
fn end_of_page(command: &Command, help: &str) -> Roff {
    let mut roff = Roff::new();
    roff.control("SH", ["EXAMPLES"]);
    for (i, line) in help.lines().skip(1).filter(|line| !line.is_empty()).enumerate() {
        if i > 0 {
            roff.control("PP", []);
        }
        match line.strip_prefix("  ") {
            Some(example) => roff.control("EX", []).text([roman(example)]).control("EE", []),
            None => roff.text([roman(line)]),
        };
    }
    roff.control("SH", ["SEE ALSO"]);
    let others = ["rootfs-boot", "rootfs-compile"].into_iter();
    let others = others.filter(|name| *name != own_name(command));
    let mut names = Vec::new();
    for name in others {
        names.extend([roman(if names.is_empty() { "" } else { ", " }), bold(name), roman("(1)")]);
    }
    roff.text(names);
    roff
}
