//! The thread that sends a recorder's events and processes the answers.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::NatsRecorderConfig;
use super::send_queue::{GracePeriods, SendQueue, SettleResult};
use crate::broker::{Cluster, KnownStreams, Liveness, PublishResult, Publisher, Reconnect, Rejection};
use crate::config::Mode;
use crate::counted;
use crate::event_id::{EventIds, Identity};
use crate::pipeline::{Condition, Signal};

/// How long the answer that no stream takes an event is not final, where a stream has its subject or has stored others. A cluster
/// gives this answer while it elects a leader and while it starts.
const LEADER_ELECTION: Duration = Duration::from_secs(30);

/// How long a denial counts as trouble. Only some events may be denied, and the condition must not change with each of them.
const DENIAL: Duration = Duration::from_secs(10);

/// Denied subjects that are remembered, so that each is logged once.
const MAX_DENIED: usize = 1_000;

/// Keeps a connection open, sends the events of the queue, and sets their outcomes.
pub(super) struct EventSender {
    config: NatsRecorderConfig,
    cluster: Arc<Cluster>,
    known_streams: Arc<KnownStreams>,
    queue: Arc<SendQueue>,
    stop: Signal,
    condition: Condition,
    ids: EventIds,
    /// Whether a stream may be about to be made.
    expects_stream: Box<dyn Fn() -> bool + Send>,
}

/// Dropped when the thread ends, panics included: no caller goes on waiting for it.
struct AbandonOnDrop<'q>(&'q SendQueue);

impl Drop for AbandonOnDrop<'_> {
    fn drop(&mut self) {
        self.0.abandon();
    }
}

impl EventSender {
    pub(super) fn new(
        config: NatsRecorderConfig,
        cluster: Arc<Cluster>,
        known_streams: Arc<KnownStreams>,
        queue: Arc<SendQueue>,
        stop: Signal,
        condition: Condition,
    ) -> Self {
        let (ids, expects_stream) = (EventIds::new(config.identity), Box::new(|| false));
        Self { config, cluster, known_streams, queue, stop, condition, ids, expects_stream }
    }

    /// Sends events with these names instead of one that is drawn.
    pub(super) fn with_ids(self, ids: EventIds) -> Self {
        Self { ids, ..self }
    }

    /// Asks this whether a stream may be about to be made, while none takes an event.
    pub(super) fn expecting(self, expects_stream: impl Fn() -> bool + Send + 'static) -> Self {
        Self { expects_stream: Box::new(expects_stream), ..self }
    }

    /// Runs until the recorder is closed and has nothing left to send, or until it is stopped.
    pub(super) fn run(&self, first: Option<Publisher>) {
        let _abandon = AbandonOnDrop(&self.queue);
        let mut publisher = first;
        // A server that answered nothing may fail again at once.
        let mut reconnect = Reconnect::new(&self.config.broker, &self.condition, &self.stop).strict();
        while !self.stop.is_raised() && !self.queue.is_done() {
            let open = || Publisher::open(&self.cluster, &self.stop, &self.known_streams);
            match publisher.take().map_or_else(open, Ok) {
                Ok(publisher) => {
                    reconnect.opened();
                    // Without a stream, only the subscribers of this moment get an event. They have lost the server too.
                    if self.config.broker.mode == Mode::Core && self.stop.wait(reconnect.others_need()) {
                        break;
                    }
                    self.resolve_unconfirmed(&publisher);
                    let reason = self.serve(&publisher, &mut reconnect);
                    if !self.stop.is_raised() && !self.queue.is_done() {
                        reconnect.ended(&*reason);
                    }
                    self.queue.disconnect(reason);
                    let _ = reconnect.wait(Duration::MAX);
                }
                // The stop interrupted connecting.
                Err(_) if self.stop.is_raised() => break,
                Err(error) => {
                    reconnect.failed(&error);
                    self.queue.disconnect(error.to_string());
                    let _ = reconnect.wait(Duration::MAX);
                }
            }
            // With a stream, the next connection asks the stream first.
            if self.config.broker.mode == Mode::Core {
                self.queue.fail_unconfirmed(Duration::ZERO);
            }
        }
    }

    /// On a new connection, finds out about events that were sent on an older one and not confirmed. Those that their stream still
    /// recognises are sent again. The others are looked for in the stream. Where they are not found, they are sent again if a database
    /// recognises them, and fail otherwise.
    fn resolve_unconfirmed(&self, publisher: &Publisher) {
        let subjects = self.queue.unconfirmed_subjects();
        if !subjects.is_empty() {
            // The duplicate window may have been changed meanwhile.
            publisher.ask_streams(&subjects, &self.stop);
        }
        let of_streams = self.known_streams.repeatable();
        // Includes events whose window may end before it is their turn to be sent.
        let age = recognised_for(&self.config, of_streams).saturating_sub(self.config.broker.silence);
        let (unconfirmed, after) = self.queue.unconfirmed(age);
        if !unconfirmed.is_empty() {
            let found = publisher.search(&unconfirmed, &self.ids, after.as_ref(), &self.stop);
            let (count, found_count) = (unconfirmed.len(), found.len());
            let count = counted(count as u64, "event");
            log::info!(
                event = "recorder.searched", events = unconfirmed.len(), found = found_count;
                "recorder: of {count} without an answer, {found_count} found in the stream"
            );
            let _ = self.queue.settle(found, Duration::ZERO);
        }
        self.queue.fail_unconfirmed(resend_window(&self.config, of_streams));
    }

    /// Uses one connection until it ends. Returns why it ended.
    fn serve(&self, publisher: &Publisher, reconnect: &mut Reconnect) -> String {
        publisher.start(self.queue.connect(publisher.max_payload()), &self.ids);
        let silence = self.config.broker.silence;
        let mut liveness = Liveness::new(silence);
        let (mut denied, mut denied_until) = (HashSet::new(), Instant::now());
        let mut refusal = None;
        loop {
            let results = publisher.results(silence / 4, self.queue.woken(), &|number| self.queue.subject_of(number));
            if publisher.has_questions() {
                self.queue.interrupt();
            }
            if let Some(remark) = publisher.remark() {
                self.condition.degrade(remark.clone());
                self.queue.set_trouble(remark);
            }
            for denial in publisher.denials() {
                denied_until = Instant::now() + DENIAL;
                let is_new = denied.len() < MAX_DENIED && denied.insert(denial.to_string());
                if is_new || self.condition.trouble().is_none() {
                    self.condition.degrade(denial.to_string());
                }
                self.queue.fail_denied(&denial);
            }
            let is_answered = !results.is_empty();
            if is_answered {
                reconnect.productive();
                liveness.answered(Instant::now());
            }
            let any_stored = results.iter().any(|result| result.result.is_ok());
            let grace = self.grace(&results);
            if let SettleResult::Retry(reason) = self.queue.settle(results, grace) {
                self.condition.degrade(format!("{reason}; sending again"));
                refusal = Some(reason);
            } else if any_stored && Instant::now() >= denied_until {
                self.condition.recover();
                refusal = None;
            } else if is_answered && let Some(reason) = refusal.take() {
                // The events were given back.
                self.condition.degrade(reason);
            }
            if self.stop.is_raised() || self.queue.is_done() {
                return "closed".into();
            }
            if let Some(departure) = publisher.departure(&liveness) {
                let reason = departure.to_string();
                if self.config.broker.mode == Mode::Jetstream {
                    return reason;
                }
                // In core NATS, events in flight could not be sent again elsewhere. Wait for their answers and send no more.
                self.queue.disconnect(reason.clone());
                if !self.queue.has_in_flight() {
                    return reason;
                }
            }
            if let Some(loss) = publisher.loss(&liveness) {
                return loss.to_string();
            }
            // One event may have no answer while others do, for instance where the user may not publish it.
            let oldest_wait = self.queue.oldest_wait().unwrap_or_default();
            if let Some(silent) = publisher.check_confirmations(&liveness, oldest_wait) {
                self.queue.shrink_window();
                return silent.to_string();
            }
        }
    }

    /// How long these events are sent again if no stream takes them.
    fn grace(&self, results: &[PublishResult]) -> GracePeriods {
        if let Some(give_up_after) = self.queue.give_up_after() {
            return give_up_after.into();
        }
        let timeout = self.config.broker.timeout;
        let lacks_stream = || results.iter().any(|result| matches!(result.result, Err(Rejection::NoStream)));
        let no_stream = if self.queue.has_stored_any() {
            LEADER_ELECTION.max(timeout)
        } else if lacks_stream() && (self.expects_stream)() {
            // The reason is known a little before a caller that waits as long gives up.
            timeout.mul_f64(0.9)
        } else {
            timeout / 2
        };
        GracePeriods { no_stream, no_leader: LEADER_ELECTION.max(timeout) }
    }
}

/// How long after it was first sent an event may be sent again. `of_streams` is how long the streams recognise a repetition, where
/// that is known. A database always does.
pub(super) fn resend_window(config: &NatsRecorderConfig, of_streams: Option<Duration>) -> Duration {
    match config.broker.mode {
        Mode::Jetstream if config.identity != Identity::Stream => Duration::MAX,
        Mode::Jetstream | Mode::Core => recognised_for(config, of_streams),
    }
}

/// How many events may be in flight until the first is stored.
pub(super) fn first_window(config: &NatsRecorderConfig) -> usize {
    /// The first acknowledgement brings the stream's settings. Then the others can be sent in batches.
    const FIRST: usize = 64;
    let depends_on_stream = matches!(config.identity, Identity::Database | Identity::Payload);
    if config.broker.mode == Mode::Jetstream && depends_on_stream { FIRST.min(config.window) } else { config.window }
}

/// How long after it was first sent a stream recognises an event.
fn recognised_for(config: &NatsRecorderConfig, of_streams: Option<Duration>) -> Duration {
    match config.broker.mode {
        Mode::Jetstream => of_streams.map_or(config.duplicate_window, |time| time.min(config.duplicate_window)),
        Mode::Core => Duration::ZERO,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_window_is_small_where_the_settings_of_the_stream_matter() {
        let of = |identity, mode, window| {
            let mut config = NatsRecorderConfig { window, identity, ..NatsRecorderConfig::default() };
            config.broker.mode = mode;
            first_window(&config)
        };
        for identity in [Identity::Database, Identity::Payload] {
            let windows = [(Mode::Jetstream, 8_000), (Mode::Jetstream, 7), (Mode::Core, 8_000)];
            assert_eq!(windows.map(|(mode, window)| of(identity, mode, window)), [64, 7, 8_000], "{identity:?}");
        }
        for identity in [Identity::Stream, Identity::Both] {
            assert_eq!(of(identity, Mode::Jetstream, 8_000), 8_000, "{identity:?}");
        }
    }
}
