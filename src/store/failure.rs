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
