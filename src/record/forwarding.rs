//! Publishes events that are kept in a file, in their order, and marks in the file what is in the stream.

mod forwarder;
mod loaded;

use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;
use parking_lot::{Condvar, Mutex};

use super::NatsRecorderConfig;
use super::event_sender::{self, EventSender};
use super::send_queue::{Bounds, SendQueue};
use super::stream_outcomes::StreamOutcomes;
use crate::broker::{Cluster, KnownStreams};
use crate::error::Error;
use crate::event_id::{EventIds, NameRange};
use crate::pipeline::{Condition, Problem, Signal, ThreadGroup};
use crate::store::StoredEvent;
use forwarder::Forwarder;

/// Where events are kept until they are in the stream.
pub(super) trait ForwardStore: Send + 'static {
    /// The events after this position, in order: at most so many, and no more after so many bytes. None, if there are none yet.
    fn read(&mut self, after: u64, events: usize, bytes: usize) -> Result<Vec<StoredEvent>, Problem>;

    /// Notes that all events up to this position are in the stream, or given up.
    fn done_through(&mut self, position: u64) -> Result<(), Problem>;

    /// Keeps these events as dead letters, each for its reason.
    fn give_up(&mut self, events: &[(u64, String)]) -> Result<(), Problem>;

    /// Does some work that has time. Returns whether there is more.
    fn tidy(&mut self) -> Result<bool, Problem>;

    /// The last event that was dropped to make room.
    fn dropped_through(&self) -> u64 {
        0
    }

    /// The error for a problem that ends the work.
    fn error(&self, problem: Problem) -> Error;
}

/// What to forward, and how.
pub(super) struct ForwardOptions {
    /// The broker and the window.
    pub(super) config: NatsRecorderConfig,
    /// The names of the events.
    pub(super) names: Vec<NameRange>,
    /// The events after this position are forwarded.
    pub(super) after: u64,
    /// How long an event that the server refuses is sent again, while others are stored.
    pub(super) patience: Duration,
    /// How often to look for events, where nobody calls [`Forwarding::wake`].
    pub(super) poll: Option<Duration>,
    /// What prevents reading and marking the events.
    pub(super) of_file: Condition,
    /// What prevents publishing.
    pub(super) of_broker: Condition,
}

/// The threads that forward events.
#[derive(Debug)]
pub(super) struct Forwarding {
    queue: Arc<SendQueue>,
    progress: Arc<ProgressCell>,
    wake: Sender<()>,
    sender: ThreadGroup,
    forwarder: ThreadGroup,
    sender_stop: Signal,
    forwarder_stop: Signal,
}

/// How far the events are forwarded, in this process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct ForwardProgress {
    /// Events that the stream has stored.
    pub(super) forwarded: u64,
    /// Events that were given up.
    pub(super) given_up: u64,
    /// All events up to this position are in the stream, given up or dropped.
    pub(super) done_through: u64,
    /// The last look found no further events, and all are done and marked in the file.
    pub(super) is_idle: bool,
    /// When the oldest event that waits was recorded, in microseconds since 1970.
    pub(super) oldest_us: Option<i64>,
}

#[derive(Debug, Default)]
struct ProgressCell {
    now: Mutex<ForwardProgress>,
    changed: Condvar,
}

impl ProgressCell {
    fn set(&self, progress: ForwardProgress) {
        let mut now = self.now.lock();
        if *now != progress {
            *now = progress;
            drop(now);
            self.changed.notify_all();
        }
    }
}

impl Forwarding {
    /// Starts the threads. The broker need not be there.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] or [`Error::Thread`].
    pub(super) fn start(
        options: ForwardOptions,
        store: impl ForwardStore,
        outcomes: Option<Arc<StreamOutcomes>>,
    ) -> Result<Self, Error> {
        let ForwardOptions { config, names, after, patience, poll, of_file, of_broker } = options;
        let cluster = Arc::new(Cluster::new(&config.broker)?);
        let known_streams = Arc::new(KnownStreams::new(&config.broker, config.identity));
        let bounds = Bounds {
            // The forwarder adds no more than it may.
            events: usize::MAX,
            bytes: usize::MAX,
            window: config.window,
            window_bytes: config.window_bytes,
            resend_window: event_sender::resend_window(&config, None),
            flush_timeout: None,
            patience: Some(patience),
        };
        let ids = EventIds::with_names(config.identity, names);
        // The size of an event is checked once a connection shows the limit.
        let queue = Arc::new(SendQueue::new(bounds, usize::MAX));
        let (reports, results) = crossbeam_channel::unbounded();
        queue.report_to(reports);
        let (wake, woken) = crossbeam_channel::bounded(1);
        let progress = Arc::new(ProgressCell::default());
        let (sender_stop, forwarder_stop) = (Signal::default(), Signal::default());
        let mut forwarding = Self {
            queue: Arc::clone(&queue),
            progress: Arc::clone(&progress),
            wake,
            sender: ThreadGroup::new(sender_stop.clone()),
            forwarder: ThreadGroup::new(forwarder_stop.clone()),
            sender_stop: sender_stop.clone(),
            forwarder_stop: forwarder_stop.clone(),
        };
        let sender =
            EventSender::new(config, cluster, known_streams, Arc::clone(&queue), sender_stop, of_broker).with_ids(ids);
        forwarding.sender.spawn("catchment-sender", move || {
            sender.run(None);
            Ok(())
        })?;
        let forwarder = Forwarder::new(store, after, queue, (results, woken), progress, outcomes, of_file, poll);
        forwarding.forwarder.spawn("catchment-forwarder", move || forwarder.run(&forwarder_stop))?;
        Ok(forwarding)
    }

    /// Wakes the thread that reads events, after some were added.
    pub(super) fn waker(&self) -> impl Fn() + Send + Sync + 'static {
        let wake = self.wake.clone();
        move || {
            // Full: it will look anyway.
            let _ = wake.try_send(());
        }
    }

    /// Where events wait for their answers.
    pub(super) fn queue(&self) -> &Arc<SendQueue> {
        &self.queue
    }

    pub(super) fn progress(&self) -> ForwardProgress {
        *self.progress.now.lock()
    }

    /// Blocks until the progress is as wanted, until then at the latest. Returns whether it is.
    pub(super) fn wait(&self, until: Instant, is_wanted: impl Fn(&ForwardProgress) -> bool) -> bool {
        let mut now = self.progress.now.lock();
        while !is_wanted(&now) {
            if self.progress.changed.wait_until(&mut now, until).timed_out() {
                return is_wanted(&now);
            }
        }
        true
    }

    /// The error of the thread that reads, if it has ended.
    pub(super) fn failure(&self) -> Option<Error> {
        self.forwarder.join_until(Instant::now()).err()
    }

    /// Sends no more, marks in the file what is known to be in the stream, and ends. A thread that hangs is left.
    pub(super) fn stop(&self, until: Instant) {
        /// What a thread gets at least: it writes a last mark.
        const LEAST: Duration = Duration::from_millis(500);
        self.queue.abandon();
        self.sender_stop.raise();
        let until = until.max(Instant::now() + LEAST);
        for (thread, stop) in [(&self.sender, &self.sender_stop), (&self.forwarder, &self.forwarder_stop)] {
            stop.raise();
            if let Err(error) = thread.join_until(until) {
                log::error!(event = "recorder.failed", error:% = error; "recorder: {error}");
            }
        }
    }
}
