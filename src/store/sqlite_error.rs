//! Whose fault an error of SQLite's is: the event's, the database's, or the set-up's.
//!
//! The codes are those of <https://sqlite.org/rescode.html>.

use std::path::Path;

use rusqlite::ErrorCode;

use crate::error::{DatabaseFault, Error};

/// Whether an error came from the event itself, so that no retry can store it.
pub(super) fn is_events_own(error: &rusqlite::Error) -> bool {
    match error {
        rusqlite::Error::SqliteFailure(failure, _) => matches!(
            failure.code,
            ErrorCode::ConstraintViolation
                | ErrorCode::TypeMismatch
                | ErrorCode::TooBig
                // What a function says about its arguments: `malformed JSON`, `integer overflow`.
                | ErrorCode::Unknown
        ),
        rusqlite::Error::ToSqlConversionFailure(_) | rusqlite::Error::NulError(_) => true,
        _ => false,
    }
}

/// Whether it is not the file that is damaged, but what a virtual table keeps in it: <https://sqlite.org/rescode.html#corrupt_vtab>.
pub(super) fn is_virtual_tables(error: &rusqlite::Error) -> bool {
    error.sqlite_error().is_some_and(|failure| failure.extended_code == rusqlite::ffi::SQLITE_CORRUPT_VTAB)
}

/// Whether a constraint is broken.
pub(super) fn is_constraint(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(ErrorCode::ConstraintViolation)
}

/// Whether an error came from a statement that reads, or from what was asked with it, and not from the database.
pub(super) fn is_statements_own(error: &rusqlite::Error) -> bool {
    let theirs = [ErrorCode::Unknown, ErrorCode::OperationInterrupted, ErrorCode::ParameterOutOfRange];
    is_events_own(error) || error.sqlite_error_code().is_none_or(|code| theirs.contains(&code))
}

/// The kind of trouble an error of SQLite's stands for.
pub(super) fn fault(error: &rusqlite::Error) -> DatabaseFault {
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => DatabaseFault::Busy,
        Some(ErrorCode::DiskFull) => DatabaseFault::Full,
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => DatabaseFault::Corrupt,
        Some(ErrorCode::CannotOpen | ErrorCode::ReadOnly | ErrorCode::PermissionDenied) => DatabaseFault::Unwritable,
        _ => DatabaseFault::Other,
    }
}

/// What happened, in SQLite's words.
pub(super) fn what(error: &rusqlite::Error) -> String {
    match error {
        rusqlite::Error::SqliteFailure(_, Some(message)) => message.clone(),
        rusqlite::Error::SqlInputError { msg, .. } => msg.clone(),
        other => other.to_string(),
    }
}

/// What happened and what would help, in one line.
pub(super) fn detail(error: &rusqlite::Error) -> String {
    let what = what(error);
    let remedy = match fault(error) {
        DatabaseFault::Busy => "another process holds its write lock; end that process's transaction",
        DatabaseFault::Full => "make room on its disk",
        DatabaseFault::Corrupt => {
            "it is damaged or no database; restore a copy (what that lacks is read from the stream again) or move it away"
        }
        DatabaseFault::Unwritable => "check that the file and its directory exist and can be written",
        _ => match error.sqlite_error_code() {
            Some(ErrorCode::SystemIoFailure) if lacks_temporary_folder(error) => {
                "no folder for temporary files can be written; set TMPDIR to one"
            }
            Some(ErrorCode::SystemIoFailure) => "the disk refuses; check its room, its limits and its health",
            _ => return what,
        },
    };
    format!("{what}; {remedy}")
}

fn lacks_temporary_folder(error: &rusqlite::Error) -> bool {
    error.sqlite_error().is_some_and(|failure| failure.extended_code == rusqlite::ffi::SQLITE_IOERR_GETTEMPPATH)
}

/// Whether waiting may bring what a statement lacks. It brings no table and no column, and makes no SQL right.
pub(super) fn may_pass(error: &rusqlite::Error) -> bool {
    use ErrorCode::{AuthorizationForStatementDenied, Unknown};
    !matches!(error.sqlite_error_code(), None | Some(Unknown | AuthorizationForStatementDenied))
}

/// The error for table `events` where no row can be added to it.
pub(super) fn events_error(path: &Path, error: rusqlite::Error, refusal: Option<String>) -> Error {
    if may_pass(&error) {
        return database_error(path, error);
    }
    if let Some(refusal) = refusal {
        let detail = format!("route events: it {refusal}");
        return Error::Database {
            fault: DatabaseFault::Schema,
            path: path.to_owned(),
            detail,
            remedy: None,
            source: Some(error.into()),
        };
    }
    let what = detail(&error);
    Error::Database {
        fault: DatabaseFault::Schema,
        path: path.to_owned(),
        detail: format!(
            "route events: {what}; that table must be as catchment makes it: rename yours, or give another database.path"
        ),
        remedy: None,
        source: Some(Box::new(error)),
    }
}

/// The error for a statement of the configuration that cannot be prepared, in `place`. `refusal` is what the authorizer has
/// against it.
pub(super) fn statement_error(
    path: &Path,
    place: &str,
    sql: &str,
    error: rusqlite::Error,
    refusal: Option<String>,
) -> Error {
    if may_pass(&error) {
        return database_error(path, error);
    }
    let what = match (refusal, &error) {
        (Some(refusal), _) => format!("it {refusal}"),
        (None, rusqlite::Error::MultipleStatement) => "it is several statements; give a list of them".into(),
        (None, error) => detail(error) + &spot(sql, error),
    };
    Error::Database {
        fault: DatabaseFault::Statement,
        path: path.to_owned(),
        detail: format!("{place}: {what}"),
        remedy: None,
        source: Some(Box::new(error)),
    }
}

/// Where in the SQL an error is: line and column, counted from 1, and what stands there. Empty where SQLite does not say.
fn spot(sql: &str, error: &rusqlite::Error) -> String {
    const SHOWN: usize = 24;
    let rusqlite::Error::SqlInputError { sql: given, offset, .. } = error else { return String::new() };
    // Of several statements it has the rest.
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

/// The library's error for an error of SQLite's.
pub(super) fn database_error(path: &Path, error: rusqlite::Error) -> Error {
    Error::Database {
        fault: fault(&error),
        path: path.to_owned(),
        detail: detail(&error),
        remedy: None,
        source: Some(Box::new(error)),
    }
}
