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

/// Whether an error came from a statement that reads, or from what was asked with it, and not from the database.
pub(super) fn is_statements_own(error: &rusqlite::Error) -> bool {
    let theirs = [ErrorCode::Unknown, ErrorCode::OperationInterrupted, ErrorCode::ParameterOutOfRange];
    is_events_own(error) || error.sqlite_error_code().is_none_or(|code| theirs.contains(&code))
}

/// What is wrong with SQL, and where.
pub(super) fn sql_fault(error: &rusqlite::Error) -> String {
    let rusqlite::Error::SqlInputError { msg, sql, offset, .. } = error else { return detail(error) };
    let place = usize::try_from(*offset).ok().and_then(|at| Some((sql.get(..at)?, sql.get(at..)?)));
    let Some((before, from)) = place.filter(|(_, from)| !from.is_empty()) else { return msg.clone() };
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    let shown: String = from.lines().next().unwrap_or_default().chars().take(24).collect();
    format!("{msg} (at {line}:{column}, {shown:?})")
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

/// What happened and what would help, in one line.
pub(super) fn detail(error: &rusqlite::Error) -> String {
    let what = match error {
        rusqlite::Error::SqliteFailure(_, Some(message)) => message.clone(),
        other => other.to_string(),
    };
    let remedy = match fault(error) {
        DatabaseFault::Busy => "another process holds its write lock; end that process's transaction",
        DatabaseFault::Full => "make room on its disk",
        DatabaseFault::Corrupt => {
            "it is damaged or no database; restore a copy (what that lacks is read from the stream again) or move it away"
        }
        DatabaseFault::Unwritable => "check that the file and its directory exist and can be written",
        _ => match error.sqlite_error_code() {
            Some(ErrorCode::SystemIoFailure) => "the disk refuses; check its room, its limits and its health",
            _ => return what,
        },
    };
    format!("{what}; {remedy}")
}

/// The error for a route whose statement cannot even be prepared: a table or column is not there, and waiting brings none.
pub(super) fn route_error(path: &Path, error: rusqlite::Error) -> Error {
    if !matches!(error.sqlite_error_code(), None | Some(ErrorCode::Unknown)) {
        return database_error(path, error);
    }
    let what = detail(&error);
    Error::Database {
        fault: DatabaseFault::Schema,
        path: path.to_owned(),
        detail: format!(
            "route events: {what}; that table must be as catchment makes it: rename yours, or give another database.path"
        ),
        source: Some(Box::new(error)),
    }
}

/// The library's error for an error of SQLite's.
pub(super) fn database_error(path: &Path, error: rusqlite::Error) -> Error {
    Error::Database {
        fault: fault(&error),
        path: path.to_owned(),
        detail: detail(&error),
        source: Some(Box::new(error)),
    }
}
