//! A table of another program whose rows are published: the outbox pattern. Where the publishing is, is in tables of catchment's own, in the
//! same database or in a file of their own.
//!
//! The number of a row's event is its distance from the first row of its name. A start draws a name for the rows that have none. Before a
//! row is sent, it is written down that it has this name. So a row that is sent again has the same name and number, and a row that was
//! added after a backup was restored has a name that no other row had.

mod history;
mod rows;
mod state;
mod status;

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rusqlite::{Connection, OpenFlags, Transaction, TransactionBehavior, params};

use super::database_file::{DatabaseFile, must_exist, must_have_one_name};
use super::file_beside;
use super::lock::Lock;
use super::sqlite_error::{database_error, fault, problem};
use super::stored_event::{FirstRefusal, GivenUp, StoredEvent};
use crate::config::validate_database_path;
use crate::error::{DatabaseFault, Error};
use crate::event_id::NameRange;
use crate::pipeline::Problem;
use crate::unix_time::now_us;
use history::{History, Known, Verdict};
use rows::{Read, Rows};
use state::Start;
pub use status::OutboxStatus;

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
    /// Those of them that were given up, or deleted before they were sent.
    unsent: HashSet<u64>,
    /// The row at the position, if it was forwarded: it is deleted once it is not the last.
    last_sent: Option<u64>,
    /// By what the table is recognised.
    history: History,
    /// Rows that the server refused in earlier starts.
    refused: HashMap<u64, FirstRefusal>,
    /// So many rows up to the position are known.
    passed: u64,
    /// The state of the source at the last look: <https://sqlite.org/pragma.html#pragma_data_version>.
    version: i64,
    /// The source has changed since the last look for rows below the position, and for changed ones among those that are refused.
    changed: (bool, bool),
    /// When the rows that are refused were looked at.
    looked_at: Option<Instant>,
    /// Its schema at the last look.
    schema: i64,
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
                Error::Locked { what: "outbox", path: holder.clone(), holder: process, is_own }
            }
            error => error,
        })?;
        let state = match &options.state {
            Some(state) => {
                let connection = connect_or_make(state).map_err(|e| of_state(database_error(state, e)))?;
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
        let Start { names, position, named, passed, history, refused, last_sent, missed } = start;
        let schema = state::schema_version(&source).map_err(on_error)?;
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
            unsent: HashSet::new(),
            last_sent,
            history,
            refused,
            passed,
            version,
            changed: (false, false),
            looked_at: None,
            schema,
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

    /// The rows that the server refused in earlier starts.
    pub(crate) fn refused(&self) -> HashMap<u64, FirstRefusal> {
        self.refused.clone()
    }

    /// The rows after this one that are events, in order: at most so many, and no more after so many bytes.
    pub fn after(&mut self, position: u64, events: usize, bytes: usize) -> Result<Vec<StoredEvent>, Problem> {
        self.file.must_be_the_same()?;
        self.follow_schema()?;
        let after = position.max(self.scanned);
        let read = self.look(after, events, bytes)?;
        if read.events.is_empty() {
            self.look_below().map_err(|e| problem(&e))?;
        }
        if let Some(last) = read.events.last().map(|event| event.position)
            && last > self.named
        {
            let sql = "UPDATE catchment_forward SET named = ?2 WHERE source = ?1 AND position = ?3 AND named = ?4";
            let values = params![self.options.table, last, self.position, self.named];
            must_be_ours(self.state().prepare_cached(sql).and_then(|mut statement| statement.execute(values)))?;
            self.named = last;
        }
        self.scanned = after.max(read.scanned);
        self.read.extend(read.events.iter().map(|event| event.position));
        Ok(read.events)
    }

    /// Reads rows, and looks whether the table is still the same, in one view of the database.
    fn look(&mut self, after: u64, events: usize, bytes: usize) -> Result<Read, Problem> {
        let on_error = |e: rusqlite::Error| problem(&e);
        let transaction = Transaction::new_unchecked(&self.source, TransactionBehavior::Deferred).map_err(on_error)?;
        // With columns that were added a moment ago, rows are read at the next look.
        if state::schema_version(&transaction).map_err(on_error)? != self.schema {
            return Ok(Read { events: Vec::new(), scanned: after });
        }
        let read = self.rows.read(&transaction, after, events, bytes).map_err(on_error)?;
        let version = data_version(&transaction).map_err(on_error)?;
        let is_changed = version != self.version;
        let found = if is_changed {
            let known = Known { position: self.position, named: self.named, is_same_schema: true };
            self.history.verdict(&transaction, &self.rows, &known).map_err(on_error)?
        } else {
            Verdict::Same
        };
        let refreshed = match &found {
            Verdict::Changed(ids) => self.history.clone().refreshed(&transaction, &self.rows, ids).map_err(on_error)?,
            _ => self.history.clone(),
        };
        transaction.commit().map_err(on_error)?;
        if is_changed {
            let position = state::position(self.state(), &self.options.table).map_err(on_error)?;
            must_be_ours(Ok(usize::from(position == Some((self.position, self.named)))))?;
            (self.version, self.changed) = (version, (true, true));
        }
        match found {
            Verdict::Same => Ok(read),
            Verdict::Changed(ids) => {
                state::log_changed(self.path(), &self.options.table, &ids);
                self.last_sent = self.last_sent.filter(|id| !ids.contains(id));
                self.history = refreshed;
                Ok(read)
            }
            Verdict::Shortened(last) => {
                let detail = format!(
                    "table {} was cut after row {last}, and row {} was read already",
                    self.options.table, self.named
                );
                Err(Problem {
                    remedy: Some(format!("start again: rows after {last} are taken for new ones")),
                    ..conflict(&detail)
                })
            }
            Verdict::Restarted(why) => {
                let detail = format!(
                    "its rows are numbered from the start again: {why}; keep the last row when you delete rows"
                );
                Err(Problem { remedy: Some("start again: all its rows are forwarded".into()), ..conflict(&detail) })
            }
        }
    }

    /// Uses columns that were added, and says which are missing.
    fn follow_schema(&mut self) -> Result<(), Problem> {
        let schema = state::schema_version(&self.source).map_err(|e| problem(&e))?;
        if schema != self.schema {
            self.rows =
                Rows::of(&self.options.path, &self.source, &self.options.table).map_err(|error| match error {
                    Error::Database { fault, detail, remedy, .. } => Problem { fault, detail, remedy },
                    other => Problem::new(DatabaseFault::Other, other.to_string()),
                })?;
            self.schema = schema;
        }
        Ok(())
    }

    /// Those of these rows, which were read before, as they are now, if the database has changed; `None` for one that is gone.
    pub fn changed(&mut self, ids: &BTreeSet<u64>) -> Result<Vec<(u64, Option<StoredEvent>)>, Problem> {
        /// More rows are looked at once a second, however often the database changes.
        const FEW: usize = 100;
        const PAUSE: Duration = Duration::from_secs(1);
        let version = data_version(&self.source).map_err(|e| problem(&e))?;
        let is_due = ids.len() <= FEW || self.looked_at.is_none_or(|at| at.elapsed() >= PAUSE);
        if !is_due || (version == self.version && !self.changed.1) {
            return Ok(Vec::new());
        }
        self.changed.1 = version != self.version;
        self.looked_at = Some(Instant::now());
        let mut found = Vec::new();
        for id in ids {
            let event = self.rows.at(&self.source, *id).map_err(|e| problem(&e))?;
            if event.is_none() {
                self.unsent.insert(*id);
            }
            found.push((*id, event));
        }
        Ok(found)
    }

    /// Notes that all rows up to this one are in the stream, or given up.
    pub fn done_through(&mut self, position: u64) -> Result<(), Problem> {
        self.file.must_be_the_same()?;
        let done = self.read.partition_point(|id| *id <= position);
        let ids: Vec<u64> = self.read.range(..done).copied().collect();
        let sent: Vec<u64> = ids.iter().copied().filter(|id| !self.unsent.contains(id)).collect();
        let (passed, history) = self.mark(position, &sent, &ids)?;
        (self.position, self.passed, self.history) = (position, passed, history);
        self.last_sent = sent.last().copied().filter(|last| *last == position);
        for id in self.read.drain(..done) {
            self.unsent.remove(&id);
        }
        Ok(())
    }

    /// Writes the position. Deletes the rows that were sent, and no others, in the same transaction; but not the one at the position, whose id
    /// would be used again. Returns how many rows up to the position are known, and by what the table is recognised.
    fn mark(&self, position: u64, sent: &[u64], done: &[u64]) -> Result<(u64, History), Problem> {
        let on_error = |e: rusqlite::Error| problem(&e);
        let table = &self.options.table;
        let transaction = Transaction::new_unchecked(self.state(), TransactionBehavior::Immediate).map_err(on_error)?;
        let sql = "UPDATE catchment_forward SET position = ?2, forwarded = forwarded + ?3
                   WHERE source = ?1 AND position = ?4 AND named = ?5";
        let values = params![table, position, sent.len() as u64, self.position, self.named];
        must_be_ours(transaction.prepare_cached(sql).and_then(|mut statement| statement.execute(values)))?;
        let write = || -> rusqlite::Result<(u64, History)> {
            let mut passed = self.passed + done.len() as u64;
            if self.options.deletes && self.state.is_none() {
                for id in self.last_sent.iter().chain(sent).filter(|id| **id < position) {
                    passed = passed.saturating_sub(self.rows.delete(&transaction, *id)?);
                }
            }
            // Those that were deleted are left out.
            let history = self.history.with(&self.source, &self.rows, done)?;
            let sql = "UPDATE catchment_forward_checks SET passed = ?2 WHERE source = ?1";
            transaction.prepare_cached(sql)?.execute(params![table, passed])?;
            let sql = "UPDATE catchment_forward_history SET samples = ?2, schema_version = ?3 WHERE source = ?1";
            transaction.prepare_cached(sql)?.execute(params![table, history.text(), self.schema])?;
            let sql = "DELETE FROM catchment_forward_refusals WHERE source = ?1 AND id <= ?2";
            transaction.prepare_cached(sql)?.execute(params![table, position])?;
            Ok((passed, history))
        };
        let written = write().map_err(on_error)?;
        transaction.commit().map_err(on_error)?;
        Ok(written)
    }

    /// The connection to the position.
    fn state(&self) -> &Connection {
        self.state.as_ref().unwrap_or(&self.source)
    }

    /// Looks for rows that appeared below the position, from time to time, and says so once.
    fn look_below(&mut self) -> rusqlite::Result<()> {
        let began = Instant::now();
        let is_due = self.look_below.is_some_and(|at| began >= at) && std::mem::take(&mut self.changed.0);
        if is_due {
            let below = self.rows.below(&self.source, self.position)?;
            self.look_below = Some(Instant::now() + LOOK_BELOW.max(20 * began.elapsed()));
            self.say_missed(below.saturating_sub(self.passed));
        }
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
    pub fn give_up(&mut self, rows: &[GivenUp]) -> Result<(), Problem> {
        let given_up = || -> rusqlite::Result<()> {
            let transaction = Transaction::new_unchecked(self.state(), TransactionBehavior::Immediate)?;
            let mut added = 0;
            for GivenUp { position: id, reason: error, .. } in rows {
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
        self.unsent.extend(rows.iter().map(|row| row.position));
        Ok(())
    }

    /// Notes that these rows were refused for the first time now, and whether others were stored since the last call.
    pub fn note_refused(&mut self, ids: &[u64], others_stored: bool) -> Result<(), Problem> {
        let table = &self.options.table;
        let note = || -> rusqlite::Result<()> {
            let transaction = Transaction::new_unchecked(self.state(), TransactionBehavior::Immediate)?;
            let sql = "INSERT OR REPLACE INTO catchment_forward_refusals(source, id, since_us, others_stored)
                       VALUES (?1, ?2, ?3, 0)";
            for id in ids {
                transaction.prepare_cached(sql)?.execute(params![table, id, now_us()])?;
            }
            if others_stored {
                let sql = "UPDATE catchment_forward_refusals SET others_stored = 1 WHERE source = ?";
                transaction.execute(sql, [table])?;
            }
            transaction.commit()
        };
        note().map_err(|e| problem(&e))
    }
}

fn conflict(detail: &str) -> Problem {
    Problem::new(DatabaseFault::Conflict, detail)
}

/// Whether the position was changed, as this process left it: that of a restored database, for instance, is not to be overwritten.
fn must_be_ours(changed: rusqlite::Result<usize>) -> Result<(), Problem> {
    match changed.map_err(|e| problem(&e))? {
        0 => {
            let detail = "the position in it was changed while rows were forwarded: it was restored, or another program writes it";
            Err(Problem { remedy: Some("start again".into()), ..conflict(detail) })
        }
        _ => Ok(()),
    }
}

/// Refuses a name that SQLite would not take as a file.
fn must_be_a_path(state: &Path) -> Result<(), Error> {
    validate_database_path(state).map_err(|_| {
        let detail = format!("{} is no path of a file", state.display());
        Error::config("state", detail)
            .with_remedy(format!("give a path (./{} for a file of this name)", state.display()))
    })
}

/// The error with a way out that fits a state file.
fn of_state(error: Error) -> Error {
    match &error {
        Error::Database { fault: DatabaseFault::Corrupt, .. } => error.with_remedy("give --state another file"),
        _ => error,
    }
}

/// A number that differs once another connection has changed the database.
fn data_version(connection: &Connection) -> rusqlite::Result<i64> {
    connection.pragma_query_value(None, "data_version", |row| row.get(0))
}

/// The file beside which the lock is: `<database>.forward`, and with the name of the table if that is not `events`.
fn lock_name(path: &Path, table: &str) -> PathBuf {
    let ending = if table == "events" { ".forward".to_owned() } else { format!(".forward-{table}") };
    file_beside(path, &ending)
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
