//! How a command that failed ends: one line on standard error and an exit status.

use std::io::Write;
use std::process::ExitCode;

use clap::error::ErrorKind;

use crate::error::Error;

use super::logging::{self, LogFormat};
use super::values::printable;
use super::{flags, output};

/// Wrong usage that the argument parser cannot detect. Exit status 2.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct UsageError(pub String);

/// The command has printed its result and ends with this status.
#[derive(Debug, thiserror::Error)]
#[error("exit status {0}")]
pub struct ExitStatus(pub u8);

/// A signal ended the command before its work was done. Prints the message, and ends with the status.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Interrupted {
    pub message: String,
    pub status: ExitStatus,
}

/// Prints the error and returns the exit status: 2 for wrong usage or configuration, that of the signal for an interruption, else 1.
/// A closed standard output (`| head`) is not a failure.
pub fn report(error: &anyhow::Error) -> ExitCode {
    if output::is_closed(error) {
        return ExitCode::SUCCESS;
    }
    if let Some(ExitStatus(status)) = error.downcast_ref() {
        return ExitCode::from(*status);
    }
    print(&line(error));
    ExitCode::from(status(error))
}

/// Prints why a command failed: one line on standard error, in the format of the log. No level of the log hides it.
pub fn print(why: &str) {
    // If standard error is closed, the exit status is still set.
    let _ = match logging::format() {
        LogFormat::Text => writeln!(std::io::stderr(), "catchment: {why}"),
        LogFormat::Json => logging::write_error(why),
    };
}

/// Prints as one line of JSON why the arguments are refused, for a log in this format.
pub fn report_usage(error: &clap::Error) {
    let said = match error.kind() {
        // It would list hidden commands.
        ErrorKind::MissingSubcommand | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            "error: no command is given".to_owned()
        }
        _ => error.render().to_string(),
    };
    // If standard error is closed, the exit status is still set.
    let _ = logging::write_error(&usage(&said));
}

/// What the argument parser says, in one line, without the usage.
fn usage(said: &str) -> String {
    let paragraphs = said.trim().split("\n\n").map(|lines| lines.split_whitespace().collect::<Vec<_>>().join(" "));
    let is_reason = |paragraph: &String| {
        !["Usage:", "For more information"].iter().any(|beginning| paragraph.starts_with(beginning))
    };
    let reasons: Vec<String> = paragraphs.filter(is_reason).collect();
    let reasons = reasons.join("; ");
    format!("{}; --help describes the arguments", reasons.strip_prefix("error: ").unwrap_or(&reasons))
}

fn status(error: &anyhow::Error) -> u8 {
    if let Some(Interrupted { status: ExitStatus(status), .. }) = error.downcast_ref() {
        return *status;
    }
    let wrong_usage = error
        .chain()
        .any(|cause| cause.is::<UsageError>() || matches!(cause.downcast_ref::<Error>(), Some(Error::Config { .. })));
    if wrong_usage { 2 } else { 1 }
}

/// The error and its causes in one line. An error of the library includes its causes in its own text.
pub fn line(error: &anyhow::Error) -> String {
    let mut parts = Vec::new();
    for cause in error.chain() {
        if let Some(error) = cause.downcast_ref::<Error>() {
            parts.push(flags::shown(error));
            break;
        }
        parts.push(flags::in_message(&cause.to_string()));
    }
    let one_line = |part: &String| part.lines().map(str::trim).collect::<Vec<_>>().join(" ");
    printable(&parts.iter().map(one_line).collect::<Vec<_>>().join(": ")).into_owned()
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    use super::*;

    #[test]
    fn an_error_is_one_line_whatever_its_causes_contain() {
        let error = anyhow!("near \"x\": syntax error in SELECT\n  x\u{1b}[2J").context("chat.db");
        assert_eq!(line(&error), "chat.db: near \"x\": syntax error in SELECT x\\u001b[2J");
    }

    #[test]
    fn the_remedy_of_a_library_error_names_flags() {
        let error = Error::config("broker.jwt", "there is no nkey").with_remedy("give broker.nkey too");
        assert_eq!(line(&error.into()), "configuration: broker.jwt: there is no nkey; give --nkey too");
    }

    #[test]
    fn what_the_parser_says_is_one_line_too() {
        let said = "error: unexpected argument '--x' found\n\n  tip: a similar argument exists: '-x'\n\nUsage: catchment run\n\n\
                    For more information, try '--help'.\n";
        let line =
            "unexpected argument '--x' found; tip: a similar argument exists: '-x'; --help describes the arguments";
        assert_eq!(usage(said), line);
        let said =
            "error: the following required arguments were not provided:\n  <FILE>\n\nUsage: catchment test <FILE>\n";
        let line = "the following required arguments were not provided: <FILE>; --help describes the arguments";
        assert_eq!(usage(said), line);
    }

    #[test]
    fn wrong_usage_and_configuration_end_with_2() {
        let refused = Error::config("broker.stream", "is bad");
        assert_eq!(status(&anyhow::Error::new(refused).context("at start")), 2);
        assert_eq!(status(&UsageError("no SQL".into()).into()), 2);
        assert_eq!(status(&anyhow!("disk on fire")), 1);
        assert_eq!(status(&Interrupted { message: "interrupted".into(), status: ExitStatus(143) }.into()), 143);
    }
}
