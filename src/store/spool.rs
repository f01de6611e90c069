//! A spool: a file that keeps events until they are in a stream.
//!
//! An event has a position in the file, and the name of the start that took it. Its number is its distance from the first event of that
//! start. Positions never change and are never used again, so an event is sent again under the same name and number, also from a copy of
//! the file. Each start draws a new name for new events, so no two events ever have the same name and number.
//!
//! Events are inserted with `synchronous = FULL`: a commit is on the disk. They are removed with `NORMAL`: a power cut may bring some
//! back, and they are sent again.

mod file;
mod inspection;
mod pages;
mod reader;
mod refusals;
mod reserve;
mod retry;
mod sink;
mod starts;
mod totals;

use std::collections::HashMap;
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::{Mutex, MutexGuard};
use rusqlite::{Connection, Transaction, TransactionBehavior, params};

pub use inspection::{SpoolInspection, SpoolPart};
pub use reader::SpoolReader;
pub use retry::RetriedLetters;
pub use sink::SpoolSink;
pub use totals::SpoolTotals;

use super::checkpointer::Checkpointer;
use super::database_file::DatabaseFile;
use super::pool::ConnectionManager;
use super::sqlite_error::{database_error, of_spool, problem};
use super::stored_event::{FirstRefusal, GivenUp};
use crate::config::DatabaseConfig;
use crate::error::{DatabaseFault, Error};
use crate::event_id::NameRange;
use crate::pipeline::Problem;
use crate::unix_time::now_us;
use reserve::Reserve;
use totals::totals;

/// So many free pages stay in the file for the next events: 4 MiB.
const SPARE_PAGES: u32 = 1_024;

/// So many pages are given back at a time: commits wait meanwhile.
const PAGES_AT_A_TIME: u32 = 512;

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
    /// Room for forwarding while the disk is full.
    reserve: Reserve,
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
        let on_error = |e| of_spool(database_error(path, e));
        let reserve = Reserve::beside(path, config.permissions);
        let manager = ConnectionManager::new(config, 0);
        let mut moved_to = None;
        let mut start = || {
            if let Some(aside) = file::make(config).map_err(of_spool)? {
                moved_to = Some(aside.into());
            }
            let connection = counted(&manager).map_err(on_error)?;
            let (names, totals) = starts::begin(&connection, path).map_err(on_error)?;
            Ok((connection, names, totals))
        };
        let (connection, names, totals) = match start() {
            // On a full disk, there is no room even for the files -wal and -shm.
            Err(Error::Database { .. }) if reserve.is_disk_full() && reserve.release() => start()?,
            started => started?,
        };
        reserve.keep();
        let file = DatabaseFile::at(path);
        let checkpointer = Checkpointer::small(manager.clone(), file.clone());
        let writer = Mutex::new(Some(connection));
        let (was_full, on_change) = (AtomicBool::new(false), Box::new(on_change));
        let shared = Shared { file, manager, checkpointer, writer, was_full, reserve, on_change };
        Ok((Self { shared: Arc::new(shared), names: names.into(), moved_to }, totals))
    }

    /// Refuses a path where no file is.
    ///
    /// # Errors
    ///
    /// [`Error::Database`].
    pub fn must_exist(path: &Path) -> Result<(), Error> {
        super::database_file::must_exist(path).map_err(of_spool)
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
        self.remove(&[(0, position)])
    }

    /// Removes the events of these ranges of positions, the ends included: they are in the stream.
    pub fn remove(&self, ranges: &[(u64, u64)]) -> Result<(), Problem> {
        let sql = "DELETE FROM catchment_spool_events WHERE position BETWEEN ? AND ? RETURNING size";
        self.change_in_need("NORMAL", |transaction| {
            let mut removed = Sum::default();
            for range in ranges {
                let mut statement = transaction.prepare_cached(sql)?;
                let mut rows = statement.query(*range)?;
                while let Some(row) = rows.next()? {
                    removed.add(row.get(0)?);
                }
                refusals::forget(transaction, *range)?;
            }
            transaction
                .prepare_cached(
                    "UPDATE catchment_spool SET events = events - ?1, bytes = bytes - ?2, forwarded = forwarded + ?1",
                )?
                .execute(params![removed.events, removed.bytes])?;
            Ok(None)
        })
    }

    /// Runs a transaction of forwarding. If the disk is full, takes the room that is kept for this.
    fn change_in_need(
        &self,
        synchronous: &'static str,
        work: impl Fn(&Transaction<'_>) -> rusqlite::Result<Option<u64>>,
    ) -> Result<(), Problem> {
        let changed = match self.change(synchronous, &work) {
            Err(problem) if problem.fault == DatabaseFault::Full && self.shared.reserve.release() => {
                self.change(synchronous, &work)
            }
            changed => changed,
        };
        if changed.is_ok() && self.shared.reserve.is_released() {
            self.truncate_log();
        }
        changed
    }

    /// Copies the log into the file and gives its room back, as far as there is room for that.
    fn truncate_log(&self) {
        if let Ok(writer) = self.writer()
            && let Some(connection) = writer.as_ref()
        {
            truncate_log(connection);
        }
    }

    /// Refuses a commit of so many bytes on a disk that is full, or would be so full that events could not be removed any more.
    fn must_have_room(&self, bytes: u64) -> Result<(), Problem> {
        let reserve = &self.shared.reserve;
        let full = |detail: &str| Err(Problem::new(DatabaseFault::Full, detail));
        if reserve.is_released() && !reserve.keep() {
            return full("the disk is full: what room there is, is kept for forwarding");
        }
        if !reserve.has_room(bytes) {
            self.truncate_log();
            if !reserve.has_room(bytes) {
                return full("database or disk is full");
            }
        }
        Ok(())
    }

    /// Moves these events to the dead letters, each for its reason.
    pub fn give_up(&self, given_up: &[GivenUp]) -> Result<(), Problem> {
        let first = self.first();
        self.change_in_need("FULL", |transaction| {
            let mut moved = Sum::default();
            for GivenUp { position, reason, may_be_stored } in given_up {
                let sql = "INSERT INTO catchment_spool_dead_letters(
                               name, number, recorded_us, size, subject, headers, payload, error, given_up_us, may_be_stored
                           )
                           SELECT name, position - first, recorded_us, size, subject, headers, payload, ?2, ?3, ?4
                           FROM catchment_spool_events, (
                               SELECT name, first FROM catchment_spool_names WHERE first <= ?1 ORDER BY first DESC LIMIT 1
                           )
                           WHERE position = ?1";
                // An earlier start may have sent it.
                let may_be_stored = *may_be_stored || *position < first;
                transaction.prepare_cached(sql)?.execute(params![position, reason, now_us(), may_be_stored])?;
                let sql = "DELETE FROM catchment_spool_events WHERE position = ? RETURNING size";
                let mut statement = transaction.prepare_cached(sql)?;
                let mut rows = statement.query([position])?;
                while let Some(row) = rows.next()? {
                    moved.add(row.get(0)?);
                }
                refusals::forget(transaction, (*position, *position))?;
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

    /// Notes that these events were refused for the first time now, and whether others were stored since the last call.
    pub fn note_refused(&self, positions: &[u64], others_stored: bool) -> Result<(), Problem> {
        self.change_in_need("NORMAL", |transaction| {
            refusals::note(transaction, positions, others_stored)?;
            Ok(None)
        })
    }

    /// When events were refused, as earlier starts have noted it, by position.
    ///
    /// # Errors
    ///
    /// [`Error::Database`].
    pub fn refusals(&self) -> Result<HashMap<u64, FirstRefusal>, Error> {
        let read = || refusals::all(&self.shared.manager.open_plain()?);
        read().map_err(|e| database_error(self.path(), e))
    }

    /// Gives some free pages back to the file system. Returns whether there are more.
    pub fn shrink(&self) -> Result<bool, Problem> {
        if self.shared.reserve.is_released() {
            self.shared.reserve.keep();
        }
        let mut writer = self.writer()?;
        self.with(&mut writer, |connection| {
            let free: u32 = connection.query_row("PRAGMA freelist_count", [], |row| row.get(0))?;
            // On a full disk, others need the room more than the next events.
            let spare = if self.shared.reserve.is_released() { 0 } else { SPARE_PAGES };
            let surplus = free.saturating_sub(spare).min(PAGES_AT_A_TIME);
            if surplus == 0 {
                return Ok(false);
            }
            connection.pragma_update(None, "synchronous", "NORMAL")?;
            // It gives a page back with each step.
            let mut statement = connection.prepare(&format!("PRAGMA incremental_vacuum({surplus})"))?;
            let mut rows = statement.query([])?;
            while rows.next()?.is_some() {}
            Ok(free - surplus > spare)
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
            self.shared.file.must_be_the_same()?;
            let connection = counted(&self.shared.manager).map_err(|e| problem(&e))?;
            if self.shared.was_full.swap(false, Ordering::Relaxed) {
                // The log may take the room that is left.
                truncate_log(&connection);
            }
            *writer = Some(connection);
        }
        Ok(writer)
    }
}

/// Where this fails, the next attempt to write shows what is wrong.
fn truncate_log(connection: &Connection) {
    let _ = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
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

#[cfg(test)]
mod tests;
