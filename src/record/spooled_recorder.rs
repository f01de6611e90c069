//! Recording into a spool, from which the events are forwarded to a stream.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::config::broker_at;
use super::forwarding::{ForwardOptions, ForwardProgress, Forwarding};
use super::grouped_commits::GroupedCommits;
use super::recorder::{DROP_TIMEOUT, Sealed, log_dropped, valid};
use super::send_queue::SendQueue;
use super::spool_room::SpoolRoom;
use super::spool_store::SpoolStore;
use super::stream_outcomes::StreamOutcomes;
use super::{FailureReason, FlushError, Overflow, Receipt, RecordError, Recorder, SpoolStatus, SpooledRecorderConfig};
use crate::deadline;
use crate::error::Error;
use crate::event::{self, Event};
use crate::pipeline::{Batch, Committed, Condition, Epoch, Health, Refusal, Settings, Sink};
use crate::store::{Lock, Spool, SpoolChange, SpoolLimits, SpoolSink, SpoolTotals};

/// How long to wait for the disk where the overflow of the spool does not say it.
const DISK_TIMEOUT: Duration = Duration::from_secs(5);

/// Keeps events in a file, the spool, and forwards them from there to a `JetStream` stream: store and forward.
///
/// `record` puts an event into a buffer and returns at once. Recorded means committed to the spool, on the disk, whether the broker is
/// there or not. A thread forwards the events in their order, and removes those that the stream has stored. What is left when the program
/// ends, or is killed, is forwarded after the next start, days later too.
///
/// A receipt reports both: [`Receipt::wait`] that the event is kept in the spool, [`Receipt::wait_for_stream`] that it is in the stream.
///
/// An event is sent again until the stream has it, and always under the name and number that it has in the spool. So a collector's
/// database has it once, until it forgets the recorder (`database.forget_recorders`). The stream may have it twice. An event that is refused while others are stored,
/// because it is too large, or because no stream takes its subject, becomes a dead letter of the spool after a while
/// ([`SpooledRecorderConfig::give_up_after`]), and the others go on. While the server stores nothing at all, because the stream is missing for instance, all events wait.
///
/// The spool is bounded in events and bytes: see [`SpooledRecorderConfig::overflow`]. A file has one recorder at a time: a second one is
/// refused with [`Error::Locked`]. A copy of a spool sends its events again, which are recognised, and takes new ones under a name of its
/// own. A damaged spool is moved aside whole, which is logged as an error, and a new one is used.
///
/// Dropping the recorder commits what is in its buffer, for up to 5 seconds.
///
/// ```no_run
/// use catchment::{Event, Recorder, SpooledRecorder};
/// use std::time::Duration;
///
/// let recorder = SpooledRecorder::connect("spool.db", "nats://127.0.0.1:4222")?;
/// let receipt = recorder.record(Event::new("events.door", "open"))?;
/// recorder.flush(Duration::from_secs(5))?; // on the disk
/// let sequence = receipt.wait_for_stream(Duration::from_secs(60))?.sequence(); // in the stream
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct SpooledRecorder {
    commits: GroupedCommits,
    forwarding: Forwarding,
    room: Arc<SpoolRoom>,
    outcomes: Arc<StreamOutcomes>,
    overflow: Overflow,
    /// The position of the event with the number 1 in the commit queue.
    first: u64,
    conditions: [Condition; 3],
    /// Where the damaged spool is that was at this place.
    moved_to: Option<PathBuf>,
    /// What was in the spool when it was opened.
    found: SpoolTotals,
    is_closed: AtomicBool,
}

/// A sink that gives the room of its events back, and wakes the forwarder.
struct RoomSink<W> {
    sink: SpoolSink,
    room: Arc<SpoolRoom>,
    wake: W,
}

impl<W: Fn() + Send + 'static> Sink for RoomSink<W> {
    fn prepare(&mut self, batch: &Batch) {
        self.sink.prepare(batch);
    }

    fn commit(&mut self, batch: &Batch) -> Result<Committed, Refusal> {
        let committed = self.sink.commit(batch)?;
        let bytes = (0..batch.len()).map(|index| {
            let delivery = batch.delivery(index);
            event::size(delivery.subject, delivery.headers.iter(), delivery.payload) as u64
        });
        self.room.give_back(batch.len() as u64, bytes.sum());
        (self.wake)();
        Ok(committed)
    }
}

impl SpooledRecorder {
    /// Opens this spool, with default settings, to be forwarded to these servers of one cluster (separated by commas). Blocks as
    /// [`SpooledRecorder::open`] does.
    ///
    /// # Errors
    ///
    /// As [`SpooledRecorder::open`].
    pub fn connect(path: impl AsRef<Path>, servers: &str) -> Result<Self, Error> {
        Self::open(SpooledRecorderConfig { broker: broker_at(servers), ..SpooledRecorderConfig::new(path.as_ref()) })
    }

    /// Opens the spool, or makes it, and starts to forward what is in it. Does not wait for the broker: what is wrong with it shows in
    /// [`Recorder::health`]. Blocks for the disk, and at most for a few seconds while another process writes the file.
    ///
    /// # Errors
    ///
    /// [`Error::Config`], [`Error::Database`] or [`Error::Thread`]. [`Error::Locked`] where another recorder, of this process or another,
    /// uses the spool.
    #[allow(clippy::needless_pass_by_value, reason = "as the other recorders")]
    pub fn open(config: SpooledRecorderConfig) -> Result<Self, Error> {
        config.validate()?;
        let lock = Lock::take_spool(&config.path)?;
        let limits = SpoolLimits { events: config.max_events, bytes: config.max_bytes };
        let [of_room, of_file, of_broker] = ["spool", "spool file", "broker"].map(Condition::new);
        let room = Arc::new(SpoolRoom::new(limits, of_room.clone()));
        let dropped_through = Arc::new(AtomicU64::new(0));
        let queue: Arc<OnceLock<Arc<SendQueue>>> = Arc::default();
        let on_change = {
            let (room, dropped_through, queue) = (Arc::clone(&room), Arc::clone(&dropped_through), Arc::clone(&queue));
            move |change: SpoolChange| {
                room.set(change.totals);
                if let Some(through) = change.dropped_through {
                    room.note_dropping();
                    dropped_through.store(through, Ordering::Release);
                    if let Some(queue) = queue.get() {
                        queue.drop_through(through);
                    }
                }
            }
        };
        let opened = Spool::open(&config.database(), on_change);
        let opened = opened.and_then(|(spool, totals)| Ok((spool.refusals()?, spool, totals)));
        let (lock, (refused, spool, totals)) = lock.keep_if_ok(opened)?;
        let lock = Arc::new(lock);
        room.set(totals);
        let outcomes = Arc::new(StreamOutcomes::new(of_broker.clone()));
        let store = SpoolStore::new(spool.clone(), dropped_through, Arc::clone(&lock));
        let options = ForwardOptions {
            config: config.publishing(),
            names: spool.names(),
            refused,
            after: 0,
            give_up_after: config.give_up_after,
            poll: None,
            of_file: of_file.clone(),
            of_broker: of_broker.clone(),
        };
        let forwarding = Forwarding::start(options, store, Some(Arc::clone(&outcomes)))?;
        let _ = queue.set(Arc::clone(forwarding.queue()));
        let drops = (config.overflow == Overflow::DropOldest).then_some(limits);
        let sink = RoomSink { sink: spool.sink(drops), room: Arc::clone(&room), wake: forwarding.waker() };
        let epoch = Epoch::local(1, String::new());
        let settings = Settings::from(&config.batch);
        let commits = GroupedCommits::start(epoch, vec![sink], &lock, settings, Overflow::Block(DISK_TIMEOUT))?;
        let conditions = [of_room, of_file, of_broker];
        let (first, overflow, moved_to) = (spool.first(), config.overflow, spool.moved_to().map(Path::to_owned));
        let is_closed = AtomicBool::new(false);
        Ok(Self {
            commits,
            forwarding,
            room,
            outcomes,
            overflow,
            first,
            conditions,
            moved_to,
            found: totals,
            is_closed,
        })
    }

    /// Where the damaged spool is that was at this place when it was opened.
    pub(crate) fn moved_to(&self) -> Option<&Path> {
        self.moved_to.as_deref()
    }

    /// What was in the spool when it was opened.
    pub(crate) fn found(&self) -> SpoolTotals {
        self.found
    }

    /// Whether the server has answered on the present connection.
    pub(crate) fn is_answered(&self) -> bool {
        self.forwarding.queue().is_answered()
    }

    /// Whether the server refuses the last event at the moment.
    pub(crate) fn is_last_refused(&self) -> bool {
        self.forwarding.queue().is_refused(self.first + self.commits.queue().last_number() - 1)
    }

    /// What is in the spool, and what became of the rest. Does not block.
    #[must_use]
    pub fn status(&self) -> SpoolStatus {
        SpoolStatus::of(self.room.totals(), self.forwarding.progress())
    }

    /// Blocks until every event passed in before this call is in the stream, given up or dropped, at most for `timeout`. The events
    /// are kept whatever this returns.
    ///
    /// # Errors
    ///
    /// [`FlushError::Failed`] as from [`Recorder::flush`]; [`FlushError::Deadline`] where `timeout` is over, with the number of events
    /// in the spool.
    pub fn flush_to_stream(&self, timeout: Duration) -> Result<(), FlushError> {
        let until = deadline::after(timeout);
        let last = self.commits.queue().last_number();
        self.commits.queue().flush(until)?;
        // Without an event of this start, only those of earlier ones are waited for.
        let is_done = |progress: &ForwardProgress| match last {
            0 => progress.is_idle,
            last => progress.done_through >= self.first + last - 1,
        };
        if self.forwarding.wait(until, is_done) {
            return Ok(());
        }
        let waiting = usize::try_from(self.room.totals().events).unwrap_or(usize::MAX);
        let trouble = self.forwarding.queue().trouble().or_else(|| self.outcomes.trouble());
        Err(FlushError::Deadline { waiting, trouble })
    }

    fn end(&self, timeout: Duration, forwards: bool) -> Result<(), FlushError> {
        self.is_closed.store(true, Ordering::Relaxed);
        let until = deadline::after(timeout);
        self.room.close();
        let committed = self.commits.end(timeout);
        if forwards {
            // Without a broker there is nothing to wait for: the events are kept.
            let [.., of_file, of_broker] = &self.conditions;
            let gives_up =
                || self.forwarding.is_stopped() || of_file.trouble().is_some() || of_broker.trouble().is_some();
            self.room.wait_empty(until, gives_up);
        }
        self.forwarding.stop(until);
        self.outcomes.end();
        committed
    }
}

impl Sealed for SpooledRecorder {}

impl Recorder for SpooledRecorder {
    /// Puts the event into the buffer. Blocks only while the spool is full, as `overflow` sets, and while the disk is slower than the
    /// application.
    fn record(&self, event: Event) -> Result<Receipt, RecordError> {
        let event = valid(event)?;
        let timeout = if let Overflow::Block(timeout) = self.overflow { timeout } else { DISK_TIMEOUT };
        let until = deadline::after(timeout);
        let bytes = event.size() as u64;
        if let Err(reason) = self.room.take(bytes, self.overflow) {
            let reason = match reason {
                // The reason why the pipeline ended is known there.
                FailureReason::Closed => self.commits.queue().closed_reason(),
                reason => reason,
            };
            return Err(RecordError::new(event, reason));
        }
        let position = |number: u64| self.first + number - 1;
        let taken = |number| self.outcomes.watch(position(number));
        match self.commits.enqueue_until(&event, until, taken) {
            Ok(number) => {
                let (queue, outcomes) = (Arc::clone(self.commits.queue()), Arc::clone(&self.outcomes));
                Ok(Receipt::in_spool(queue, number, event, position(number), outcomes))
            }
            Err(reason) => {
                self.room.give_back(1, bytes);
                Err(RecordError::new(event, reason))
            }
        }
    }

    /// Blocks until every event passed in before this call is kept in the spool, at most for `timeout`. For the stream there is
    /// [`SpooledRecorder::flush_to_stream`].
    fn flush(&self, timeout: Duration) -> Result<(), FlushError> {
        self.commits.queue().flush(deadline::after(timeout))
    }

    /// Commits what is in the buffer to the spool, then forwards what is in the spool for as long as the broker takes it, and ends. Blocks
    /// at most for `timeout` and half a second for a last mark in the file, and not for a broker that is away. What is left in the spool is kept, is no error, and is forwarded at
    /// the next start.
    fn close(&self, timeout: Duration) -> Result<(), FlushError> {
        self.end(timeout, true)
    }

    fn health(&self) -> Health {
        let [of_room, of_file, of_broker] = &self.conditions;
        Health::of([self.commits.condition(), of_room, of_file, of_broker])
    }
}

impl Drop for SpooledRecorder {
    fn drop(&mut self) {
        if !*self.is_closed.get_mut() {
            log_dropped(self.end(DROP_TIMEOUT, false));
        }
    }
}
