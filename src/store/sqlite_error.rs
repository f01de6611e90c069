//! What an error of SQLite means: the event is wrong, the database has a problem, or the set-up is wrong. And how it reads.
//!
//! The codes are those of <https://sqlite.org/rescode.html>.

use std::path::Path;

use rusqlite::ErrorCode;

use crate::error::{DatabaseFault, Error};
use crate::pipeline::Problem;

/// A rule for SQL of the configuration that a statement or a migration breaks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Violation {
    /// What it does.
    pub(super) detail: String,
    /// What to write instead, where the detail does not say it.
    pub(super) remedy: Option<&'static str>,
}

impl Violation {
    pub(super) fn new(detail: impl Into<String>) -> Self {
        Self { detail: detail.into(), remedy: None }
    }

    pub(super) fn with_remedy(detail: impl Into<String>, remedy: &'static str) -> Self {
        Self { detail: detail.into(), remedy: Some(remedy) }
    }
}

/// Whether the event itself causes the error, so that no retry can store it.
pub(super) fn is_event_error(error: &rusqlite::Error) -> bool {
    match error {
        rusqlite::Error::SqliteFailure(failure, _) => matches!(
            failure.code,
            ErrorCode::ConstraintViolation
                | ErrorCode::TypeMismatch
                | ErrorCode::TooBig
                // A function refuses its arguments: `malformed JSON`, `integer overflow`.
                | ErrorCode::Unknown
        ),
        rusqlite::Error::ToSqlConversionFailure(_) | rusqlite::Error::NulError(_) => true,
        _ => false,
    }
}

/// Whether the content of a virtual table is damaged, and not the file: <https://sqlite.org/rescode.html#corrupt_vtab>.
pub(super) fn is_virtual_table_corruption(error: &rusqlite::Error) -> bool {
    error.sqlite_error().is_some_and(|failure| failure.extended_code == rusqlite::ffi::SQLITE_CORRUPT_VTAB)
}

/// Whether a constraint is broken.
pub(super) fn is_constraint(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(ErrorCode::ConstraintViolation)
}

/// Whether a query's statement or its request causes the error, and not the database.
pub(super) fn is_query_error(error: &rusqlite::Error) -> bool {
    let of_queries = [ErrorCode::Unknown, ErrorCode::OperationInterrupted, ErrorCode::ParameterOutOfRange];
    is_event_error(error) || error.sqlite_error_code().is_none_or(|code| of_queries.contains(&code))
}

/// Whether an error while preparing a statement may go away by waiting. A missing table or column and wrong SQL do not.
pub(super) fn is_transient(error: &rusqlite::Error) -> bool {
    use ErrorCode::{AuthorizationForStatementDenied, Unknown};
    !matches!(error.sqlite_error_code(), None | Some(Unknown | AuthorizationForStatementDenied))
}

/// The kind of fault that an error stands for.
pub(super) fn fault(error: &rusqlite::Error) -> DatabaseFault {
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => DatabaseFault::Busy,
        Some(ErrorCode::DiskFull) => DatabaseFault::Full,
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => DatabaseFault::Corrupt,
        Some(ErrorCode::CannotOpen | ErrorCode::ReadOnly | ErrorCode::PermissionDenied) => DatabaseFault::Unwritable,
        Some(ErrorCode::SystemIoFailure) => DatabaseFault::Io,
        _ => DatabaseFault::Other,
    }
}

/// SQLite's message.
pub(super) fn message(error: &rusqlite::Error) -> String {
    /// What rusqlite adds is the path or URI that SQLite was given. Our errors name the path that the user gave.
    const CANNOT_OPEN: &str = "unable to open database file";
    match error {
        rusqlite::Error::SqliteFailure(_, Some(message)) if message.starts_with(CANNOT_OPEN) => CANNOT_OPEN.into(),
        rusqlite::Error::SqliteFailure(_, Some(message)) => message.clone(),
        rusqlite::Error::SqlInputError { msg, .. } => msg.clone(),
        other => other.to_string(),
    }
}

/// What to do about an error, where that is known.
pub(super) fn remedy(error: &rusqlite::Error) -> Option<&'static str> {
    Some(match fault(error) {
        DatabaseFault::Busy => "another process holds its write lock; end that process's transaction",
        DatabaseFault::Full => "make room on its disk",
        DatabaseFault::Corrupt if error.sqlite_error_code() == Some(ErrorCode::NotADatabase) => {
            "set database.path to another file; if this was the database, restore a copy of it"
        }
        DatabaseFault::Corrupt => "it is damaged; restore a copy of it, or move it away",
        DatabaseFault::Unwritable => "check that the file and its directory exist and can be written",
        DatabaseFault::Io if lacks_temporary_folder(error) => {
            "no folder for temporary files can be written; set TMPDIR to one"
        }
        DatabaseFault::Io => "the disk reports an error; check its free space, its limits and its health",
        _ => return None,
    })
}

fn lacks_temporary_folder(error: &rusqlite::Error) -> bool {
    error.sqlite_error().is_some_and(|failure| failure.extended_code == rusqlite::ffi::SQLITE_IOERR_GETTEMPPATH)
}

/// SQLite's message and what to do about it, in one line.
pub(super) fn one_line(error: &rusqlite::Error) -> String {
    let message = message(error);
    match remedy(error) {
        Some(remedy) => format!("{message}; {remedy}"),
        None => message,
    }
}

/// The problem that an error of SQLite stands for.
pub(super) fn problem(error: &rusqlite::Error) -> Problem {
    Problem { fault: fault(error), detail: message(error), remedy: remedy(error).map(str::to_owned) }
}

/// The library's error for an error of SQLite.
pub(super) fn database_error(path: &Path, error: rusqlite::Error) -> Error {
    let remedy = remedy(&error);
    with_optional_remedy(caused(path, fault(&error), message(&error), error), remedy)
}

/// The error with a way out that fits a spool: it has no setting `database.path`, and no stream has its events yet.
pub(super) fn of_spool(error: Error) -> Error {
    let (fault, is_of_database) = match &error {
        Error::Database { fault, remedy: Some(remedy), .. } => (*fault, remedy.contains("database")),
        Error::Database { fault, .. } => (*fault, false),
        _ => return error,
    };
    match fault {
        DatabaseFault::Corrupt => error.with_remedy(
            "give the spool another path; if this was a spool, catchment spool export prints what can be read",
        ),
        _ if is_of_database => error.with_remedy("give the spool another path"),
        _ => error,
    }
}

/// The error for table `events` when no row can be added to it. `violation` is why the authorizer refuses the statement, if it
/// does.
pub(super) fn events_error(path: &Path, error: rusqlite::Error, violation: Option<Violation>) -> Error {
    if is_transient(&error) {
        return database_error(path, error);
    }
    if let Some(Violation { detail, remedy }) = violation {
        let detail = format!("route events: it {detail}");
        return with_optional_remedy(caused(path, DatabaseFault::Schema, detail, error), remedy);
    }
    let detail = format!("route events: {}", message(&error));
    caused(path, DatabaseFault::Schema, detail, error).with_remedy(
        "the table must have the columns that catchment gives it: rename your table, or set another database.path",
    )
}

/// The error for a statement of the configuration that cannot be prepared; `name` is the statement's. `violation` is why the
/// authorizer refuses it, if it does; `meant` ends the message of SQLite, see [`suggestion`](super::suggestion::suggestion).
pub(super) fn statement_error(
    path: &Path,
    name: &str,
    sql: &str,
    error: rusqlite::Error,
    violation: Option<Violation>,
    meant: &str,
) -> Error {
    if is_transient(&error) {
        return database_error(path, error);
    }
    let (detail, remedy) = match (violation, &error) {
        (Some(Violation { detail, remedy }), _) => (format!("it {detail}"), remedy),
        (None, rusqlite::Error::MultipleStatement) => ("it is several statements".into(), Some("give a list of them")),
        (None, error) => (message(error) + &position(sql, error) + meant, None),
    };
    with_optional_remedy(caused(path, DatabaseFault::Statement, format!("{name}: {detail}"), error), remedy)
}

/// The error for a statement of the configuration that SQLite accepts, but a rule does not.
pub(super) fn violation_error(path: &Path, name: &str, violation: Violation) -> Error {
    let Violation { detail, remedy } = violation;
    let (fault, detail) = (DatabaseFault::Statement, format!("{name}: it {detail}"));
    let error = Error::database(fault, path, detail);
    with_optional_remedy(error, remedy)
}

fn caused(path: &Path, fault: DatabaseFault, detail: String, error: rusqlite::Error) -> Error {
    Error::Database { fault, path: path.to_owned(), detail, remedy: None, source: Some(Box::new(error)) }
}

fn with_optional_remedy(error: Error, remedy: Option<&'static str>) -> Error {
    match remedy {
        Some(remedy) => error.with_remedy(remedy),
        None => error,
    }
}

/// Where in the SQL an error is: line and column, counted from 1, and the text there. Empty if SQLite does not report it.
pub(super) fn position(sql: &str, error: &rusqlite::Error) -> String {
    const SHOWN: usize = 24;
    let rusqlite::Error::SqlInputError { sql: given, offset, .. } = error else { return String::new() };
    // Of several statements, SQLite reports the text from the failing one on.
    let Some(skipped) = sql.strip_suffix(given.as_str()) else { return String::new() };
    let at = skipped.len() + usize::try_from(*offset).unwrap_or(0);
    let (Some(before), Some(after)) = (sql.get(..at), sql.get(at..)) else { return String::new() };
    let (line, column) =
        (before.matches('\n').count() + 1, before.rsplit('\n').next().map_or(0, |l| l.chars().count()) + 1);
    let rest = after.lines().next().unwrap_or_default();
    let shown: String = rest.chars().take(SHOWN).collect();
    let more = if shown.len() < rest.len() { "…" } else { "" };
    format!(" (at {line}:{column}, {:?})", shown + more)
}

#[cfg(test)]
mod tests {
    use rusqlite::ffi;

    use super::*;

    #[test]
    fn only_errors_of_the_disk_leave_a_commit_in_doubt() {
        let problem = |code| problem(&rusqlite::Error::SqliteFailure(ffi::Error::new(code), Some("it says".into())));
        let of_disk = problem(ffi::SQLITE_IOERR_FSYNC);
        assert_eq!((of_disk.fault, of_disk.detail.as_str()), (DatabaseFault::Io, "it says"));
        assert_eq!(
            of_disk.to_string(),
            "it says; the disk reports an error; check its free space, its limits and its health"
        );
        let others =
            [ffi::SQLITE_BUSY, ffi::SQLITE_FULL, ffi::SQLITE_CORRUPT, ffi::SQLITE_READONLY, ffi::SQLITE_INTERRUPT];
        let faults = others.map(|code| problem(code).fault);
        let expected = [
            DatabaseFault::Busy,
            DatabaseFault::Full,
            DatabaseFault::Corrupt,
            DatabaseFault::Unwritable,
            DatabaseFault::Other,
        ];
        assert_eq!(faults, expected);
    }
}
