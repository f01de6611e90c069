//! A table of another program whose rows are published: the outbox pattern. Where the publishing is, is in tables of catchment's own, in the
//! same database or in a file of their own.
//!
//! The number of a row's event is its distance from the first row of its name. A start draws a name for the rows that have none. Before a
//! row is sent, it is written down that it has this name. So a row that is sent again has the same name and number, and a row that was
//! added after a backup was restored has a name that no other row had.

mod rows;

use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, OptionalExtension, Transaction, TransactionBehavior, params};

use super::beside;
use super::columns::now_us;
use super::database_file::{DatabaseFile, must_exist, must_have_one_name};
use super::lock::Lock;
use super::sqlite_error::{database_error, fault, problem};
use super::stored_event::StoredEvent;
use crate::error::{DatabaseFault, Error};
use crate::event_id::{NameRange, draw_name};
use crate::pipeline::Problem;
use rows::Rows;

/// How long to wait for another process that writes.
const BUSY: Duration = Duration::from_secs(5);

/// By the table: all rows up to `position` are in a stream or given up, and those up to `named` have a name.
const TABLES: &str = "
CREATE TABLE IF NOT EXISTS catchment_forward(
    source TEXT PRIMARY KEY,
    position INTEGER NOT NULL,
    named INTEGER NOT NULL,
    forwarded INTEGER NOT NULL,
    given_up INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS catchment_forward_names(
    source TEXT NOT NULL,
    first INTEGER NOT NULL,
    name TEXT NOT NULL,
    PRIMARY KEY(source, first)
) STRICT, WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS catchment_forward_dead_letters(
    source TEXT NOT NULL,
    id INTEGER NOT NULL,
    error TEXT NOT NULL,
    given_up_us INTEGER NOT NULL,
    PRIMARY KEY(source, id)
) STRICT, WITHOUT ROWID;
";

/// Which table to publish, and how.
#[derive(Clone, Debug)]
pub struct OutboxOptions {
    /// The database with the table.
    pub path: PathBuf,
    /// The table.
    pub table: String,
    /// The file that keeps the position, where that is not the database.
    pub state: Option<PathBuf>,
    /// Whether to delete the rows that are in the stream, but the last.
    pub deletes: bool,
}

/// How far a table is published.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OutboxStatus {
    /// All rows up to this id are in the stream, or given up.
    pub position: u64,
    /// Rows after it.
    pub waiting: u64,
    /// Rows that were forwarded.
    pub forwarded: u64,
    /// Rows that were given up.
    pub given_up: u64,
    /// When the oldest waiting row was made, in microseconds since 1970, if the table says it.
    pub oldest_us: Option<i64>,
}

/// A table that is published. While it is open, no other process publishes it with the same state.
#[derive(Debug)]
pub struct Outbox {
    options: OutboxOptions,
    source: Connection,
    file: DatabaseFile,
    /// `None`: in the source.
    state: Option<Connection>,
    rows: Rows,
    names: Vec<NameRange>,
    /// All rows up to this one are in the stream or given up, at the start.
    position: u64,
    /// All rows up to this one have a name.
    named: u64,
    /// There is nothing to publish up to this row.
    scanned: u64,
    given_up: u64,
    _lock: Lock,
}

impl Outbox {
    /// Opens the table, and draws a name for its further rows. Blocks for some seconds while another process writes.
    ///
    /// # Errors
    ///
    /// [`Error::Database`]: there is no such table, it lacks a column, or the position cannot be written. [`Error::Locked`]: another
    /// process publishes it.
    pub fn open(options: &OutboxOptions) -> Result<Self, Error> {
        let path = &options.path;
        must_exist(path)?;
        must_have_one_name(path)?;
        let on_error = |e| database_error(path, e);
        let is_apart = options.state.is_some();
        let source = connect(path, !is_apart).map_err(on_error)?;
        let rows = Rows::of(path, &source, &options.table)?;
        let holder = options.state.as_ref().unwrap_or(path);
        let lock = Lock::take(&lock_name(holder, &options.table)).map_err(|error| match error {
            Error::Locked { holder: process, is_own, .. } => {
                Error::Locked { path: holder.clone(), holder: process, is_own }
            }
            error => error,
        })?;
        let state = match &options.state {
            Some(state) => Some(connect_or_make(state).map_err(|e| database_error(state, e))?),
            None => None,
        };
        let connection = state.as_ref().unwrap_or(&source);
        let (names, position, through) = begin(connection, &source, &rows, path).map_err(|error| {
            let cannot_write = fault(&error) == DatabaseFault::Unwritable && !is_apart;
            let error = database_error(holder, error);
            if cannot_write { error.with_remedy("keep the position in another file: --state FILE") } else { error }
        })?;
        let (file, options) = (DatabaseFile::at(path), options.clone());
        let (scanned, given_up) = (position, 0);
        Ok(Self { options, source, file, state, rows, names, position, named: through, scanned, given_up, _lock: lock })
    }

    /// The names of its rows.
    pub(crate) fn names(&self) -> Vec<NameRange> {
        self.names.clone()
    }

    /// All rows up to this one were in the stream, or given up, when it was opened.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.position
    }

    /// The database.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.options.path
    }

    /// The rows after this one that are events, in order: at most so many, and no more after so many bytes.
    pub fn after(&mut self, position: u64, events: usize, bytes: usize) -> Result<Vec<StoredEvent>, Problem> {
        self.must_be_the_same()?;
        let after = position.max(self.scanned);
        let read = self.rows.read(&self.source, after, events, bytes).map_err(|e| problem(&e))?;
        if self.rows.last(&self.source).map_err(|e| problem(&e))? < self.named {
            let detail = "its rows are numbered from the start again; keep the last row when you delete rows";
            return Err(Problem { remedy: Some("start again: all its rows are forwarded".into()), ..conflict(detail) });
        }
        if let Some(last) = read.events.last().map(|event| event.position)
            && last > self.named
        {
            let sql = "UPDATE catchment_forward SET named = max(named, ?2) WHERE source = ?1";
            self.execute(sql, params![self.options.table, last])?;
            self.named = last;
        }
        self.scanned = after.max(read.scanned);
        Ok(read.events)
    }

    /// Notes that all rows up to this one are in the stream, or given up.
    pub fn done_through(&mut self, position: u64) -> Result<(), Problem> {
        self.must_be_the_same()?;
        let count = self.rows.count(&self.source, self.position, position).map_err(|e| problem(&e))?;
        let forwarded = count.saturating_sub(std::mem::take(&mut self.given_up));
        let sql =
            "UPDATE catchment_forward SET position = max(position, ?2), forwarded = forwarded + ?3 WHERE source = ?1";
        self.execute(sql, params![self.options.table, position, forwarded])?;
        self.position = position;
        if self.options.deletes && self.state.is_none() {
            self.rows.delete_before(&self.source, position, &self.options.table).map_err(|e| problem(&e))?;
        }
        Ok(())
    }

    /// Notes that these rows cannot be published, each for its reason. They stay in their table.
    pub fn give_up(&mut self, rows: &[(u64, String)]) -> Result<(), Problem> {
        let connection = self.state.as_ref().unwrap_or(&self.source);
        let given_up = || -> rusqlite::Result<usize> {
            let transaction = Transaction::new_unchecked(connection, TransactionBehavior::Immediate)?;
            let mut added = 0;
            for (id, error) in rows {
                let sql = "INSERT OR IGNORE INTO catchment_forward_dead_letters(source, id, error, given_up_us)
                           VALUES (?1, ?2, ?3, ?4)";
                added += transaction.execute(sql, params![self.options.table, id, error, now_us()])?;
            }
            let sql = "UPDATE catchment_forward SET given_up = given_up + ?2 WHERE source = ?1";
            transaction.execute(sql, params![self.options.table, added as u64])?;
            transaction.commit()?;
            Ok(added)
        };
        self.given_up += given_up().map_err(|e| problem(&e))? as u64;
        Ok(())
    }

    fn execute(&self, sql: &str, values: impl rusqlite::Params) -> Result<(), Problem> {
        let connection = self.state.as_ref().unwrap_or(&self.source);
        connection.prepare_cached(sql).and_then(|mut statement| statement.execute(values)).map_err(|e| problem(&e))?;
        Ok(())
    }

    fn must_be_the_same(&self) -> Result<(), Problem> {
        let detail = "the file was moved, removed or replaced while it was forwarded";
        if self.file.was_replaced() { Err(conflict(detail)) } else { Ok(()) }
    }

    /// How far a table is published. Changes nothing, also while a process publishes it.
    ///
    /// # Errors
    ///
    /// [`Error::Database`]: there is no such table, or it lacks a column.
    pub fn status(options: &OutboxOptions) -> Result<OutboxStatus, Error> {
        let path = &options.path;
        must_exist(path)?;
        let on_error = |e| database_error(path, e);
        let source = connect(path, false).map_err(on_error)?;
        let rows = Rows::of(path, &source, &options.table)?;
        let state = match options.state.as_ref().filter(|state| state.exists()) {
            Some(state) => Some(connect(state, false).map_err(|e| database_error(state, e))?),
            None => None,
        };
        let of_state = if options.state.is_some() { state.as_ref() } else { Some(&source) };
        let read = || -> rusqlite::Result<OutboxStatus> {
            let (position, forwarded, given_up) = match of_state {
                Some(state) if super::schema::has_table(state, "catchment_forward")? => {
                    let sql = "SELECT position, forwarded, given_up FROM catchment_forward WHERE source = ?";
                    let row = state.query_row(sql, [&options.table], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)));
                    row.optional()?.unwrap_or_default()
                }
                _ => (0, 0, 0),
            };
            let waiting = rows.count(&source, position, i64::MAX.unsigned_abs())?;
            let oldest_us = rows.read(&source, position, 1, 1)?.events.first().map(|event| event.recorded_us);
            let oldest_us = oldest_us.filter(|_| rows.has_time());
            Ok(OutboxStatus { position, waiting, forwarded, given_up, oldest_us })
        };
        read().map_err(on_error)
    }
}

fn conflict(detail: &str) -> Problem {
    Problem::new(DatabaseFault::Conflict, detail)
}

/// The file beside which the lock is: `<database>.forward`, and with the name of the table if that is not `events`.
fn lock_name(path: &Path, table: &str) -> PathBuf {
    let ending = if table == "events" { "forward".to_owned() } else { format!("forward-{table}") };
    beside(path, &ending)
}

fn connect(path: &Path, writes: bool) -> rusqlite::Result<Connection> {
    if !writes {
        return super::read_only::read_only(path);
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_EXRESCODE;
    prepared(Connection::open_with_flags(path, flags)?)
}

fn connect_or_make(path: &Path) -> rusqlite::Result<Connection> {
    super::new_database::make(path, 0o600);
    let connection = connect(path, true)?;
    super::pool::into_wal(&connection, BUSY)?;
    Ok(connection)
}

/// The journal is what the other program has chosen.
fn prepared(connection: Connection) -> rusqlite::Result<Connection> {
    connection.busy_timeout(BUSY)?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    Ok(connection)
}

/// Draws a name for the rows that have none. Returns the names, the position, and up to where the rows had names.
fn begin(
    state: &Connection,
    source: &Connection,
    rows: &Rows,
    path: &Path,
) -> rusqlite::Result<(Vec<NameRange>, u64, u64)> {
    let table = rows.table();
    let transaction = Transaction::new_unchecked(state, TransactionBehavior::Immediate)?;
    transaction.execute_batch(TABLES)?;
    let sql =
        "INSERT OR IGNORE INTO catchment_forward(source, position, named, forwarded, given_up) VALUES (?, 0, 0, 0, 0)";
    transaction.execute(sql, [table])?;
    let sql = "SELECT position, named FROM catchment_forward WHERE source = ?";
    let (mut position, mut through): (u64, u64) =
        transaction.query_row(sql, [table], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let last = rows.last(source)?;
    if last < through {
        // Rows were deleted, and their ids are used again, or an earlier copy of the database was restored beside this state.
        let path = path.display();
        log::warn!(
            event = "forward.restarted", database:% = path, table:% = table, position = position, last = last;
            "database {path}: table {table} ends at row {last}, before row {through}, which was read already: its rows are numbered from the \
             start again, and all are forwarded"
        );
        (position, through) = (0, 0);
        transaction.execute("UPDATE catchment_forward SET position = 0, named = 0 WHERE source = ?", [table])?;
        transaction.execute("DELETE FROM catchment_forward_names WHERE source = ?", [table])?;
        transaction.execute("DELETE FROM catchment_forward_dead_letters WHERE source = ?", [table])?;
    }
    let sql = "INSERT OR REPLACE INTO catchment_forward_names(source, first, name) VALUES (?, ?, ?)";
    transaction.execute(sql, params![table, through + 1, draw_name()])?;
    // Those whose rows are all in the stream.
    let sql = "DELETE FROM catchment_forward_names WHERE source = ?1 AND first < (
                   SELECT max(first) FROM catchment_forward_names WHERE source = ?1 AND first <= ?2 + 1
               )";
    transaction.execute(sql, params![table, position])?;
    let range = |row: &rusqlite::Row<'_>| Ok(NameRange { first: row.get(0)?, name: row.get(1)? });
    let sql = "SELECT first, name FROM catchment_forward_names WHERE source = ? ORDER BY first";
    let names = transaction.prepare(sql)?.query_map([table], range)?.collect::<rusqlite::Result<_>>()?;
    transaction.commit()?;
    Ok((names, position, through))
}

#[cfg(test)]
mod tests;
