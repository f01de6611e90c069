//! How a command that failed ends: one line on standard error and an exit status.

use std::io::Write;
use std::process::ExitCode;

use crate::error::Error;

use super::output;
use super::values::printable;

/// Wrong usage that the argument parser cannot see. Exit status 2.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Usage(pub String);

/// The command has said what there is to say, and ends with this status.
#[derive(Debug, thiserror::Error)]
#[error("exit status {0}")]
pub struct ExitStatus(pub u8);

/// Says what went wrong and answers the exit status: 2 for wrong usage or configuration, else 1. That nobody reads
/// standard output any more (`| head`) is no failure.
pub fn report(error: &anyhow::Error) -> ExitCode {
    if output::nobody_reads(error) {
        return ExitCode::SUCCESS;
    }
    if let Some(ExitStatus(status)) = error.downcast_ref() {
        return ExitCode::from(*status);
    }
    // Without a standard error there is still the exit status.
    let _ = writeln!(std::io::stderr(), "catchment: {}", line(error));
    ExitCode::from(status(error))
}

fn status(error: &anyhow::Error) -> u8 {
    let wrong_usage = error
        .chain()
        .any(|cause| cause.is::<Usage>() || matches!(cause.downcast_ref::<Error>(), Some(Error::Config { .. })));
    if wrong_usage { 2 } else { 1 }
}

/// The error and its causes in one line. Our own errors tell of their causes themselves.
fn line(error: &anyhow::Error) -> String {
    let mut parts = Vec::new();
    for cause in error.chain() {
        parts.push(cause.to_string());
        if cause.is::<Error>() {
            break;
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
    fn an_error_is_one_line_whatever_its_causes_say() {
        let error = anyhow!("near \"x\": syntax error in SELECT\n  x\u{1b}[2J").context("chat.db");
        assert_eq!(line(&error), "chat.db: near \"x\": syntax error in SELECT x\\u{1b}[2J");
    }

    #[test]
    fn wrong_usage_and_configuration_end_with_2() {
        let refused = Error::config("broker.stream", "is bad");
        assert_eq!(status(&anyhow::Error::new(refused).context("at start")), 2);
        assert_eq!(status(&Usage("no SQL".into()).into()), 2);
        assert_eq!(status(&anyhow!("disk on fire")), 1);
    }
}
