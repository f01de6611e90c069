//! The file of a spool: made, recognised, and moved aside where it is damaged.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};
use time::OffsetDateTime;

use crate::config::DatabaseConfig;
use crate::error::{DatabaseFault, Error};
use crate::new_file::{folder_of, with_ending};
use crate::printable;
use crate::store::database_file::{file_beside, followed, must_have_one_name};
use crate::store::lock::Lock;
use crate::store::quick_check::must_be_sound;
use crate::store::sqlite_error::{database_error, message};
use crate::store::{new_database, schema};
use crate::time_stamp::time_stamp;

/// What is in the header of the file: `cSpo`. See <https://sqlite.org/fileformat.html#application_id>.
const APPLICATION_ID: i32 = i32::from_be_bytes(*b"cSpo");

/// The version of these tables.
const VERSION: i64 = 2;

/// The only row of `catchment_spool` counts what is in the other tables. `last` is the highest position that an event ever had; `file` tells
/// the file from a copy. `number` of an event is its distance from `first`. `through` is the last position of a name, NULL while its start runs.
const TABLES: &str = "
CREATE TABLE catchment_spool(
    version INTEGER NOT NULL,
    events INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    forwarded INTEGER NOT NULL,
    dropped INTEGER NOT NULL,
    dead_letters INTEGER NOT NULL,
    last INTEGER NOT NULL DEFAULT 0,
    file TEXT
) STRICT;

CREATE TABLE catchment_spool_names(
    first INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    started_us INTEGER NOT NULL,
    through INTEGER
) STRICT;

CREATE TABLE catchment_spool_events(
    position INTEGER PRIMARY KEY,
    recorded_us INTEGER NOT NULL,
    size INTEGER NOT NULL,
    subject TEXT NOT NULL,
    headers TEXT,
    payload ANY NOT NULL
) STRICT;

CREATE TABLE catchment_spool_dead_letters(
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL,
    number INTEGER NOT NULL,
    recorded_us INTEGER NOT NULL,
    size INTEGER NOT NULL,
    subject TEXT NOT NULL,
    headers TEXT,
    payload ANY NOT NULL,
    error TEXT NOT NULL,
    given_up_us INTEGER NOT NULL,
    may_be_stored INTEGER NOT NULL DEFAULT 1
) STRICT;

CREATE TABLE catchment_spool_refusals(
    position INTEGER PRIMARY KEY,
    since_us INTEGER NOT NULL,
    others_stored INTEGER NOT NULL
) STRICT;

INSERT INTO catchment_spool(version, events, bytes, forwarded, dropped, dead_letters) VALUES (2, 0, 0, 0, 0, 0);
";

/// From version 1, which did not note which positions were used: the next ones are far from them.
const UPGRADE: &str = "
BEGIN IMMEDIATE;
ALTER TABLE catchment_spool ADD COLUMN last INTEGER NOT NULL DEFAULT 0;
ALTER TABLE catchment_spool ADD COLUMN file TEXT;
ALTER TABLE catchment_spool_names ADD COLUMN through INTEGER;
ALTER TABLE catchment_spool_dead_letters ADD COLUMN may_be_stored INTEGER NOT NULL DEFAULT 1;
CREATE TABLE catchment_spool_refusals(
    position INTEGER PRIMARY KEY,
    since_us INTEGER NOT NULL,
    others_stored INTEGER NOT NULL
) STRICT;
UPDATE catchment_spool SET version = 2, last = 1099511627776 + (SELECT max(first) FROM catchment_spool_names);
COMMIT;
";

/// What a file is.
enum Found {
    /// It has no tables.
    New,
    Spool,
}

/// Makes the file where it is missing or empty. Moves a damaged spool aside and makes a new one. Returns where the damaged one is.
pub(super) fn make(config: &DatabaseConfig) -> Result<Option<PathBuf>, Error> {
    let path = &config.path;
    must_have_one_name(path)?;
    let moved = finish_moving(path)?;
    new_database::make(path, config.permissions);
    match examine(path, config.busy_timeout) {
        Ok(Found::Spool) => Ok(moved),
        Ok(Found::New) => {
            make_tables(path, config.busy_timeout).map_err(|e| database_error(path, e))?;
            Ok(moved)
        }
        Err(error) if is_damaged(path, &error) => {
            let aside = move_aside(path, &error)?;
            new_database::make(path, config.permissions);
            make_tables(path, config.busy_timeout).map_err(|e| database_error(path, e))?;
            Ok(Some(aside))
        }
        Err(error) => Err(error),
    }
}

fn open(path: &Path, timeout: Duration) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_EXRESCODE;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(timeout)?;
    Ok(connection)
}

fn make_tables(path: &Path, timeout: Duration) -> rusqlite::Result<()> {
    let connection = open(path, timeout)?;
    // Before the first table: https://sqlite.org/pragma.html#pragma_auto_vacuum
    connection.execute_batch("PRAGMA auto_vacuum = INCREMENTAL; BEGIN IMMEDIATE")?;
    connection.execute_batch(TABLES)?;
    connection.pragma_update(None, "application_id", APPLICATION_ID)?;
    connection.execute_batch("COMMIT")
}

/// Looks for damage: in the whole of a small file; in a large file only at the ends of the events.
fn examine(path: &Path, timeout: Duration) -> Result<Found, Error> {
    let on_error = |e| database_error(path, e);
    let connection = open(path, timeout).map_err(on_error)?;
    let tables = schema::tables(&connection).map_err(on_error)?;
    if tables.is_empty() {
        return Ok(Found::New);
    }
    must_be_spool(path, &connection, &tables)?;
    let ends = "SELECT (SELECT min(position) FROM catchment_spool_events),
                       (SELECT max(position) FROM catchment_spool_events), (SELECT events FROM catchment_spool)";
    must_be_sound(&connection, path, ends).map_err(on_error)?;
    if version_of(&connection).map_err(on_error)? < VERSION {
        connection.execute_batch(UPGRADE).map_err(on_error)?;
    }
    Ok(Found::Spool)
}

/// Refuses a database that is no spool, and a spool of a later version.
pub(super) fn must_be_spool(path: &Path, connection: &Connection, tables: &[String]) -> Result<(), Error> {
    let on_error = |e| database_error(path, e);
    let id: i32 = connection.pragma_query_value(None, "application_id", |row| row.get(0)).map_err(on_error)?;
    let refused = |detail: String, remedy: &str| {
        let (fault, path) = (DatabaseFault::Schema, path.to_owned());
        Error::Database { fault, path, detail, remedy: Some(remedy.into()), source: None }
    };
    if id != APPLICATION_ID || !tables.iter().any(|table| table == "catchment_spool") {
        let named = printable(&tables[..tables.len().min(3)].join(", ")).into_owned();
        let detail = format!("it is a database and no spool (tables: {named})");
        return Err(refused(detail, "give the spool a path of its own"));
    }
    let version = version_of(connection).map_err(on_error)?;
    if version > VERSION {
        let detail = format!("its tables have version {version}, made by a later catchment");
        return Err(refused(detail, "use that one"));
    }
    Ok(())
}

fn version_of(connection: &Connection) -> rusqlite::Result<i64> {
    connection.query_row("SELECT version FROM catchment_spool", [], |row| row.get(0))
}

/// Whether the file is a spool that is damaged, and not the file of another program.
fn is_damaged(path: &Path, error: &Error) -> bool {
    let is_corrupt = matches!(error, Error::Database { fault: DatabaseFault::Corrupt, .. });
    is_corrupt && (Lock::was_of_spool(path) || has_our_id(path))
}

/// Whether the header is that of a spool. No connection of this process uses the file: closing it would drop SQLite's locks.
fn has_our_id(path: &Path) -> bool {
    let mut header = [0; 72];
    let read = File::open(path).and_then(|mut file| file.read_exact(&mut header));
    read.is_ok() && header.starts_with(b"SQLite format 3\0") && header[68..] == APPLICATION_ID.to_be_bytes()
}

/// Moves the file and its log to another name, whole.
fn move_aside(path: &Path, why: &Error) -> Result<PathBuf, Error> {
    let file = followed(path);
    let aside = free_name(&file);
    // The log first: without it, the file would be an earlier state that is not damaged. A new file must not find it either.
    let log = log_of(path);
    let moved = if log.exists() { std::fs::rename(&log, with_ending(&aside, "-wal")) } else { Ok(()) };
    moved.and_then(|()| std::fs::rename(&file, &aside)).map_err(|e| unmovable(path, e))?;
    // It has no content of its own.
    let _ = std::fs::remove_file(file_beside(path, "-shm"));
    let (spool, shown, why) = (path.display(), aside.display(), detail(why));
    log::error!(
        event = "spool.damaged", spool:% = spool, moved_to:% = shown, error:% = why;
        "spool {spool}: it is damaged ({why}) and was moved to {shown}; a new one is used; catchment spool export {shown} prints what \
         can be read"
    );
    Ok(aside)
}

/// Completes a move of which only the log was moved, because the process ended. Returns where the spool is now.
fn finish_moving(path: &Path) -> Result<Option<PathBuf>, Error> {
    let file = followed(path);
    let Some(name) = file.file_name() else { return Ok(None) };
    let folder = folder_of(&file);
    let start = [name.as_encoded_bytes(), b".damaged-"].concat();
    let mut moved = None;
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let Some(aside) = name.to_str().and_then(|name| name.strip_suffix("-wal")) else { continue };
        let aside = folder.join(aside);
        if name.as_encoded_bytes().starts_with(&start) && !aside.exists() && file.exists() {
            std::fs::rename(&file, &aside).map_err(|e| unmovable(path, e))?;
            let (spool, shown, why) = (path.display(), aside.display(), "its move was interrupted");
            log::error!(
                event = "spool.damaged", spool:% = spool, moved_to:% = shown, error:% = why;
                "spool {spool}: it is damaged and was moved to {shown}; a new one is used"
            );
            moved = Some(aside);
        }
    }
    Ok(moved)
}

fn unmovable(path: &Path, error: std::io::Error) -> Error {
    let (fault, detail) = (DatabaseFault::Corrupt, format!("the spool is damaged and cannot be moved aside: {error}"));
    let remedy = Some("move it away, with the file of the same name and -wal".into());
    Error::Database { fault, path: path.to_owned(), detail, remedy, source: Some(error.into()) }
}

/// SQLite's message alone: the remedy for a database is not that for a spool.
fn detail(error: &Error) -> String {
    match error {
        Error::Database { source: Some(source), .. } => {
            source.downcast_ref().map_or_else(|| source.to_string(), message)
        }
        other => other.to_string(),
    }
}

/// A name that no file has: the spool's, with the time.
fn free_name(file: &Path) -> PathBuf {
    let time = time_stamp(OffsetDateTime::now_utc());
    let names = std::iter::once(String::new()).chain((2..).map(|number| format!("-{number}")));
    let mut free = names.map(|number| with_ending(file, &format!(".damaged-{time}{number}")));
    free.find(|path| !path.exists() && !with_ending(path, "-wal").exists()).unwrap_or_else(|| file.to_owned())
}

/// The file `-wal` of a spool.
pub(super) fn log_of(spool: &Path) -> PathBuf {
    file_beside(spool, "-wal")
}
