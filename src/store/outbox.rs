//! A table of another program whose rows are published: the outbox pattern. Where the publishing is, is in tables of catchment's own, in the
//! same database or in a file of their own.
//!
//! The number of a row's event is its distance from the first row of its name. A start draws a name for the rows that have none. Before a
//! row is sent, it is written down that it has this name. So a row that is sent again has the same name and number, and a row that was
//! added after a backup was restored has a name that no other row had.

mod rows;
mod state;

use std::collections::{HashSet, VecDeque};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rusqlite::{Connection, OpenFlags, OptionalExtension, Transaction, TransactionBehavior, params};

use super::beside;
use super::columns::now_us;
use super::database_file::{DatabaseFile, must_exist, must_have_one_name};
use super::lock::Lock;
use super::sqlite_error::{database_error, fault, problem};
use super::stored_event::StoredEvent;
use crate::config::validate_database_path;
use crate::error::{DatabaseFault, Error};
use crate::event_id::NameRange;
use crate::pipeline::Problem;
use rows::Rows;
use state::Start;

/// How long to wait for another process that writes.
const BUSY: Duration = Duration::from_secs(5);

/// How often to look for rows below the position, at most.
const LOOK_BELOW: Duration = Duration::from_secs(10);

/// Which table to publish, and how.
#[derive(Clone, Debug)]
pub struct OutboxOptions {
    /// The database with the table.
    pub path: PathBuf,
    /// The table.
    pub table: String,
    /// The file that keeps the position, where that is not the database.
    pub state: Option<PathBuf>,
    /// Whether to delete the rows that were forwarded, but the last.
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
    /// Rows that appeared at or below the position, and are not forwarded, at least.
    pub missed: u64,
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
    /// The rows that were read in this run and are after the position.
    read: VecDeque<u64>,
    /// Those of them that were given up.
    given_up: HashSet<u64>,
    /// The row at the position, if it was forwarded: it is deleted once it is not the last.
    last_sent: Option<u64>,
    /// A digest of the row at the position.
    last_row: Option<String>,
    /// So many rows up to the position are known.
    passed: u64,
    /// The state of the source at the last look: <https://sqlite.org/pragma.html#pragma_data_version>.
    version: i64,
    /// When to look for rows below the position. `None`: they were said already.
    look_below: Option<Instant>,
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
        let options = &OutboxOptions { table: rows.table().to_owned(), ..options.clone() };
        let holder = options.state.as_ref().unwrap_or(path);
        if let Some(state) = &options.state {
            must_be_a_path(state)?;
        }
        let lock = Lock::take(&lock_name(holder, &options.table)).map_err(|error| match error {
            Error::Locked { holder: process, is_own, .. } => {
                Error::Locked { path: holder.clone(), holder: process, is_own }
            }
            error => error,
        })?;
        let state = match &options.state {
            Some(state) => {
                let connection = connect_or_make(state).map_err(|e| database_error(state, e))?;
                state::must_be_of(&connection, state, path, &options.table)?;
                Some(connection)
            }
            None => None,
        };
        let connection = state.as_ref().unwrap_or(&source);
        let start = Start::begin(connection, &source, &rows, path).map_err(|error| {
            let cannot_write = fault(&error) == DatabaseFault::Unwritable && !is_apart;
            let error = database_error(holder, error);
            if cannot_write { error.with_remedy("keep the position in another file: --state FILE") } else { error }
        })?;
        let version = data_version(&source).map_err(on_error)?;
        let Start { names, position, named, passed, last_row, last_sent, missed } = start;
        let (file, options) = (DatabaseFile::at(path), options.clone());
        let mut outbox = Self {
            options,
            source,
            file,
            state,
            rows,
            names,
            position,
            named,
            scanned: position,
            read: VecDeque::new(),
            given_up: HashSet::new(),
            last_sent,
            last_row,
            passed,
            version,
            look_below: Some(Instant::now() + LOOK_BELOW),
            _lock: lock,
        };
        outbox.say_missed(missed);
        Ok(outbox)
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
        let version = data_version(&self.source).map_err(|e| problem(&e))?;
        let is_changed = std::mem::replace(&mut self.version, version) != version;
        if is_changed {
            let at_position = self.rows.digest(&self.source, self.position).map_err(|e| problem(&e))?;
            if state::is_another(self.last_row.as_deref(), at_position.as_deref()) {
                let detail = format!("row {} is not the one that was forwarded", self.position);
                return Err(Problem {
                    remedy: Some("start again: all its rows are forwarded".into()),
                    ..conflict(&detail)
                });
            }
        }
        if read.events.is_empty() {
            self.look_below(is_changed).map_err(|e| problem(&e))?;
        }
        if let Some(last) = read.events.last().map(|event| event.position)
            && last > self.named
        {
            let sql = "UPDATE catchment_forward SET named = max(named, ?2) WHERE source = ?1";
            self.execute(sql, params![self.options.table, last])?;
            self.named = last;
        }
        self.scanned = after.max(read.scanned);
        self.read.extend(read.events.iter().map(|event| event.position));
        Ok(read.events)
    }

    /// Notes that all rows up to this one are in the stream, or given up.
    pub fn done_through(&mut self, position: u64) -> Result<(), Problem> {
        self.must_be_the_same()?;
        let done = self.read.partition_point(|id| *id <= position);
        let sent: Vec<u64> = self.read.range(..done).copied().filter(|id| !self.given_up.contains(id)).collect();
        let last_row = self.rows.digest(&self.source, position).map_err(|e| problem(&e))?;
        let passed = self.mark(position, &sent, done as u64, last_row.as_deref()).map_err(|e| problem(&e))?;
        (self.position, self.passed, self.last_row) = (position, passed, last_row);
        self.last_sent = sent.last().copied().filter(|last| *last == position);
        for id in self.read.drain(..done) {
            self.given_up.remove(&id);
        }
        Ok(())
    }

    /// Writes the position. Deletes the rows that were sent, and no others, in the same transaction; but not the one at the position, whose id
    /// would be used again. Returns how many rows up to the position are known.
    fn mark(&self, position: u64, sent: &[u64], done: u64, last_row: Option<&str>) -> rusqlite::Result<u64> {
        let table = &self.options.table;
        let connection = self.state.as_ref().unwrap_or(&self.source);
        let transaction = Transaction::new_unchecked(connection, TransactionBehavior::Immediate)?;
        let mut passed = self.passed + done;
        if self.options.deletes && self.state.is_none() {
            for id in self.last_sent.iter().chain(sent).filter(|id| **id < position) {
                passed = passed.saturating_sub(self.rows.delete(&transaction, *id)?);
            }
        }
        let sql =
            "UPDATE catchment_forward SET position = max(position, ?2), forwarded = forwarded + ?3 WHERE source = ?1";
        transaction.prepare_cached(sql)?.execute(params![table, position, sent.len() as u64])?;
        let sql = "UPDATE catchment_forward_checks SET passed = ?2, last_row = ?3 WHERE source = ?1";
        transaction.prepare_cached(sql)?.execute(params![table, passed, last_row])?;
        transaction.commit()?;
        Ok(passed)
    }

    /// Looks for rows that appeared below the position, from time to time, and says so once.
    fn look_below(&mut self, is_changed: bool) -> rusqlite::Result<()> {
        let Some(at) = self.look_below.filter(|_| is_changed) else { return Ok(()) };
        let began = Instant::now();
        if began < at {
            // A later look finds the change.
            self.version -= 1;
            return Ok(());
        }
        let below = self.rows.below(&self.source, self.position)?;
        self.look_below = Some(Instant::now() + LOOK_BELOW.max(20 * began.elapsed()));
        self.say_missed(below.saturating_sub(self.passed));
        Ok(())
    }

    fn say_missed(&mut self, missed: u64) {
        if missed > 0 && self.look_below.take().is_some() {
            let (path, table, position) = (self.options.path.display(), &self.options.table, self.position);
            log::warn!(
                event = "forward.missed", database:% = path, table:% = table, position = position, rows = missed;
                "database {path}: table {table} has {} with an id up to {position} that appeared after later rows were forwarded: not forwarded; \
                 ids have to be positive and to ascend in the order of the commits",
                crate::counted(missed, "row")
            );
        }
    }

    /// Notes that these rows cannot be published, each for its reason. They stay in their table.
    pub fn give_up(&mut self, rows: &[(u64, String)]) -> Result<(), Problem> {
        let connection = self.state.as_ref().unwrap_or(&self.source);
        let given_up = || -> rusqlite::Result<()> {
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
            Ok(())
        };
        given_up().map_err(|e| problem(&e))?;
        self.given_up.extend(rows.iter().map(|(id, _)| *id));
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
            Some(state) => {
                must_be_a_path(state)?;
                let connection = connect(state, false).map_err(|e| database_error(state, e))?;
                state::must_be_of(&connection, state, path, rows.table())?;
                Some(connection)
            }
            None => None,
        };
        let of_state = if options.state.is_some() { state.as_ref() } else { Some(&source) };
        let read = || -> rusqlite::Result<OutboxStatus> {
            let (position, forwarded, given_up) = match of_state {
                Some(state) if super::schema::has_table(state, "catchment_forward")? => {
                    let sql = "SELECT position, forwarded, given_up FROM catchment_forward WHERE source = ?";
                    let row = state.query_row(sql, [rows.table()], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)));
                    row.optional()?.unwrap_or_default()
                }
                _ => (0, 0, 0),
            };
            let waiting = rows.count(&source, position, i64::MAX.unsigned_abs())?;
            let oldest_us = rows.read(&source, position, 1, 1)?.events.first().map(|event| event.recorded_us);
            let oldest_us = oldest_us.filter(|_| rows.has_time());
            let passed = match of_state {
                Some(state) => state::passed(state, rows.table())?,
                None => None,
            };
            let below = rows.below(&source, position)?;
            let missed = if position == 0 { below } else { passed.map_or(0, |passed| below.saturating_sub(passed)) };
            Ok(OutboxStatus { position, waiting, forwarded, given_up, missed, oldest_us })
        };
        read().map_err(on_error)
    }
}

fn conflict(detail: &str) -> Problem {
    Problem::new(DatabaseFault::Conflict, detail)
}

/// Refuses a name that SQLite would not take as a file.
fn must_be_a_path(state: &Path) -> Result<(), Error> {
    validate_database_path(state).map_err(|_| {
        let detail = format!("{} is no path of a file", state.display());
        Error::config("state", detail)
            .with_remedy(format!("give a path (./{} for a file of this name)", state.display()))
    })
}

/// A number that differs once another connection has changed the database.
fn data_version(connection: &Connection) -> rusqlite::Result<i64> {
    connection.pragma_query_value(None, "data_version", |row| row.get(0))
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

#[cfg(test)]
mod tests;
