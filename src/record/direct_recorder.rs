//! Recording straight into the database, without a broker.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::commit_queue::{self, CommitQueue, CommitQueueIntake, NotifyingSink};
use super::{FailureReason, FlushError, Overflow, Receipt, RecordError, Recorder};
use crate::config::{BatchConfig, DatabaseConfig, RouteConfig, Unmatched};
use crate::deadline;
use crate::error::Error;
use crate::event::Event;
use crate::pipeline::{Condition, Counter, Health, Pipeline, Settings, Shared};
use crate::store::{Database, EventOutcome, EventWriter, Lock, Routes};

/// How long a recorder that is dropped goes on committing what waits.
const LAST_EFFORT: Duration = Duration::from_secs(5);

/// How a [`DirectRecorder`] works.
#[derive(Clone, Debug)]
pub struct DirectRecorderConfig {
    /// The database. `writers` counts for [`CommitMode::Grouped`] only.
    pub database: DatabaseConfig,
    /// How many events one transaction commits at most, with [`CommitMode::Grouped`]. As many wait in memory besides, for each
    /// writer and twice more. One whose receipt is dropped takes its room twice until it is committed: as it will be stored,
    /// and as it would be given back.
    pub batch: BatchConfig,
    /// What events do to the database. Default none: all of them are unmatched. `{prefix}` stands for nothing here, and
    /// nobody is answered.
    pub routes: Vec<RouteConfig>,
    /// What becomes of events that no route takes. Default: they are stored in table `events`.
    pub unmatched: Unmatched,
    /// When events are committed. Default [`CommitMode::Grouped`].
    pub commit: CommitMode,
    /// What to do when there is no room, with [`CommitMode::Grouped`]. Default: block for 5 s.
    pub overflow: Overflow,
}

/// When events are committed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CommitMode {
    /// Each by itself, on the caller's thread: when `record` returns, the event is committed. Any number of threads; any
    /// number of processes, too.
    PerEvent,
    /// By writer threads, as many at a time as have come meanwhile: `record` hands over and returns, the receipt tells when
    /// the event is committed. One process a database.
    #[default]
    Grouped,
}

impl Default for DirectRecorderConfig {
    fn default() -> Self {
        Self {
            database: DatabaseConfig::default(),
            batch: BatchConfig::default(),
            routes: Vec::new(),
            unmatched: Unmatched::default(),
            commit: CommitMode::default(),
            overflow: Overflow::Block(Duration::from_secs(5)),
        }
    }
}

/// Writes events into a SQLite database: the same rows as a collector would, but for the columns `stream` and `sequence`,
/// which are NULL, and `published_us`, which is when the event was handed over.
///
/// Kept means committed, with the `synchronous` of the configuration: `full` is on the disk. What the database's own tables
/// and triggers refuse becomes a dead letter and counts as kept.
///
/// Dropping the recorder goes on committing for up to 5 seconds; call [`Recorder::flush`] first to know.
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
    /// Of those recorded one by one.
    dead_letters: Counter,
    /// The same.
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
    /// Gone once it was stopped.
    pipeline: Option<Pipeline>,
    _lock: Lock,
}

impl DirectRecorder {
    /// Records into this file, which is created where it is missing, with default settings.
    ///
    /// # Errors
    ///
    /// As [`DirectRecorder::open`].
    pub fn create(path: impl AsRef<Path>) -> Result<Self, Error> {
        let database = DatabaseConfig { path: path.as_ref().to_owned(), ..DatabaseConfig::default() };
        Self::open(DirectRecorderConfig { database, ..DirectRecorderConfig::default() })
    }

    /// Opens the database. Blocks at most for `database.busy_timeout`.
    ///
    /// # Errors
    ///
    /// [`Error::Config`], [`Error::Database`], [`Error::Thread`], or [`Error::Locked`] where another process collects or records grouped.
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
        let lock = Lock::take(&database_config.path)?;
        let database = Database::open(&database_config, &routes)?;
        let settings = Settings::from(&batch);
        let queue = Arc::new(CommitQueue::new(database.begin_local()?, settings.limits));
        let sinks =
            database.writers().into_iter().map(|sink| NotifyingSink { sink, queue: Arc::clone(&queue) }).collect();
        let shared = Shared::new("database");
        let condition = shared.sink.clone();
        let pipeline = Some(Pipeline::start(CommitQueueIntake(Arc::clone(&queue)), sinks, settings, shared)?);
        Ok(Self::with(WriteMode::Grouped(Grouped { queue, overflow, pipeline, _lock: lock }), condition))
    }

    fn with(write_mode: WriteMode, condition: Condition) -> Self {
        Self { write_mode, condition, dead_letters: Counter::default(), unmatched_dropped: Counter::default() }
    }

    /// How many events the database refused so far: they are dead letters.
    #[must_use]
    pub fn dead_letters(&self) -> u64 {
        match &self.write_mode {
            WriteMode::PerEvent(_) => self.dead_letters.get(),
            WriteMode::Grouped(Grouped { queue, .. }) => queue.dead_letters(),
        }
    }

    /// How many events were dropped so far, because no route takes them and `unmatched` says so. They count as kept.
    #[must_use]
    pub fn unmatched_dropped(&self) -> u64 {
        match &self.write_mode {
            WriteMode::PerEvent(_) => self.unmatched_dropped.get(),
            WriteMode::Grouped(Grouped { queue, .. }) => queue.unmatched_dropped(),
        }
    }

    /// Takes no more events, commits what waits, and ends. Blocks at most for `patience`.
    ///
    /// # Errors
    ///
    /// As [`Recorder::flush`]: every event that is not committed then comes back, in the error or from its receipt. One whose
    /// commit has begun and hangs comes back with [`FailureReason::Unconfirmed`]: it may be stored or not.
    pub fn close(mut self, patience: Duration) -> Result<(), FlushError> {
        self.end(patience)
    }

    fn end(&mut self, patience: Duration) -> Result<(), FlushError> {
        let WriteMode::Grouped(Grouped { queue, pipeline, .. }) = &mut self.write_mode else { return Ok(()) };
        let Some(pipeline) = pipeline.take() else { return Ok(()) };
        queue.close();
        match pipeline.stop(patience) {
            // What keeps it from its end, the queue has heard.
            Ok(()) | Err(Error::StopDeadline { .. }) => {}
            Err(error) => queue.fail(&error),
        }
        queue.abandon()
    }
}

impl Recorder for DirectRecorder {
    /// [`CommitMode::PerEvent`]: blocks until the event is committed, at most for `database.busy_timeout` where another process
    /// writes, and for the other threads' events before it. [`CommitMode::Grouped`]: blocks only where there is no room.
    fn record(&self, event: Event) -> Result<Receipt, RecordError> {
        let failed = |event, reason| Err(RecordError { event: Box::new(event), reason });
        if let Err(what) = event.validate() {
            return failed(event, FailureReason::Invalid(what));
        }
        match &self.write_mode {
            WriteMode::PerEvent(writer) => {
                let (subject, payload) = (event.subject(), event.payload());
                match writer.commit(commit_queue::now_ns(), subject, commit_queue::headers(&event), payload) {
                    Ok(kept) => {
                        self.condition.recover();
                        self.dead_letters.add(usize::from(kept == EventOutcome::DeadLetter));
                        self.unmatched_dropped.add(usize::from(kept == EventOutcome::Dropped));
                        Ok(Receipt::committed())
                    }
                    Err(what) => {
                        self.condition.degrade(what.clone());
                        failed(event, FailureReason::Database(what))
                    }
                }
            }
            WriteMode::Grouped(Grouped { queue, overflow, .. }) => match queue.hand_in(&event, *overflow) {
                Ok(number) => Ok(Receipt::in_commit_queue(Arc::clone(queue), number, event)),
                Err(reason) => failed(event, reason),
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
        if let Err(error) = self.end(LAST_EFFORT) {
            log::error!("recorder: dropped with {error}");
        }
    }
}
