//! Recording directly into the database, without a broker.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::commit_queue::{self, CommitQueue, CommitQueueIntake, NotifyingSink};
use super::{CommitMode, DirectRecorderConfig, FailureReason, FlushError, Overflow, Receipt, RecordError, Recorder};
use crate::deadline;
use crate::error::Error;
use crate::event::Event;
use crate::pipeline::{Condition, Counter, Health, Pipeline, Settings, Shared};
use crate::store::{Database, EventOutcome, EventWriter, Lock, Routes};

/// How long dropping a recorder may go on committing.
const DROP_PATIENCE: Duration = Duration::from_secs(5);

/// Writes events into a SQLite database. The rows are the same as a collector's, except that the columns `stream` and `sequence`
/// are NULL, and `published_us` is the time at which `record` was called.
///
/// Recorded means committed. How durable that is depends on `synchronous` in the settings: with `full`, the event is on the
/// disk. An event that the database's tables and triggers refuse becomes a dead letter and counts as recorded.
///
/// Dropping the recorder commits what is in its buffer, for up to 5 seconds. To be sure that everything is committed, call
/// [`Recorder::flush`] or [`DirectRecorder::close`].
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
    condition: Condition,
    /// With [`WriteMode::PerEvent`] only; the commit queue counts its own.
    dead_letters: Counter,
    unmatched_dropped: Counter,
}

#[derive(Debug)]
enum WriteMode {
    PerEvent(Box<EventWriter>),
    Grouped(Grouped),
}

#[derive(Debug)]
struct Grouped {
    queue: Arc<CommitQueue>,
    overflow: Overflow,
    /// `None` once it was stopped.
    pipeline: Option<Pipeline>,
    _lock: Lock,
}

impl DirectRecorder {
    /// Records into this file, with default settings. Creates the file if it does not exist.
    ///
    /// # Errors
    ///
    /// As [`DirectRecorder::open`].
    pub fn create(path: impl AsRef<Path>) -> Result<Self, Error> {
        let mut config = DirectRecorderConfig::default();
        path.as_ref().clone_into(&mut config.database.path);
        Self::open(config)
    }

    /// Opens the database. Blocks at most for `database.busy_timeout`, and longer if it applies migrations.
    ///
    /// # Errors
    ///
    /// [`Error::Config`], [`Error::Database`], [`Error::Migration`] or [`Error::Thread`]. [`Error::Locked`] where a collector or
    /// another recorder with [`CommitMode::Grouped`], of this process or of another, uses the database, and this recorder is grouped
    /// too.
    pub fn open(config: DirectRecorderConfig) -> Result<Self, Error> {
        let DirectRecorderConfig { database: database_config, batch, routes, unmatched, commit, overflow } = config;
        database_config.validate()?;
        batch.validate()?;
        let routes = Routes::new(&routes, unmatched)?;
        if commit == CommitMode::PerEvent {
            let writer = Database::open(&database_config, &routes)?.event_writer();
            let condition = Condition::new("database");
            return Ok(Self::with(WriteMode::PerEvent(Box::new(writer)), condition));
        }
        Database::must_be_usable(&database_config, &routes)?;
        let lock = Lock::take(&database_config.path)?;
        let database = Database::open(&database_config, &routes)?;
        let settings = Settings::from(&batch);
        let queue = Arc::new(CommitQueue::new(database.begin_local()?, settings.limits));
        let sinks = database.writers().into_iter().map(|sink| NotifyingSink { sink, queue: Arc::clone(&queue) });
        let sinks = sinks.collect();
        let shared = Shared::new("database");
        let condition = shared.sink.clone();
        let pipeline = Some(Pipeline::start(CommitQueueIntake(Arc::clone(&queue)), sinks, settings, shared)?);
        Ok(Self::with(WriteMode::Grouped(Grouped { queue, overflow, pipeline, _lock: lock }), condition))
    }

    fn with(write_mode: WriteMode, condition: Condition) -> Self {
        Self { write_mode, condition, dead_letters: Counter::default(), unmatched_dropped: Counter::default() }
    }

    /// How many events became dead letters so far. Does not block.
    #[must_use]
    pub fn dead_letters(&self) -> u64 {
        match &self.write_mode {
            WriteMode::PerEvent(_) => self.dead_letters.get(),
            WriteMode::Grouped(Grouped { queue, .. }) => queue.dead_letters(),
        }
    }

    /// How many events were dropped so far: no route takes them and `unmatched` is `drop`, or they are delete markers that no route
    /// takes. They count as recorded. Does not block.
    #[must_use]
    pub fn unmatched_dropped(&self) -> u64 {
        match &self.write_mode {
            WriteMode::PerEvent(_) => self.unmatched_dropped.get(),
            WriteMode::Grouped(Grouped { queue, .. }) => queue.unmatched_dropped(),
        }
    }

    /// Accepts no more events, commits those in the buffer, and ends. Blocks at most for `patience`.
    ///
    /// # Errors
    ///
    /// As [`Recorder::flush`]. Every event that is not committed comes back: in the error, or from its receipt where that still
    /// exists. An event whose commit has begun and hangs comes back with [`FailureReason::Unconfirmed`]: it may be stored.
    pub fn close(mut self, patience: Duration) -> Result<(), FlushError> {
        self.end(patience)
    }

    fn end(&mut self, patience: Duration) -> Result<(), FlushError> {
        let WriteMode::Grouped(Grouped { queue, pipeline, .. }) = &mut self.write_mode else { return Ok(()) };
        let Some(pipeline) = pipeline.take() else { return Ok(()) };
        queue.close();
        match pipeline.stop(patience) {
            // The queue already has the reason why a commit does not end.
            Ok(()) | Err(Error::StopDeadline { .. }) => {}
            Err(error) => queue.set_failure(&error),
        }
        queue.abandon()
    }
}

impl Recorder for DirectRecorder {
    /// With [`CommitMode::PerEvent`], blocks until the event is committed: while other threads commit theirs, and at most for
    /// `database.busy_timeout` while another process writes. With [`CommitMode::Grouped`], blocks only while the buffer is full,
    /// as `overflow` sets.
    fn record(&self, event: Event) -> Result<Receipt, RecordError> {
        if let Err(invalid) = event.validate() {
            return Err(RecordError::new(event, FailureReason::Invalid(invalid)));
        }
        match &self.write_mode {
            WriteMode::PerEvent(writer) => {
                let (subject, payload) = (event.subject(), event.payload());
                match writer.commit(commit_queue::now_ns(), subject, commit_queue::headers(&event), payload) {
                    Ok(outcome) => {
                        self.condition.recover();
                        self.dead_letters.add(usize::from(outcome == EventOutcome::DeadLetter));
                        self.unmatched_dropped.add(usize::from(outcome == EventOutcome::Dropped));
                        Ok(Receipt::committed())
                    }
                    Err(what) => {
                        self.condition.degrade(what.clone());
                        Err(RecordError::new(event, FailureReason::Database(what)))
                    }
                }
            }
            WriteMode::Grouped(Grouped { queue, overflow, .. }) => match queue.enqueue(&event, *overflow) {
                Ok(number) => Ok(Receipt::in_commit_queue(Arc::clone(queue), number, event)),
                Err(reason) => Err(RecordError::new(event, reason)),
            },
        }
    }

    fn flush(&self, patience: Duration) -> Result<(), FlushError> {
        match &self.write_mode {
            WriteMode::PerEvent(_) => Ok(()),
            WriteMode::Grouped(Grouped { queue, .. }) => queue.flush(deadline::after(patience)),
        }
    }

    fn health(&self) -> Health {
        Health::of([&self.condition])
    }
}

impl Drop for DirectRecorder {
    fn drop(&mut self) {
        if let Err(error) = self.end(DROP_PATIENCE) {
            log::error!("recorder: dropped with {error}");
        }
    }
}
