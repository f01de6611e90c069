//! Publishes events that are kept in a file, in their order, and marks in the file what is in the stream.

mod forward_store;
mod forwarder;
mod loaded;
mod progress;
mod refused_events;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;

use super::NatsRecorderConfig;
use super::event_sender::{self, EventSender};
use super::send_queue::{Bounds, SendQueue};
use super::stream_outcomes::StreamOutcomes;
use crate::broker::{Cluster, KnownStreams};
use crate::error::Error;
use crate::event_id::{EventIds, NameRange};
use crate::pipeline::{Condition, Signal, ThreadGroup};
use crate::store::FirstRefusal;
pub(super) use forward_store::ForwardStore;
use forwarder::Forwarder;
pub(super) use progress::ForwardProgress;
use progress::ProgressCell;

/// What to forward, and how.
pub(super) struct ForwardOptions {
    /// The broker and the window.
    pub(super) config: NatsRecorderConfig,
    /// The names of the events.
    pub(super) names: Vec<NameRange>,
    /// Those that the server refused in earlier starts.
    pub(super) refused: HashMap<u64, FirstRefusal>,
    /// The events after this position are forwarded.
    pub(super) after: u64,
    /// How long an event that the server refuses is sent again, while others are stored.
    pub(super) give_up_after: Duration,
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
    is_stopped: AtomicBool,
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
        let ForwardOptions { config, names, refused, after, give_up_after, poll, of_file, of_broker } = options;
        let expected_stream = config.expected_stream.clone();
        let cluster = Arc::new(Cluster::new(&config.broker)?);
        let known_streams = Arc::new(KnownStreams::new(&config.broker, config.identity));
        let bounds = Bounds {
            // The forwarder adds no more than it may.
            events: usize::MAX,
            bytes: usize::MAX,
            window: config.window,
            first_window: event_sender::first_window(&config),
            window_bytes: config.window_bytes,
            resend_window: event_sender::resend_window(&config, None),
            flush_timeout: None,
            give_up_after: Some(give_up_after),
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
            is_stopped: AtomicBool::new(false),
        };
        let sender =
            EventSender::new(config, cluster, known_streams, Arc::clone(&queue), sender_stop, of_broker).with_ids(ids);
        forwarding.sender.spawn("catchment-sender", move || {
            sender.run(None);
            Ok(())
        })?;
        let mut forwarder = Forwarder::new(store, after, queue, (results, woken), progress, of_file);
        (forwarder.refused_before, forwarder.expected_stream) = (refused, expected_stream);
        (forwarder.outcomes, forwarder.poll) = (outcomes, poll);
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
        self.progress.now()
    }

    /// Blocks until the progress is as wanted, until then at the latest. Returns whether it is.
    pub(super) fn wait(&self, until: Instant, is_wanted: impl Fn(&ForwardProgress) -> bool) -> bool {
        self.progress.wait(until, is_wanted)
    }

    /// The error of the thread that reads, if it has ended.
    pub(super) fn failure(&self) -> Option<Error> {
        self.forwarder.join_until(Instant::now()).err()
    }

    /// Whether [`Forwarding::stop`] was called.
    pub(super) fn is_stopped(&self) -> bool {
        self.is_stopped.load(Ordering::Relaxed)
    }

    /// Sends no more, marks in the file what is known to be in the stream, and ends. A thread that hangs is left. Can be called again.
    pub(super) fn stop(&self, until: Instant) {
        /// What a thread gets at least: it writes a last mark.
        const LEAST: Duration = Duration::from_millis(500);
        let was_stopped = self.is_stopped.swap(true, Ordering::Relaxed);
        self.queue.abandon();
        self.sender_stop.raise();
        let until = until.max(Instant::now() + LEAST);
        for (thread, stop) in [(&self.sender, &self.sender_stop), (&self.forwarder, &self.forwarder_stop)] {
            stop.raise();
            if let Err(error) = thread.join_until(until)
                && !was_stopped
            {
                log::error!(event = "recorder.failed", error:% = error; "recorder: {error}");
            }
        }
    }
}
