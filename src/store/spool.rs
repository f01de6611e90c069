//! A spool: a file that keeps events until they are in a stream.
//!
//! An event has a position in the file, and the name of the start that took it. Its number is its distance from the first event of that
//! start. Positions of events that are in the file never change, so an event is sent again under the same name and number, also from a
//! copy of the file. Each start draws a new name for new events, so no two events ever have the same name and number.
//!
//! Events are inserted with `synchronous = FULL`: a commit is on the disk. They are removed with `NORMAL`: a power cut may bring some
//! back, and they are sent again.

mod file;
mod inspection;
mod reader;
mod sink;

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::{Mutex, MutexGuard};
use rusqlite::{Connection, Transaction, TransactionBehavior, params};

pub use inspection::{SpoolInspection, SpoolPart};
pub use reader::SpoolReader;
pub use sink::SpoolSink;

use super::checkpointer::Checkpointer;
use super::columns::now_us;
use super::database_file::DatabaseFile;
use super::pool::ConnectionManager;
use super::sqlite_error::{database_error, problem};
use crate::config::DatabaseConfig;
use crate::error::{DatabaseFault, Error};
use crate::event_id::{NameRange, draw_name};
use crate::pipeline::Problem;

/// So many free pages stay in the file for the next events: 4 MiB.
const SPARE_PAGES: u32 = 1_024;

/// So many pages are given back at a time: commits wait meanwhile.
const PAGES_AT_A_TIME: u32 = 512;

/// What is in a spool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SpoolTotals {
    /// Events that are not in the stream yet, as far as it is known.
    pub events: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Events that were forwarded, since the file was made.
    pub forwarded: u64,
    /// Events that were dropped to make room, since the file was made.
    pub dropped: u64,
    /// Events that could not be forwarded and are kept as dead letters.
    pub dead_letters: u64,
}

/// What a change of a spool leads to.
#[derive(Clone, Copy, Debug)]
pub struct SpoolChange {
    /// What is in it now.
    pub totals: SpoolTotals,
    /// The last event that was dropped to make room, if this change dropped any.
    pub dropped_through: Option<u64>,
}

/// The most that a spool may keep. Beyond that it drops its oldest events.
#[derive(Clone, Copy, Debug)]
pub struct SpoolLimits {
    /// Events.
    pub events: u64,
    /// Bytes.
    pub bytes: u64,
}

/// Called after each change, in the order of the changes.
type OnSpoolChange = dyn Fn(SpoolChange) + Send + Sync;

/// An open spool. Clones share it.
#[derive(Clone)]
pub struct Spool {
    shared: Arc<Shared>,
    names: Arc<[NameRange]>,
    /// Where the damaged spool is that was at this place.
    moved_to: Option<Arc<Path>>,
}

struct Shared {
    file: DatabaseFile,
    manager: ConnectionManager,
    checkpointer: Checkpointer,
    /// The connection that writes. `None` after an error that leaves its state unclear.
    writer: Mutex<Option<Connection>>,
    /// The last error was that the disk is full.
    was_full: AtomicBool,
    on_change: Box<OnSpoolChange>,
}

impl fmt::Debug for Spool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Spool").field("file", &self.shared.file).finish_non_exhaustive()
    }
}

impl Spool {
    /// Opens the file, and makes it if it is missing. A damaged spool is moved aside whole, with a warning, and a new one is made. The
    /// caller holds the [lock](super::Lock::take_spool).
    ///
    /// # Errors
    ///
    /// [`Error::Database`]: it cannot be opened or written, or is something else than a spool.
    pub fn open(
        config: &DatabaseConfig,
        on_change: impl Fn(SpoolChange) + Send + Sync + 'static,
    ) -> Result<(Self, SpoolTotals), Error> {
        let path = &config.path;
        let moved_to = file::make(config)?.map(Into::into);
        let on_error = |e| database_error(path, e);
        let manager = ConnectionManager::new(config, 0);
        let connection = counted(&manager).map_err(on_error)?;
        let (names, totals) = begin(&connection).map_err(on_error)?;
        let file = DatabaseFile::at(path);
        let checkpointer = Checkpointer::small(manager.clone(), file.clone());
        let writer = Mutex::new(Some(connection));
        let (was_full, on_change) = (AtomicBool::new(false), Box::new(on_change));
        let shared = Shared { file, manager, checkpointer, writer, was_full, on_change };
        Ok((Self { shared: Arc::new(shared), names: names.into(), moved_to }, totals))
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.shared.file.path()
    }

    /// Where the damaged spool is that was at this place when it was opened.
    #[must_use]
    pub fn moved_to(&self) -> Option<&Path> {
        self.moved_to.as_deref()
    }

    /// The names of the starts whose events are in the file, and at last the name of this one.
    pub(crate) fn names(&self) -> Vec<NameRange> {
        self.names.to_vec()
    }

    /// The position of the first event that this start takes.
    #[must_use]
    pub fn first(&self) -> u64 {
        self.names.last().map_or(1, |name| name.first)
    }

    /// Reads the file's events.
    #[must_use]
    pub fn reader(&self) -> SpoolReader {
        SpoolReader::new(self.shared.file.clone(), self.shared.manager.clone())
    }

    /// Removes all events up to this position: they are in the stream.
    pub fn remove_through(&self, position: u64) -> Result<(), Problem> {
        let sql = "DELETE FROM catchment_spool_events WHERE position <= ? RETURNING size";
        self.change("NORMAL", |transaction| {
            let mut removed = Sum::default();
            let mut statement = transaction.prepare_cached(sql)?;
            let mut rows = statement.query([position])?;
            while let Some(row) = rows.next()? {
                removed.add(row.get(0)?);
            }
            transaction
                .prepare_cached(
                    "UPDATE catchment_spool SET events = events - ?1, bytes = bytes - ?2, forwarded = forwarded + ?1",
                )?
                .execute(params![removed.events, removed.bytes])?;
            Ok(None)
        })
    }

    /// Moves these events to the dead letters, each for its reason.
    pub fn give_up(&self, given_up: &[(u64, String)]) -> Result<(), Problem> {
        self.change("FULL", |transaction| {
            let mut moved = Sum::default();
            for (position, error) in given_up {
                let sql = "INSERT INTO catchment_spool_dead_letters(
                               name, number, recorded_us, size, subject, headers, payload, error, given_up_us
                           )
                           SELECT name, position - first, recorded_us, size, subject, headers, payload, ?2, ?3
                           FROM catchment_spool_events, (
                               SELECT name, first FROM catchment_spool_names WHERE first <= ?1 ORDER BY first DESC LIMIT 1
                           )
                           WHERE position = ?1";
                transaction.prepare_cached(sql)?.execute(params![position, error, now_us()])?;
                let sql = "DELETE FROM catchment_spool_events WHERE position = ? RETURNING size";
                let mut statement = transaction.prepare_cached(sql)?;
                let mut rows = statement.query([position])?;
                while let Some(row) = rows.next()? {
                    moved.add(row.get(0)?);
                }
            }
            transaction
                .prepare_cached(
                    "UPDATE catchment_spool
                     SET events = events - ?1, bytes = bytes - ?2, dead_letters = dead_letters + ?1",
                )?
                .execute(params![moved.events, moved.bytes])?;
            Ok(None)
        })
    }

    /// Puts the dead letters back into the spool, before the events of this start: call it before the first is committed. They get the
    /// name of this start, so open the spool again to record. Returns how many there were.
    ///
    /// # Errors
    ///
    /// [`Error::Database`]. Nothing is changed then.
    pub fn retry_dead_letters(&self) -> Result<u64, Error> {
        let mut retried = 0;
        let moved = self.change("FULL", |transaction| {
            let sql = "INSERT INTO catchment_spool_events(position, recorded_us, size, subject, headers, payload)
                       SELECT ?1 - 1 + row_number() OVER (ORDER BY id), recorded_us, size, subject, headers, payload
                       FROM catchment_spool_dead_letters";
            retried = transaction.execute(sql, [self.first()])? as u64;
            transaction.execute(
                "UPDATE catchment_spool SET events = events + ?1, dead_letters = 0,
                     bytes = bytes + coalesce((SELECT sum(size) FROM catchment_spool_dead_letters), 0)",
                [retried],
            )?;
            transaction.execute("DELETE FROM catchment_spool_dead_letters", [])?;
            Ok(None)
        });
        let path = self.path();
        moved.map_err(|Problem { fault, detail, remedy }| Error::Database {
            fault,
            path: path.to_owned(),
            detail,
            remedy,
            source: None,
        })?;
        Ok(retried)
    }

    /// Gives some free pages back to the file system. Returns whether there are more.
    pub fn shrink(&self) -> Result<bool, Problem> {
        let mut writer = self.writer()?;
        self.with(&mut writer, |connection| {
            let free: u32 = connection.query_row("PRAGMA freelist_count", [], |row| row.get(0))?;
            let surplus = free.saturating_sub(SPARE_PAGES).min(PAGES_AT_A_TIME);
            if surplus == 0 {
                return Ok(false);
            }
            connection.pragma_update(None, "synchronous", "NORMAL")?;
            // It gives a page back with each step.
            let mut statement = connection.prepare(&format!("PRAGMA incremental_vacuum({surplus})"))?;
            let mut rows = statement.query([])?;
            while rows.next()?.is_some() {}
            Ok(free - surplus > SPARE_PAGES)
        })
    }

    /// Runs a transaction, and reports what is in the spool after it.
    fn change(
        &self,
        synchronous: &'static str,
        work: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<Option<u64>>,
    ) -> Result<(), Problem> {
        let mut writer = self.writer()?;
        let change = self.with(&mut writer, |connection| {
            // No effect within a transaction.
            connection.pragma_update(None, "synchronous", synchronous)?;
            let transaction = Transaction::new_unchecked(connection, TransactionBehavior::Immediate)?;
            let dropped_through = work(&transaction)?;
            let totals = totals(&transaction)?;
            transaction.commit()?;
            Ok(SpoolChange { totals, dropped_through })
        })?;
        // While the writer is locked: the order of reports is that of the changes.
        (self.shared.on_change)(change);
        Ok(())
    }

    fn with<T>(
        &self,
        writer: &mut MutexGuard<'_, Option<Connection>>,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, Problem> {
        let Some(connection) = writer.as_ref() else {
            return Err(Problem::new(DatabaseFault::Other, "no connection"));
        };
        match work(connection) {
            Ok(done) => {
                self.shared.checkpointer.committed(connection);
                Ok(done)
            }
            Err(error) => {
                // After an I/O error, corruption or a full disk, the connection's memory may not match the file.
                **writer = None;
                let problem = problem(&error);
                self.shared.was_full.store(problem.fault == DatabaseFault::Full, Ordering::Relaxed);
                Err(problem)
            }
        }
    }

    /// The connection that writes.
    fn writer(&self) -> Result<MutexGuard<'_, Option<Connection>>, Problem> {
        let mut writer = self.shared.writer.lock();
        if writer.is_none() {
            if self.shared.file.was_replaced() {
                let detail = "the file was moved, removed or replaced while it was in use";
                return Err(Problem::new(DatabaseFault::Conflict, detail));
            }
            let connection = counted(&self.shared.manager).map_err(|e| problem(&e))?;
            if self.shared.was_full.swap(false, Ordering::Relaxed) {
                // The log may take the room that is left. Where this fails, the next attempt to write shows what is wrong.
                let _ = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
            }
            *writer = Some(connection);
        }
        Ok(writer)
    }
}

fn counted(manager: &ConnectionManager) -> rusqlite::Result<Connection> {
    let connection = manager.open_plain()?;
    super::wal_frames::count(&connection);
    Ok(connection)
}

/// A number of events and their bytes.
#[derive(Default)]
struct Sum {
    events: u64,
    bytes: u64,
}

impl Sum {
    fn add(&mut self, size: u64) {
        self.events += 1;
        self.bytes += size;
    }
}

/// Draws a name for this start, and forgets those whose events are gone.
fn begin(connection: &Connection) -> rusqlite::Result<(Vec<NameRange>, SpoolTotals)> {
    let transaction = Transaction::new_unchecked(connection, TransactionBehavior::Immediate)?;
    let sql = "INSERT INTO catchment_spool_names(first, name, started_us)
               SELECT max(
                   coalesce((SELECT max(position) FROM catchment_spool_events), 0),
                   coalesce((SELECT max(first) FROM catchment_spool_names), 0)
               ) + 1, ?, ?";
    transaction.execute(sql, params![draw_name(), now_us()])?;
    let sql = "DELETE FROM catchment_spool_names
               WHERE first < (SELECT max(first) FROM catchment_spool_names)
                 AND NOT EXISTS (
                     SELECT 1 FROM catchment_spool_events
                     WHERE position >= catchment_spool_names.first AND position < (
                         SELECT min(next.first) FROM catchment_spool_names AS next
                         WHERE next.first > catchment_spool_names.first
                     )
                 )";
    transaction.execute(sql, [])?;
    let range = |row: &rusqlite::Row<'_>| Ok(NameRange { first: row.get(0)?, name: row.get(1)? });
    let sql = "SELECT first, name FROM catchment_spool_names ORDER BY first";
    let names = transaction.prepare(sql)?.query_map([], range)?.collect::<rusqlite::Result<_>>()?;
    let totals = totals(&transaction)?;
    transaction.commit()?;
    Ok((names, totals))
}

fn totals(connection: &Connection) -> rusqlite::Result<SpoolTotals> {
    let sql = "SELECT events, bytes, forwarded, dropped, dead_letters FROM catchment_spool";
    connection.prepare_cached(sql)?.query_row([], |row| {
        Ok(SpoolTotals {
            events: row.get(0)?,
            bytes: row.get(1)?,
            forwarded: row.get(2)?,
            dropped: row.get(3)?,
            dead_letters: row.get(4)?,
        })
    })
}

#[cfg(test)]
mod tests;
