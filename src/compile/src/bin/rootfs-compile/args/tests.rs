//! What `--help` of both programs says.

use clap::{Command, CommandFactory as _};

use super::Cli;

/// Columns of a terminal.
const WIDTH: usize = 100;
/// Options that are a list one can read without headings.
const MOST_WITHOUT_HEADING: usize = 10;

fn both() -> [Command; 2] {
    [Cli::command(), rootfs_boot::args::Cli::command()].map(|mut command| {
        command.build();
        command
    })
}

/// Calls `see` with each command of both programs, but for `help` itself.
fn each(see: &mut impl FnMut(&Command)) {
    fn walk(command: &Command, see: &mut impl FnMut(&Command)) {
        see(command);
        for subcommand in command.get_subcommands().filter(|one| one.get_name() != "help") {
            walk(subcommand, see);
        }
    }
    both().iter().for_each(|command| walk(command, see));
}

/// The words of a line of shell: quotes are ', and what is redirected is left out.
fn words(line: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    for (i, part) in line.split('\'').enumerate() {
        let mut pieces = part.split(' ').peekable();
        let is_quoted = i % 2 == 1;
        while let Some(piece) = pieces.next() {
            let last = words.last_mut().unwrap();
            last.push_str(piece);
            match pieces.peek() {
                Some(_) if is_quoted => last.push(' '),
                Some(_) => words.push(String::new()),
                None => {}
            }
        }
    }
    words.into_iter().take_while(|word| word != ">").collect()
}

#[test]
fn each_command_has_examples_that_it_understands() {
    each(&mut |command| {
        let name = command.get_bin_name().unwrap_or_else(|| command.get_name());
        let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
        let (heading, rest) = help.split_once('\n').unwrap_or_default();
        assert_eq!(heading, "Examples:", "{name}");
        let mut of_itself = 0;
        for example in rest.lines().filter_map(|line| line.strip_prefix("  ")) {
            let all = words(example);
            let words = all.iter().skip_while(|word| word.contains('=')).collect::<Vec<_>>();
            let [mut compile, mut boot] = both();
            let program = if *words[0] == "rootfs-boot" { &mut boot } else { &mut compile };
            let parsed = program.try_get_matches_from_mut(words);
            parsed.unwrap_or_else(|error| panic!("{example}: {error}"));
            of_itself += usize::from(all.join(" ").contains(name));
        }
        assert!(of_itself > 0, "{name}: no example of its own");
    });
}

#[test]
fn help_fits_a_terminal_and_long_lists_of_options_have_headings() {
    each(&mut |command| {
        let mut command = command.clone().term_width(WIDTH);
        let help = [command.render_help(), command.render_long_help()].map(|help| help.to_string());
        for line in help.iter().flat_map(|help| help.lines()) {
            assert!(line.chars().count() <= WIDTH, "{}: {line}", command.get_name());
        }
        let options = command.get_opts().filter(|option| option.get_help_heading().is_none());
        assert!(options.count() <= MOST_WITHOUT_HEADING, "{}", command.get_name());
    });
}

#[test]
fn each_command_and_each_option_says_what_it_is_for() {
    each(&mut |command| {
        let name = command.get_bin_name().unwrap_or_else(|| command.get_name());
        let about = command.get_about().map(ToString::to_string).unwrap_or_default();
        assert!(about.len() > 20 && !about.ends_with('.'), "{name}: {about}");
        for argument in command.get_arguments() {
            let help = argument.get_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.len() > 8, "{name} {}: {help:?}", argument.get_id());
        }
    });
}
