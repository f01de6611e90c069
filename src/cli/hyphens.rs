//! Values that begin with a hyphen: `publish SUBJECT -1e-05`, `sql '-- a comment …'`.
//!
//! The argument parser refuses each of them as an unknown option, unless `--` is before it. If it is told to accept them, it accepts
//! every misspelt option too. So the arguments are parsed strictly first. Only if what was refused cannot be an option, they are parsed
//! again.

use std::ffi::OsString;

use clap::error::{ContextKind, ContextValue, Error, ErrorKind};
use clap::{Command, CommandFactory, FromArgMatches};

/// The arguments that may have such values, each with its command.
const VALUES: [(&str, &str); 2] = [("publish", "payload"), ("sql", "statements")];

/// Parses these arguments, the program's name first.
pub fn parse<C: CommandFactory + FromArgMatches>(arguments: &[OsString]) -> Result<C, Error> {
    let matches = C::command().try_get_matches_from(arguments).or_else(|error| {
        if is_value(&error) { accepting(C::command()).try_get_matches_from(arguments) } else { Err(error) }
    });
    C::from_arg_matches(&matches?).map_err(|error| error.format(&mut C::command()))
}

fn accepting(command: Command) -> Command {
    VALUES.into_iter().fold(command, |command, (name, argument)| {
        command.mut_subcommand(name, |command| command.mut_arg(argument, |argument| argument.allow_hyphen_values(true)))
    })
}

/// Whether the parser refused what cannot be an option: after its hyphens is no letter, or it contains white space. Of `-1e-05` it
/// refused `-1`.
fn is_value(error: &Error) -> bool {
    let Some(ContextValue::String(refused)) = error.get(ContextKind::InvalidArg) else { return false };
    let name = refused.trim_start_matches('-');
    error.kind() == ErrorKind::UnknownArgument
        && (!name.starts_with(|c: char| c.is_alphabetic()) || name.contains(char::is_whitespace))
}
