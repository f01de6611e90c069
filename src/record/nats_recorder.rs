//! Recording through a NATS server: to a JetStream stream, or to whoever listens.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::send_queue::{Bounds, SendQueue, Settled};
use super::{FailureReason, FlushError, Receipt, ReceiptKind, RecordError, Recorder, RecorderCounters};
use crate::broker::{Cluster, KnownStreams, Publisher};
use crate::config::{BrokerConfig, Mode};
use crate::deadline;
use crate::error::Error;
use crate::event::Event;
use crate::pipeline::{Condition, Health, Signal, ThreadGroup};

/// The first pause before connecting again.
const FIRST_PAUSE: Duration = Duration::from_millis(50);

/// How long an event may be told that no stream takes it, from a server that has kept some before: a cluster that elects
/// a leader says so too, and one that starts.
const ELECTION: Duration = Duration::from_secs(30);

/// How long a recorder that is dropped goes on trying to send what waits.
const LAST_EFFORT: Duration = Duration::from_secs(5);

/// How a [`NatsRecorder`] works.
#[derive(Clone, Debug)]
pub struct NatsRecorderConfig {
    /// The broker. `stream` and `subjects` are not used: a stream takes what its subjects say. With `mode` `core` there is no
    /// stream: see [`NatsRecorder`].
    pub broker: BrokerConfig,
    /// At most this many events wait, sent ones included. Default 50,000.
    pub buffer_events: usize,
    /// At most this many bytes wait, sent ones included. Default 64 MiB.
    pub buffer_bytes: usize,
    /// What to do when there is no room. Default: block for 5 s.
    pub overflow: Overflow,
    /// Events sent and not confirmed yet, at most. Default 4,000.
    pub window: usize,
    /// Bytes sent and not confirmed yet, at most, unless a single event is larger. Default 1 MiB: over TLS the NATS client
    /// breaks a connection that has some 4 MB written which the server does not read. In mode `core` also
    /// no more than the connection carries in a quarter of `broker.silence`, as far as is known.
    pub window_bytes: usize,
    /// Start without the broker where it cannot be reached: events wait in the buffer until it can. What the broker would
    /// refuse, a password for instance, then shows in [`Recorder::health`] only. Default false: [`NatsRecorder::open`] fails.
    pub start_without_broker: bool,
    /// How long after it was sent for the first time an event may be sent again, at most. The stream's own `duplicate_window`
    /// counts where it is shorter: the recorder asks for it, again on each new connection before it sends anything again, and keeps
    /// off its end by `broker.silence` or half of the window. An event without an answer for longer is looked for
    /// among the last 20,000 messages of the stream, by its identity, once there is a connection. If it is not found, it
    /// is given back with [`FailureReason::Unconfirmed`], for it may still be on its way. Where the user may not ask
    /// (`$JS.API.STREAM.INFO.<stream>`, `$JS.API.STREAM.MSG.GET.<stream>`), only this setting counts, and nothing is found. Default 2
    /// minutes, as the server's. In mode `core` nothing recognises a repetition, and this is not used.
    pub duplicate_window: Duration,
}

/// What `record` does when the buffer is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overflow {
    /// Blocks for room, at most for this long, then gives the event back.
    Block(Duration),
    /// Gives the event back at once.
    Refuse,
}

impl Default for NatsRecorderConfig {
    fn default() -> Self {
        Self {
            broker: BrokerConfig::default(),
            buffer_events: 50_000,
            buffer_bytes: 64 << 20,
            overflow: Overflow::Block(Duration::from_secs(5)),
            window: 4_000,
            window_bytes: 1 << 20,
            start_without_broker: false,
            duplicate_window: Duration::from_secs(120),
        }
    }
}

/// Publishes events to a stream, or in core NATS to whoever listens, and tells when it has them.
///
/// `record` hands over and returns at once. Events are sent in the order of their hand-over, many at a time unconfirmed; after a
/// lost connection the unconfirmed ones are sent again under the same identity, which the stream recognises, or looked for in the
/// stream where it may not recognise them any more. An event counts as recorded when the stream has acknowledged it or was
/// found to have it, and not before. What other programs answer on an event's subject is passed over.
///
/// With [`Mode::Core`] there is no stream, and nobody acknowledges anything. An event counts as recorded when the server has
/// read it: when it has answered a flush that stands behind it. So [`Recorder::flush`] and [`NatsRecorder::close`] mean that
/// the server has everything, not that anybody stored it ([`ReceiptKind::HandedToBroker`]). When a connection is lost, events that
/// were sent and not known to be read come back with [`FailureReason::Unconfirmed`], for sent again they could arrive twice; those not
/// sent yet go to the next connection, and may arrive before an uncertain one that is still on its way. An event that the user
/// may not publish comes back with [`FailureReason::Refused`].
///
/// Dropping the recorder goes on sending for up to 5 seconds; call [`Recorder::flush`] first to know.
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
    thread_group: ThreadGroup,
    stop: Signal,
    condition: Condition,
}

impl NatsRecorder {
    /// Connects to the servers (comma separated), with default settings.
    ///
    /// # Errors
    ///
    /// As [`NatsRecorder::open`].
    pub fn connect(servers: &str) -> Result<Self, Error> {
        let servers = servers.split(',').map(|server| server.trim().to_owned()).collect();
        let broker = BrokerConfig { servers, ..BrokerConfig::default() };
        Self::open(NatsRecorderConfig { broker, ..NatsRecorderConfig::default() })
    }

    /// Connects. Blocks at most for `broker.timeout`. A broker that goes away later is waited for.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] or [`Error::Broker`].
    pub fn open(config: NatsRecorderConfig) -> Result<Self, Error> {
        config.broker.validate()?;
        if config.window == 0 || config.buffer_events == 0 {
            return Err(Error::config("recorder", "window and buffer_events must be at least 1"));
        }
        let mode = config.broker.mode;
        let bounds = Bounds {
            events: config.buffer_events,
            bytes: config.buffer_bytes,
            window: config.window,
            window_bytes: config.window_bytes,
            repeatable: repeatable(&config, None),
            // One answer for all that is under way, and it must come before the server counts as silent.
            patience: (mode == Mode::Core).then_some(config.broker.silence),
        };
        let stop = Signal::default();
        let cluster = Arc::new(Cluster::new(&config.broker)?);
        let condition = Condition::new("broker");
        let known = Arc::new(KnownStreams::new(&config.broker));
        let publisher = match Publisher::open(&cluster, &stop, &known) {
            Ok(publisher) => Some(publisher),
            Err(error @ Error::Broker { .. }) if config.start_without_broker => {
                condition.degrade(format!("{error}; trying again"));
                None
            }
            Err(error) => return Err(error),
        };
        let limit = publisher.as_ref().map_or(usize::MAX, Publisher::max_payload);
        let queue = Arc::new(SendQueue::new(bounds, limit));
        let mut thread_group = ThreadGroup::new(stop.clone());
        let overflow = config.overflow;
        let sender = EventSender {
            config,
            cluster,
            known,
            queue: Arc::clone(&queue),
            stop: stop.clone(),
            condition: condition.clone(),
            nonce: nonce(),
        };
        thread_group.spawn("catchment-sender", move || {
            sender.run(publisher);
            Ok(())
        })?;
        Ok(Self { queue, overflow, mode, thread_group, stop, condition })
    }

    /// Takes no more events, sends what waits, and ends. Blocks at most for `patience`, whatever the broker does. Every event
    /// that is not confirmed by then comes back, however many: with [`FailureReason::Closed`] if it is not stored, with
    /// [`FailureReason::Unconfirmed`] if it was sent, for then it may be stored or not. It comes back by its receipt where that
    /// is still held, else in the error. An unconfirmed one may still be on its way.
    ///
    /// # Errors
    ///
    /// [`FlushError::Failed`] with the events whose receipts are gone; [`FlushError::Deadline`] where the receipts of all of
    /// them are held.
    pub fn close(mut self, patience: Duration) -> Result<(), FlushError> {
        self.end(patience)
    }

    /// What became of all events so far, in numbers. It can be asked after [`NatsRecorder::close`] too.
    #[must_use]
    pub fn counters(&self) -> RecorderCounters {
        RecorderCounters::of(Arc::clone(&self.queue))
    }

    fn end(&mut self, patience: Duration) -> Result<(), FlushError> {
        let until = deadline::after(patience);
        self.queue.close();
        let ended = match self.queue.flush(until) {
            // Whatever the sender is in the middle of: it gives out nothing any more.
            Err(FlushError::Deadline { trouble, .. }) => match self.queue.abandon() {
                0 => self.queue.failures(),
                waiting => self.queue.failures().and(Err(FlushError::Deadline { waiting, trouble })),
            },
            flushed => flushed,
        };
        self.stop.raise();
        // One that has not ended by then ends by itself.
        if let Err(error) = self.thread_group.join_until(until.min(Instant::now() + Duration::from_secs(1))) {
            log::error!("recorder: {error}");
        }
        ended
    }
}

impl Recorder for NatsRecorder {
    fn record(&self, event: Event) -> Result<Receipt, RecordError> {
        if let Err(what) = event.validate() {
            return Err(RecordError { event: Box::new(event), reason: FailureReason::Invalid(what) });
        }
        let entry = self.queue.hand_in(event, self.overflow)?;
        let kind = match self.mode {
            Mode::Jetstream => ReceiptKind::StoredByStream,
            Mode::Core => ReceiptKind::HandedToBroker,
        };
        Ok(Receipt::in_send_queue(Arc::clone(&self.queue), entry, kind))
    }

    fn flush(&self, patience: Duration) -> Result<(), FlushError> {
        self.queue.flush(deadline::after(patience))
    }

    fn health(&self) -> Health {
        Health::of([&self.condition])
    }
}

impl Drop for NatsRecorder {
    fn drop(&mut self) {
        if !self.stop.is_raised()
            && let Err(error) = self.end(LAST_EFFORT)
        {
            log::error!("recorder: dropped with {error}");
        }
    }
}

/// Tells this recorder's made-up identities from all others'.
fn nonce() -> String {
    static RECORDERS: AtomicU64 = AtomicU64::new(0);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let number = RECORDERS.fetch_add(1, Ordering::Relaxed);
    format!("{:x}-{:x}-{number}", now.as_nanos(), std::process::id())
}

/// How long after an event was sent for the first time it may be sent again, where the streams allow this long.
fn repeatable(config: &NatsRecorderConfig, of_streams: Option<Duration>) -> Duration {
    match config.broker.mode {
        Mode::Jetstream => of_streams.map_or(config.duplicate_window, |time| time.min(config.duplicate_window)),
        Mode::Core => Duration::ZERO,
    }
}

/// How a connection ended.
struct Ended {
    why: String,
    /// Whether anything was said of an event on it.
    heard: bool,
}

/// Keeps a connection going and brings back what is said of events.
struct EventSender {
    config: NatsRecorderConfig,
    cluster: Arc<Cluster>,
    known: Arc<KnownStreams>,
    queue: Arc<SendQueue>,
    stop: Signal,
    condition: Condition,
    nonce: String,
}

/// Whichever way the sender ends, nobody waits for it any more.
struct Abandoned<'d>(&'d SendQueue);

impl Drop for Abandoned<'_> {
    fn drop(&mut self) {
        self.0.abandon();
    }
}

impl EventSender {
    fn run(&self, first: Option<Publisher>) {
        let _abandoned = Abandoned(&self.queue);
        let mut publisher = first;
        let first_pause = FIRST_PAUSE.min(self.config.broker.retry);
        let mut pause = first_pause;
        while !self.stop.is_raised() && !self.queue.is_done() {
            let open = || Publisher::open(&self.cluster, &self.stop, &self.known);
            match publisher.take().map_or_else(open, Ok) {
                Ok(publisher) => {
                    self.clear_up(&publisher);
                    let Ended { why, heard } = self.attend(&publisher);
                    if !self.stop.is_raised() && !self.queue.is_done() {
                        self.condition.degrade(format!("{why}; connecting again"));
                    }
                    self.queue.disconnect(why);
                    // One that said nothing is not replaced at once.
                    if !heard {
                        let _ = self.stop.wait(pause);
                    }
                    pause = if heard { first_pause } else { (pause * 2).min(self.config.broker.retry) };
                }
                // Connecting was broken off.
                Err(_) if self.stop.is_raised() => break,
                Err(error) => {
                    self.condition.degrade(format!("{error}; trying again"));
                    self.queue.disconnect(error.to_string());
                    let _ = self.stop.wait(pause);
                    pause = (pause * 2).min(self.config.broker.retry);
                }
            }
            // A stream can be asked once there is a connection.
            if self.config.broker.mode == Mode::Core {
                self.queue.give_up_unconfirmed(Duration::ZERO);
            }
        }
    }

    /// Finds out on a new connection what became of events that were sent on an older one and not confirmed. Those that their
    /// stream still recognises are sent again. The others are looked for in the stream, and given up where they are
    /// not found.
    fn clear_up(&self, publisher: &Publisher) {
        let subjects = self.queue.subjects_in_doubt();
        if !subjects.is_empty() {
            // The window may have been edited meanwhile.
            publisher.ask_streams(&subjects, &self.stop);
        }
        let repeatable = repeatable(&self.config, self.known.repeatable());
        // Those included that may have to wait for their turn for too long.
        let (doubtful, after) = self.queue.doubtful(repeatable.saturating_sub(self.config.broker.silence));
        if !doubtful.is_empty() {
            let found = publisher.search(&doubtful, &self.nonce, after.as_ref(), &self.stop);
            log::info!(
                "recorder: of {} events without an answer {} are found in the stream",
                doubtful.len(),
                found.len()
            );
            let _ = self.queue.settle(found, Duration::ZERO);
        }
        self.queue.give_up_unconfirmed(repeatable);
    }

    /// Serves one connection until it ends.
    fn attend(&self, publisher: &Publisher) -> Ended {
        let mut heard = false;
        let why = self.serve(publisher, &mut heard);
        Ended { why, heard }
    }

    /// Says why the connection ended, and whether anything was said of an event on it.
    fn serve(&self, publisher: &Publisher, heard: &mut bool) -> String {
        publisher.start(self.queue.connect(publisher.max_payload()), &self.nonce);
        let silence = self.config.broker.silence;
        let mut last_heard = Instant::now();
        loop {
            let verdicts = publisher.verdicts(silence / 4, self.queue.woken(), &|number| self.queue.subject_of(number));
            if publisher.has_questions() {
                self.queue.interrupt();
            }
            if let Some(remark) = publisher.remark() {
                self.condition.degrade(remark.clone());
                self.queue.is_troubled_by(remark);
            }
            for remark in publisher.denials() {
                self.condition.degrade(remark.clone());
                self.queue.deny(&remark);
            }
            if !verdicts.is_empty() {
                *heard = true;
                last_heard = Instant::now();
            }
            let some_kept = verdicts.iter().any(|verdict| verdict.result.is_ok());
            let timeout = self.config.broker.timeout;
            let patience = if self.queue.has_kept_any() { ELECTION.max(timeout) } else { timeout / 2 };
            if let Settled::Again(reason) = self.queue.settle(verdicts, patience) {
                self.condition.degrade(format!("{reason}; sending again"));
            } else if some_kept {
                self.condition.recover();
            }
            if self.stop.is_raised() || self.queue.is_done() {
                return "closed".into();
            }
            if publisher.should_move() {
                let why =
                    format!("{} goes out of service (lame duck mode); moving to another server", publisher.address());
                if self.config.broker.mode == Mode::Jetstream {
                    return why;
                }
                // What is under way could not be sent again elsewhere: it is waited for, and nothing follows it.
                self.queue.disconnect(why.clone());
                if !self.queue.is_under_way() {
                    return why;
                }
            }
            if publisher.lost().is_raised() {
                return format!("the connection to {} was lost", publisher.address());
            }
            // An event may stay without an answer while others get theirs, one that the user may not publish for instance.
            let waited = self.queue.oldest_wait().unwrap_or_default();
            if waited >= 4 * silence || (waited >= silence && last_heard.elapsed() >= silence) {
                publisher.fell_silent();
                self.queue.fell_silent();
                return format!("{} has not confirmed an event for {silence:?}", publisher.address());
            }
        }
    }
}
