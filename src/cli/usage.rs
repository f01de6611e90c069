//! Wrong usage that the argument parser finds, as one line: the argument, what is wrong with it, and the way out.

use clap::error::{ContextKind, ContextValue, Error, ErrorKind};
use std::error::Error as _;

use crate::closest::closest;

/// What to say of arguments that cannot be used. `command` is the command line up to the last subcommand: `catchment publish`.
pub fn line(error: &Error, command: &str) -> String {
    let help = |what: &str| format!("{command} --help {what}");
    let described = || help("describes the arguments");
    let given = text(error, ContextKind::InvalidArg).unwrap_or_default();
    let argument = name(given);
    match error.kind() {
        ErrorKind::InvalidValue | ErrorKind::ValueValidation => match text(error, ContextKind::InvalidValue) {
            None | Some("") => format!("{argument} needs a value; {}", described()),
            Some(value) => format!("{argument} {value:?}: {}", expected(error)),
        },
        ErrorKind::UnknownArgument if given.starts_with('-') => {
            let meant = match text(error, ContextKind::SuggestedArg).map(name).filter(|meant| is_like(&argument, meant))
            {
                Some(meant) => format!("did you mean {meant}?"),
                None => help("lists the options"),
            };
            format!("there is no option {argument}; {meant}")
        }
        ErrorKind::UnknownArgument => format!("{given:?} is one argument too many; {}", described()),
        ErrorKind::InvalidSubcommand => {
            let given = text(error, ContextKind::InvalidSubcommand).unwrap_or_default();
            let meant = match &texts(error, ContextKind::SuggestedSubcommand)[..] {
                [] => help("lists the commands"),
                meant => format!("did you mean {}?", or(meant)),
            };
            format!("there is no command {given:?}; {meant}")
        }
        ErrorKind::ArgumentConflict => {
            let others: Vec<String> = texts(error, ContextKind::PriorArg).iter().map(|other| name(other)).collect();
            match &others[..] {
                [other] if *other == argument => format!("{argument} is given twice; give it once"),
                [] => format!("{argument} cannot be combined with the other arguments; {}", described()),
                others => format!("{argument} cannot be combined with {}; leave one of them out", or(others)),
            }
        }
        ErrorKind::MissingRequiredArgument => {
            let missing: Vec<String> = texts(error, ContextKind::InvalidArg).iter().map(|one| name(one)).collect();
            let are = if missing.len() == 1 { "is" } else { "are" };
            format!("{} {are} missing; {}", missing.join(" and "), described())
        }
        ErrorKind::MissingSubcommand | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            format!("no command is given; {}", help("lists the commands"))
        }
        ErrorKind::InvalidUtf8 => format!("an argument is not UTF-8; {}", described()),
        _ => format!("{}; {}", first_paragraph(error), described()),
    }
}

/// Whether an option may be meant by a word. The parser also suggests options that are like it only in its own measure.
fn is_like(word: &str, option: &str) -> bool {
    let (word, option) = (word.trim_start_matches('-'), option.trim_start_matches('-'));
    let is_begun = !word.is_empty() && (option.starts_with(word) || word.starts_with(option));
    is_begun || !closest(word, std::iter::once(option)).is_empty()
}

/// What the argument takes: the possible values, or what its own parser says.
fn expected(error: &Error) -> String {
    let values: Vec<String> = texts(error, ContextKind::ValidValue);
    match (&values[..], error.source()) {
        ([], Some(reason)) => reason.to_string(),
        ([], None) => first_paragraph(error),
        (values, _) => format!("expected {}", or(values)),
    }
}

/// The parser's own words, in one line.
fn first_paragraph(error: &Error) -> String {
    let said = error.render().to_string();
    let first = said.trim().split("\n\n").next().unwrap_or_default();
    let first = first.split_whitespace().collect::<Vec<_>>().join(" ");
    first.strip_prefix("error: ").unwrap_or(&first).to_owned()
}

/// `--file <FILE>` is `--file`, and `[ID]...` is `ID`.
fn name(argument: &str) -> String {
    let word = argument.split(' ').next().unwrap_or_default();
    word.split('=').next().unwrap_or_default().trim_matches(['<', '>', '[', ']', '.']).to_owned()
}

fn or(words: &[String]) -> String {
    match words {
        [before @ .., last] if !before.is_empty() => format!("{} or {last}", before.join(", ")),
        one => one.concat(),
    }
}

fn text(error: &Error, kind: ContextKind) -> Option<&str> {
    match error.get(kind)? {
        ContextValue::String(text) => Some(text),
        _ => None,
    }
}

fn texts(error: &Error, kind: ContextKind) -> Vec<String> {
    match error.get(kind) {
        Some(ContextValue::String(text)) => vec![text.clone()],
        Some(ContextValue::Strings(texts)) => texts.clone(),
        _ => Vec::new(),
    }
}
