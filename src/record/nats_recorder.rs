//! Recording through a NATS server: to a `JetStream` stream, or to the subscribers of core NATS.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::config::broker_at;
use super::event_sender::{self, EventSender};
use super::recorder::{DROP_TIMEOUT, Sealed, log_dropped, valid};
use super::send_queue::{Bounds, SendQueue};
use super::{
    FailureReason, FlushError, NatsRecorderConfig, Overflow, Receipt, ReceiptKind, RecordError, Recorder,
    RecorderCounters, expected_stream,
};
use crate::broker::{Cluster, KnownStreams, Publisher};
use crate::config::Mode;
use crate::deadline;
use crate::error::Error;
use crate::event::Event;
use crate::pipeline::{Condition, Health, Signal, ThreadGroup};

/// Publishes events to a `JetStream` stream, or in core NATS to the subscribers, and reports when they are recorded.
///
/// `record` puts an event into a buffer and returns at once; it blocks only while the buffer is full, as `overflow` sets. Events
/// are sent in the order of the calls, many at a time without waiting for the answers. An event is recorded when the stream
/// has acknowledged it or was found to have it. After a lost connection, the recorder sends unconfirmed events again with
/// the same identity, which the stream recognises. Where the stream may no longer recognise it, the recorder looks for the event
/// in the stream instead. An event that is refused for the moment, because no stream takes it or a stream has no room, is sent again later
/// than the next ones: only a [`SpooledRecorder`](super::SpooledRecorder) keeps the order then. Answers to an event's subject from
/// other programs are ignored.
///
/// With [`Mode::Core`] there is no stream, and nothing acknowledges an event. An event counts as recorded when the server has read
/// it: when the server has answered a flush that was sent after the event. So [`Recorder::flush`] and [`Recorder::close`]
/// mean that the server has everything, not that anything stored it ([`ReceiptKind::HandedToBroker`]). When a
/// connection is lost, events that were sent and not confirmed come back with [`FailureReason::Unconfirmed`]: sent again, they
/// could arrive twice. Events that were not sent yet go to the next connection, and may arrive before an unconfirmed one that is
/// still on its way. An event that the user may not publish comes back with [`FailureReason::Refused`].
///
/// Dropping the recorder sends what is in its buffer, for up to 5 seconds. To be sure that everything is recorded, call
/// [`Recorder::flush`] or [`Recorder::close`].
///
/// ```no_run
/// use catchment::{Event, NatsRecorder, Recorder};
/// use std::time::Duration;
///
/// let recorder = NatsRecorder::connect("nats://127.0.0.1:4222")?;
/// recorder.record(Event::new("events.door", "open"))?;
/// recorder.flush(Duration::from_secs(5))?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct NatsRecorder {
    queue: Arc<SendQueue>,
    overflow: Overflow,
    mode: Mode,
    expected_stream: Option<String>,
    thread_group: ThreadGroup,
    stop: Signal,
    condition: Condition,
}

impl NatsRecorder {
    /// Connects to these servers of one cluster (separated by commas) with default settings: events go to the streams whose subjects
    /// match theirs. Blocks as [`NatsRecorder::open`] does.
    ///
    /// # Errors
    ///
    /// As [`NatsRecorder::open`].
    pub fn connect(servers: &str) -> Result<Self, Error> {
        Self::open(NatsRecorderConfig::new(broker_at(servers)))
    }

    /// Connects. Blocks at most for `broker.timeout` and a quarter of a second. If the connection is lost later, the recorder buffers events and connects
    /// again.
    ///
    /// # Errors
    ///
    /// [`Error::Config`], [`Error::Broker`] or [`Error::Thread`]. Whether a stream takes the events' subjects is not examined here: an event
    /// that none takes fails with [`FailureReason::NoStream`].
    pub fn open(config: NatsRecorderConfig) -> Result<Self, Error> {
        Self::open_expecting(config, || false)
    }

    /// As [`NatsRecorder::open`]. While `expects_stream` returns `true`, a stream may be about to be made: that no stream takes an event
    /// is final only after almost `broker.timeout`, not after half of it.
    ///
    /// # Errors
    ///
    /// As [`NatsRecorder::open`].
    pub(crate) fn open_expecting(
        config: NatsRecorderConfig,
        expects_stream: impl Fn() -> bool + Send + 'static,
    ) -> Result<Self, Error> {
        config.validate()?;
        let mode = config.broker.mode;
        let bounds = Bounds {
            events: config.buffer_events,
            bytes: config.buffer_bytes,
            window: config.window,
            first_window: event_sender::first_window(&config),
            window_bytes: config.window_bytes,
            resend_window: event_sender::resend_window(&config, None),
            // In core NATS one answer covers all events in flight. It must come before the server counts as silent.
            flush_timeout: (mode == Mode::Core).then_some(config.broker.silence),
            give_up_after: None,
        };
        let stop = Signal::default();
        let cluster = Arc::new(Cluster::new(&config.broker)?);
        let condition = Condition::new("broker");
        let known_streams = Arc::new(KnownStreams::new(&config.broker, config.identity));
        let publisher = match Publisher::open(&cluster, &stop, &known_streams) {
            Ok(publisher) => Some(publisher),
            Err(error @ Error::Broker { .. }) if config.start_without_broker => {
                condition.degrade(error.to_string());
                None
            }
            Err(error) => return Err(error),
        };
        let max_payload = publisher.as_ref().map_or(usize::MAX, Publisher::max_payload);
        let queue = Arc::new(SendQueue::new(bounds, max_payload));
        let mut thread_group = ThreadGroup::new(stop.clone());
        let overflow = config.overflow;
        let expected_stream = config.expected_stream.clone().filter(|_| mode == Mode::Jetstream);
        let sender =
            EventSender::new(config, cluster, known_streams, Arc::clone(&queue), stop.clone(), condition.clone())
                .expecting(expects_stream);
        thread_group.spawn("catchment-sender", move || {
            sender.run(publisher);
            Ok(())
        })?;
        Ok(Self { queue, overflow, mode, expected_stream, thread_group, stop, condition })
    }

    /// Counters of all events by their outcome. They can be read after [`Recorder::close`] too, and after the recorder was dropped. Does
    /// not block.
    #[must_use]
    pub fn counters(&self) -> RecorderCounters {
        RecorderCounters::of(Arc::clone(&self.queue))
    }

    fn end(&self, timeout: Duration) -> Result<(), FlushError> {
        let until = deadline::after(timeout);
        self.queue.close();
        let ended = match self.queue.flush(until) {
            // From here on, the queue passes no more events to the sender, whatever that is doing.
            Err(FlushError::Deadline { trouble, .. }) => match self.queue.abandon() {
                0 => self.queue.failures(),
                waiting => self.queue.failures().and(Err(FlushError::Deadline { waiting, trouble })),
            },
            flushed => flushed,
        };
        self.stop.raise();
        // A sender that has not ended by then ends later by itself.
        if let Err(error) = self.thread_group.join_until(until.min(Instant::now() + Duration::from_secs(1))) {
            log::error!(event = "recorder.failed", error:% = error; "recorder: {error}");
        }
        ended
    }
}

impl Sealed for NatsRecorder {}

impl Recorder for NatsRecorder {
    /// Puts the event into the buffer. Blocks only while the buffer is full, as `overflow` sets.
    fn record(&self, event: Event) -> Result<Receipt, RecordError> {
        let event = valid(event)?;
        let event = match self.expected_stream.as_ref().map(|stream| expected_stream::set(event.clone(), stream)) {
            None => event,
            Some(Ok(event)) => event,
            Some(Err(why)) => return Err(RecordError::new(event, FailureReason::Refused(why))),
        };
        let entry = self.queue.enqueue(event, self.overflow)?;
        let kind = match self.mode {
            Mode::Jetstream => ReceiptKind::StoredByStream,
            Mode::Core => ReceiptKind::HandedToBroker,
        };
        Ok(Receipt::in_send_queue(Arc::clone(&self.queue), entry, kind))
    }

    /// Blocks until every event passed in before this call is acknowledged by its stream or has failed, at most for `timeout`; in mode
    /// `core`, until the server has read it.
    fn flush(&self, timeout: Duration) -> Result<(), FlushError> {
        self.queue.flush(deadline::after(timeout))
    }

    /// Sends what is in the buffer, and ends. Blocks at most for `timeout`, whatever the broker does.
    ///
    /// Every event that is not confirmed by then comes back, however many there are: with [`FailureReason::Closed`] if it is not
    /// stored, with [`FailureReason::Unconfirmed`] if it was sent and may be stored or still be on its way.
    fn close(&self, timeout: Duration) -> Result<(), FlushError> {
        self.end(timeout)
    }

    fn health(&self) -> Health {
        Health::of([&self.condition])
    }
}

impl Drop for NatsRecorder {
    fn drop(&mut self) {
        if !self.stop.is_raised() {
            log_dropped(self.end(DROP_TIMEOUT));
        }
    }
}
