//! The only connection to a database whose file is about to be moved.
//!
//! SQLite applies a `-wal` file to whatever database is beside it. So what is in the WAL is written into the file first, and the WAL is
//! removed. SQLite allows that only if no other connection uses the database (<https://sqlite.org/pragma.html#pragma_journal_mode>).
//! The next start enters WAL mode again.

use std::path::Path;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

use super::sqlite_error::{database_error, fault};
use crate::error::{DatabaseFault, Error};

/// How long to wait until no other connection uses the database.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Opens a file that is there. Waits for other connections.
pub(super) fn open(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(TIMEOUT)?;
    Ok(connection)
}

/// Writes what is in the WAL into the database and removes the WAL.
pub(super) fn leave_wal(connection: &Connection) -> rusqlite::Result<()> {
    let mode: String = connection.pragma_update_and_check(None, "journal_mode", "DELETE", |row| row.get(0))?;
    if mode.eq_ignore_ascii_case("delete") {
        return Ok(());
    }
    let busy = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_BUSY);
    Err(rusqlite::Error::SqliteFailure(busy, None))
}

/// A connection without a WAL that excludes every other one, also readers. It writes nothing, so SQLite makes no journal.
pub(super) fn exclusive(path: &Path) -> rusqlite::Result<Connection> {
    let connection = open(path)?;
    // A damaged database keeps its log as it is.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    leave_wal(&connection)?;
    connection.execute_batch("BEGIN EXCLUSIVE")?;
    Ok(connection)
}

/// Why there is no such connection.
pub(super) fn error(path: &Path, error: rusqlite::Error) -> Error {
    if fault(&error) != DatabaseFault::Busy {
        return database_error(path, error);
    }
    let (fault, detail) = (DatabaseFault::Busy, "another program has it open, so it cannot be moved".to_owned());
    let error = Error::Database { fault, path: path.to_owned(), detail, remedy: None, source: Some(error.into()) };
    error.with_remedy("end that program: a recorder, catchment tail, a prompt of SQL; fuser or lsof find it")
}
