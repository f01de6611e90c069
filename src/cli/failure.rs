//! How a command that failed ends: one line on standard error and an exit status.

use std::io::Write;
use std::process::ExitCode;

use crate::error::{DatabaseFault, Error};

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

/// SQL of the settings that does not fit the database. While a collector runs this is no wrong configuration: then somebody has changed
/// the tables.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct WrongStatement(#[source] Error);

/// The error of a start, in which all SQL of the settings is tried.
pub fn of_start(error: Error) -> anyhow::Error {
    match error {
        Error::Database { fault: DatabaseFault::Statement, .. } => WrongStatement(error).into(),
        other => other.into(),
    }
}

/// The error of work on a database. If a signal with this exit status came, and the work ended because of it or while it waited for
/// another process, the result is an interruption with this message.
pub fn or_interrupted(
    error: Error,
    signal: Option<ExitStatus>,
    message: impl FnOnce() -> String,
    otherwise: impl FnOnce(Error) -> anyhow::Error,
) -> anyhow::Error {
    let may_be = matches!(
        error,
        Error::Database { fault: DatabaseFault::Interrupted | DatabaseFault::Busy, .. } | Error::Cancelled { .. }
    );
    match signal.filter(|_| may_be) {
        Some(status) => Interrupted { message: message(), status }.into(),
        None => otherwise(error),
    }
}

/// Prints the error and returns the exit status: 2 for wrong usage or configuration, SQL and migrations included; that of the signal for an
/// interruption; else 1.
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
    print_as(logging::format(), why);
}

/// As [`print`], in this format: the log is not started yet.
pub fn print_as(format: LogFormat, why: &str) {
    // If standard error is closed, the exit status is still set.
    let _ = match format {
        LogFormat::Text => writeln!(std::io::stderr(), "catchment: {}", printable(why)),
        LogFormat::Json => logging::write_error(why),
    };
}

fn status(error: &anyhow::Error) -> u8 {
    if let Some(Interrupted { status: ExitStatus(status), .. }) = error.downcast_ref() {
        return *status;
    }
    let is_configuration = |error: &Error| matches!(error, Error::Config { .. } | Error::Migration { .. });
    let is_wrong_usage = error.chain().any(|cause| {
        let is_configuration = cause.downcast_ref::<Error>().is_some_and(is_configuration);
        is_configuration || cause.is::<UsageError>() || cause.is::<WrongStatement>()
    });
    if is_wrong_usage { 2 } else { 1 }
}

/// The error and its causes in one line. An error of the library includes its causes in its own text.
pub fn line(error: &anyhow::Error) -> String {
    let mut parts = Vec::new();
    for cause in error.chain() {
        if let Some(error) = cause.downcast_ref::<Error>() {
            parts.push(flags::shown(error));
            break;
        }
        // Its cause has the whole text.
        if !cause.is::<WrongStatement>() {
            parts.push(flags::in_message(&cause.to_string()));
        }
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
    fn wrong_usage_and_configuration_end_with_2() {
        let refused = Error::config("broker.stream", "is bad");
        assert_eq!(status(&anyhow::Error::new(refused).context("at start")), 2);
        assert_eq!(status(&UsageError("no SQL".into()).into()), 2);
        assert_eq!(status(&anyhow!("disk on fire")), 1);
        let statement = || Error::database(DatabaseFault::Statement, "a.db", "route x: no such table: y");
        let at_start = of_start(statement());
        assert_eq!((status(&at_start), &*line(&at_start)), (2, "database a.db: route x: no such table: y"));
        assert_eq!(status(&statement().into()), 1, "somebody has dropped the table");
        assert_eq!(status(&Interrupted { message: "interrupted".into(), status: ExitStatus(143) }.into()), 143);
    }
}
