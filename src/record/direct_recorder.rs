//! Recording directly into the database, without a broker.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::RwLock;

use super::grouped_commits::GroupedCommits;
use super::receipt::in_database;
use super::recorder::{DROP_TIMEOUT, Sealed, log_dropped, valid};
use super::{CommitMode, DirectRecorderConfig, FailureReason, FlushError, Receipt, RecordError, Recorder};
use crate::deadline;
use crate::error::Error;
use crate::event::Event;
use crate::pipeline::{Condition, Counter, Health, Problem, Settings};
use crate::store::{Database, EventOutcome, EventWriter, Lock, Routes};
use crate::unix_time::now_ns;

/// Writes events into a SQLite database. The rows are the same as a collector's, except that the columns `stream` and `sequence`
/// are NULL, and `published_us` is the time at which `record` was called.
///
/// Recorded means committed. How durable that is depends on `synchronous` in the settings: with `full`, the event is on the
/// disk. An event that the database's tables and triggers refuse becomes a dead letter and counts as recorded.
///
/// Share one recorder between threads, by reference or in an `Arc`. With [`CommitMode::Grouped`], the default, a file has one recorder or
/// collector at a time: a second one is refused with [`Error::Locked`], in the same program or another. Beside it, and beside each
/// other, there may be any number of recorders with [`CommitMode::PerEvent`].
///
/// Dropping the recorder commits what is in its buffer, for up to 6 seconds. To be sure that everything is committed, call
/// [`Recorder::flush`] or [`Recorder::close`].
///
/// ```no_run
/// use catchment::{DirectRecorder, Event, Recorder};
/// use std::time::Duration;
///
/// let recorder = DirectRecorder::create("events.db")?;
/// recorder.record(Event::new("events.door", "open"))?;
/// recorder.flush(Duration::from_secs(5))?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct DirectRecorder {
    write_mode: WriteMode,
    routes: Routes,
    condition: Condition,
    /// [`Recorder::close`] was called.
    is_closed: AtomicBool,
    /// With [`WriteMode::PerEvent`] only; the commit queue counts its own.
    dead_letters: Counter,
    unmatched_dropped: Counter,
}

#[derive(Debug)]
enum WriteMode {
    PerEvent(PerEvent),
    Grouped(GroupedCommits),
}

#[derive(Debug)]
struct PerEvent {
    /// Read by each call of `record`. `None` once it was closed.
    writer: RwLock<Option<Box<EventWriter>>>,
    /// Calls of `record` that have not returned.
    under_way: AtomicUsize,
}

impl DirectRecorder {
    /// Records into this file, with default settings: every event becomes a row of table `events`. Creates the file if it does not
    /// exist; its directory must exist. Blocks as [`DirectRecorder::open`] does. It may be the application's own
    /// database: catchment adds its tables (`events`, and names that begin with `catchment_`) and sets WAL mode, and changes nothing
    /// else.
    ///
    /// # Errors
    ///
    /// As [`DirectRecorder::open`].
    pub fn create(path: impl AsRef<Path>) -> Result<Self, Error> {
        Self::open(DirectRecorderConfig::new(path.as_ref()))
    }

    /// Opens the database, creates it if it does not exist, and applies new migrations. Blocks at most for a few times
    /// `database.busy_timeout`, and longer if it applies migrations.
    ///
    /// # Errors
    ///
    /// [`Error::Config`], [`Error::Database`], [`Error::Migration`] or [`Error::Thread`]. [`Error::Locked`] where a collector or
    /// another recorder with [`CommitMode::Grouped`], of this process or of another, uses the database, and this recorder is grouped
    /// too.
    pub fn open(config: DirectRecorderConfig) -> Result<Self, Error> {
        config.validate()?;
        let DirectRecorderConfig { database: database_config, batch, routes, unmatched, commit, overflow } = config;
        let routes = Routes::new(&routes, unmatched)?;
        if commit == CommitMode::PerEvent {
            let writer = Database::open(&database_config, &routes)?.event_writer();
            let writer = RwLock::new(Some(Box::new(writer)));
            let per_event = PerEvent { writer, under_way: AtomicUsize::new(0) };
            return Ok(Self::with(WriteMode::PerEvent(per_event), routes, Condition::new("database")));
        }
        Database::must_be_usable(&database_config, &routes)?;
        let lock = Lock::take(&database_config.path)?;
        let opened = Database::open(&database_config, &routes);
        let begun = opened.and_then(|database| Ok((database.begin_local()?, database.writers())));
        let (lock, (epoch, sinks)) = lock.keep_if_ok(begun)?;
        let grouped = GroupedCommits::start(epoch, sinks, &Arc::new(lock), Settings::from(&batch), overflow)?;
        let condition = grouped.condition().clone();
        Ok(Self::with(WriteMode::Grouped(grouped), routes, condition))
    }

    fn with(write_mode: WriteMode, routes: Routes, condition: Condition) -> Self {
        let (dead_letters, unmatched_dropped) = (Counter::default(), Counter::default());
        Self { write_mode, routes, condition, is_closed: AtomicBool::new(false), dead_letters, unmatched_dropped }
    }

    /// How many events became dead letters so far, since this recorder was opened. They count as recorded. Does not block.
    #[must_use]
    pub fn dead_letters(&self) -> u64 {
        match &self.write_mode {
            WriteMode::PerEvent(_) => self.dead_letters.get(),
            WriteMode::Grouped(grouped) => grouped.queue().dead_letters(),
        }
    }

    /// How many events were dropped so far: no route takes them and `unmatched` is `drop`, or they are delete markers that no route
    /// takes. They count as recorded. Does not block.
    #[must_use]
    pub fn unmatched_dropped(&self) -> u64 {
        match &self.write_mode {
            WriteMode::PerEvent(_) => self.unmatched_dropped.get(),
            WriteMode::Grouped(grouped) => grouped.queue().unmatched_dropped(),
        }
    }

    fn end(&self, timeout: Duration) -> Result<(), FlushError> {
        self.is_closed.store(true, Ordering::Relaxed);
        match &self.write_mode {
            WriteMode::PerEvent(per_event) => self.end_per_event(per_event, timeout),
            WriteMode::Grouped(grouped) => grouped.end(timeout),
        }
    }

    /// Waits for the calls of `record` that are under way, and closes the connection.
    fn end_per_event(&self, per_event: &PerEvent, timeout: Duration) -> Result<(), FlushError> {
        if let Some(mut writer) = per_event.writer.try_write_until(deadline::after(timeout)) {
            writer.take();
            return Ok(());
        }
        let waiting = per_event.under_way.load(Ordering::Relaxed);
        let trouble = self.condition.trouble().map(|trouble| trouble.reason);
        Err(FlushError::Deadline { waiting, trouble })
    }
}

impl PerEvent {
    /// Commits an event; `None` if the recorder is closed.
    fn commit(&self, event: &Event, is_closed: &AtomicBool) -> Option<Result<EventOutcome, Problem>> {
        // A close that waits for the lock would hold up this call.
        if is_closed.load(Ordering::Relaxed) {
            return None;
        }
        self.under_way.fetch_add(1, Ordering::Relaxed);
        let writer = self.writer.read();
        let committed = writer.as_ref().map(|writer| {
            let (subject, payload) = (event.subject(), event.payload());
            writer.commit(now_ns(), subject, event.all_headers(), payload)
        });
        drop(writer);
        self.under_way.fetch_sub(1, Ordering::Relaxed);
        committed
    }
}

impl Sealed for DirectRecorder {}

impl Recorder for DirectRecorder {
    /// With [`CommitMode::PerEvent`], blocks until the event is committed: while other threads commit theirs, and at most for
    /// `database.busy_timeout` while another process writes. With [`CommitMode::Grouped`], blocks only while the buffer is full,
    /// as `overflow` sets.
    fn record(&self, event: Event) -> Result<Receipt, RecordError> {
        let event = valid(event)?;
        match &self.write_mode {
            WriteMode::PerEvent(per_event) => match per_event.commit(&event, &self.is_closed) {
                Some(Ok(outcome)) => {
                    self.condition.recover();
                    self.dead_letters.add(usize::from(outcome == EventOutcome::DeadLetter));
                    self.unmatched_dropped.add(usize::from(outcome == EventOutcome::Dropped));
                    Ok(Receipt::settled(in_database(outcome == EventOutcome::Dropped)))
                }
                Some(Err(problem)) => {
                    self.condition.degrade(problem.to_string());
                    Err(RecordError::new(event, FailureReason::from(problem)))
                }
                None => Err(RecordError::new(event, FailureReason::Closed)),
            },
            WriteMode::Grouped(grouped) => match grouped.enqueue(&event) {
                Ok(number) => {
                    let is_dropped = self.routes.drops(event.subject(), event.all_headers());
                    Ok(Receipt::in_commit_queue(Arc::clone(grouped.queue()), number, is_dropped, event))
                }
                Err(reason) => Err(RecordError::new(event, reason)),
            },
        }
    }

    /// Blocks until every event passed in before this call is committed, at most for `timeout`. With [`CommitMode::PerEvent`] it returns
    /// at once: events are committed when [`Recorder::record`] returns.
    fn flush(&self, timeout: Duration) -> Result<(), FlushError> {
        match &self.write_mode {
            WriteMode::PerEvent(_) => Ok(()),
            WriteMode::Grouped(grouped) => grouped.queue().flush(deadline::after(timeout)),
        }
    }

    /// Commits what is in the buffer, and ends. Blocks at most for `timeout`.
    ///
    /// An event that is not committed comes back with the reason why the database did not take it, or with
    /// [`FailureReason::Closed`]. An event whose commit has begun and hangs comes back with [`FailureReason::Unconfirmed`]: it may be
    /// stored. The database's lock is released when that commit ends, also where that is later. With [`CommitMode::PerEvent`], this
    /// waits for the calls of [`Recorder::record`] that have not returned.
    fn close(&self, timeout: Duration) -> Result<(), FlushError> {
        self.end(timeout)
    }

    fn health(&self) -> Health {
        Health::of([&self.condition])
    }
}

impl Drop for DirectRecorder {
    fn drop(&mut self) {
        if !*self.is_closed.get_mut() {
            log_dropped(self.end(DROP_TIMEOUT));
        }
    }
}
