//! The events of a [`NatsRecorder`](super::NatsRecorder), a spool or an outbox on their way to the broker: those to be sent, and those in
//! flight, which wait for the acknowledgement of the stream, or in core NATS for an answer of the server.
//!
//! Events are numbered as they are enqueued and sent in that order, as far as the window allows. An event that the server refuses
//! for now is sent again a moment later, without those after it. In a queue of events that are kept elsewhere too, the later ones of its
//! subject wait for it. A new connection starts again with all of them.

mod closing;
pub(super) mod entry;
mod source;
mod state;
mod stored;
mod subject_lines;
mod unconfirmed;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender};
use parking_lot::{Condvar, Mutex};

use entry::PendingEvent;
pub(super) use entry::{Entry, Outcome};
pub(super) use state::{Bounds, Report, Settled};
use state::{State, unlock_and_log};

use super::{Destination, FailureReason, Overflow, RecordError, RecordMetadata, RecorderCounts, expected_stream};
use crate::broker::{Acknowledgement, Denial, PublishResult, Rejection, wire_size};
use crate::deadline;
use crate::event::Event;

pub(super) struct SendQueue {
    bounds: Bounds,
    state: Mutex<State>,
    /// There is an event to send, or no more will come.
    has_events: Condvar,
    /// There is room for another event.
    has_room: Condvar,
    /// An event has an outcome.
    settled: Condvar,
    /// Wakes the sender, which waits for answers.
    wake: (Sender<()>, Receiver<()>),
    /// The connection has something else to do than to send events. Set under the lock.
    interrupted: AtomicBool,
}

/// What follows from the answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum SettleResult {
    /// The events have their outcomes, and none is left that was refused for now.
    Done,
    /// Some events have to be sent again. The reason may pass. It stays the same while it is true of its event.
    Retry(String),
}

/// How long an event is sent again that no stream takes: where no stream has its subject, and where one has or may have.
#[derive(Clone, Copy, Debug)]
pub(super) struct GracePeriods {
    pub(super) no_stream: Duration,
    pub(super) no_leader: Duration,
}

impl From<Duration> for GracePeriods {
    fn from(grace: Duration) -> Self {
        Self { no_stream: grace, no_leader: grace }
    }
}

impl GracePeriods {
    fn of(self, refused: &Rejection) -> Duration {
        if *refused == Rejection::NoLeader { self.no_leader } else { self.no_stream }
    }
}

/// Not its events: a receipt's `Debug` would show those of all others.
impl fmt::Debug for SendQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SendQueue").field("bounds", &self.bounds).finish_non_exhaustive()
    }
}

impl SendQueue {
    /// `max_payload` is the largest event that the server accepts.
    pub(super) fn new(bounds: Bounds, max_payload: usize) -> Self {
        Self {
            state: Mutex::new(State::new(&bounds, max_payload)),
            bounds,
            has_events: Condvar::new(),
            has_room: Condvar::new(),
            settled: Condvar::new(),
            wake: crossbeam_channel::bounded(1),
            interrupted: AtomicBool::new(false),
        }
    }

    /// Adds an event. Where there is no room, waits as `overflow` sets.
    pub(super) fn enqueue(&self, event: Event, overflow: Overflow) -> Result<Arc<Entry>, RecordError> {
        let size = event.size();
        let mut state = self.state.lock();
        if let Some(reason) = too_large(&event, state.max_payload) {
            return Err(RecordError::new(event, reason));
        }
        if let Overflow::Block(timeout) = overflow {
            let until = deadline::after(timeout);
            while !state.closed && !self.fits(&state, size) {
                if self.has_room.wait_until(&mut state, until).timed_out() {
                    break;
                }
            }
        }
        if state.closed {
            return Err(RecordError::new(event, FailureReason::Closed));
        }
        if !self.fits(&state, size) {
            let (events, bytes) = (state.pending.len(), state.bytes);
            return Err(RecordError::new(event, FailureReason::BufferFull { events, bytes }));
        }
        let number = state.next;
        Ok(self.insert(&mut state, number, event))
    }

    /// Adds an event under this number, which is greater than those before.
    fn insert(&self, state: &mut State, number: u64, event: Event) -> Arc<Entry> {
        state.next = number + 1;
        state.bytes += event.size();
        let entry = Arc::new(Entry::new(event));
        state.pending.insert(number, PendingEvent::new(Arc::clone(&entry)));
        if std::mem::take(&mut state.is_idle) {
            self.has_events.notify_one();
        }
        entry
    }

    /// In an empty buffer any event fits, however large.
    fn fits(&self, state: &State, size: usize) -> bool {
        state.pending.is_empty()
            || (state.pending.len() < self.bounds.events && state.bytes + size <= self.bounds.bytes)
    }

    /// Passes no more events to the current connection.
    pub(super) fn disconnect(&self, trouble: String) {
        let mut state = self.state.lock();
        state.connection += 1;
        // When everything is done, the connection was ended on purpose.
        if !state.is_done() {
            state.trouble = Some(trouble);
        }
        self.has_events.notify_all();
    }

    /// Sets the outcomes that the answers state. Within `grace`, the answer that no stream takes an event is not final: a server
    /// that has just started gives it too.
    pub(super) fn settle(&self, results: Vec<PublishResult>, grace: impl Into<GracePeriods>) -> SettleResult {
        let grace = grace.into();
        if results.is_empty() {
            return SettleResult::Done;
        }
        let mut any_stored = false;
        let mut answered = 0;
        let mut guard = self.state.lock();
        let state = &mut *guard;
        state.last_answer = state.connection;
        let waited = state.oldest_wait();
        for PublishResult { number, result } in results {
            let Some(outcome) = self.outcome_of(state, number, result, grace) else { continue };
            any_stored |= matches!(outcome, Outcome::Recorded(_));
            answered += state.settle(number, outcome);
        }
        self.adapt_window(state, answered, waited);
        state.has_stored_any |= any_stored;
        state.note_answers(any_stored);
        let settled =
            state.refusal.as_ref().map_or(SettleResult::Done, |refusal| SettleResult::Retry(refusal.reason.clone()));
        match &settled {
            SettleResult::Retry(trouble) => state.trouble = Some(trouble.clone()),
            SettleResult::Done if any_stored => state.trouble = None,
            SettleResult::Done => {}
        }
        self.notify_waiters(state);
        unlock_and_log(guard);
        settled
    }

    /// The outcome of an event with this result. `None` if it is to be sent again, which is scheduled then, or if it has one already.
    fn outcome_of(
        &self,
        state: &mut State,
        number: u64,
        result: Result<Acknowledgement, Rejection>,
        grace: GracePeriods,
    ) -> Option<Outcome> {
        let pending = state.pending.get_mut(&number)?;
        let refused = match result {
            Ok(taken) => {
                let destination = match taken {
                    Acknowledgement::ByStream { stream, sequence, duplicate } => {
                        if let Some(sequence) = sequence {
                            state.note_stored(&stream, sequence);
                        }
                        Destination::Stream { stream, sequence, duplicate }
                    }
                    Acknowledgement::ByServer => Destination::Broker,
                };
                return Some(Outcome::Recorded(RecordMetadata { destination }));
            }
            Err(refused) => refused,
        };
        let has_no_stream = matches!(refused, Rejection::NoStream | Rejection::NoLeader);
        let is_kept_elsewhere = self.bounds.give_up_after.is_some() && !refused.is_too_large();
        let is_sent_again = if is_kept_elsewhere {
            refused.may_pass() || state.is_held(number, grace.of(&refused))
        } else if has_no_stream {
            pending.first_refused.get_or_insert_with(Instant::now).elapsed() < grace.of(&refused)
        } else {
            matches!(refused, Rejection::ForNow(_))
        };
        if is_sent_again {
            let (is_of_subject, is_full) = (refused.is_of_subject(), refused.may_pass());
            let reason = state.refusal_of(number, refused);
            state.schedule_retry(number, reason);
            if is_kept_elsewhere && is_of_subject {
                state.put_in_line(number, is_full);
            }
            return None;
        }
        let pending = state.pending.get(&number)?;
        let reason = match refused {
            Rejection::NoStream | Rejection::NoLeader => FailureReason::NoStream,
            Rejection::ByServer(why) | Rejection::ForNow(why) => {
                FailureReason::Refused(expected_stream::explained(why, &pending.entry.event))
            }
        };
        Some(Outcome::Failed(pending.failure_reason(reason)))
    }

    /// Adapts the window in bytes to the speed of the connection, where all events in flight are answered together.
    fn adapt_window(&self, state: &mut State, answered: usize, waited: Option<Duration>) {
        let (Some(flush_timeout), Some(waited)) = (self.bounds.flush_timeout, waited) else { return };
        // An answer to few bytes may be late for other reasons than the speed of the connection, such as a busy machine. So a single
        // answer halves the window at most. On a slow connection the next ones reduce it further.
        let least = (state.window_bytes / 2).max(1);
        state.window_bytes = carried(answered, waited, flush_timeout / 4).max(least).min(self.bounds.window_bytes);
    }

    /// Makes the connection look for other work than events.
    pub(super) fn interrupt(&self) {
        let _state = self.state.lock();
        self.interrupted.store(true, Ordering::Relaxed);
        self.has_events.notify_all();
    }

    /// Sets what prevents events from being confirmed.
    pub(super) fn set_trouble(&self, trouble: String) {
        self.state.lock().trouble = Some(trouble);
    }

    /// What prevents events from being confirmed, if anything.
    pub(super) fn trouble(&self) -> Option<String> {
        self.state.lock().trouble.clone()
    }

    /// Fails the events in flight on the subject of this denial: the user may not publish there. A queue with `give_up_after`
    /// sends them again meanwhile.
    pub(super) fn fail_denied(&self, denial: &Denial) {
        let mut state = self.state.lock();
        if let Some(give_up_after) = self.bounds.give_up_after {
            state.hold_denied(denial, give_up_after);
        }
        state.fail(|pending| {
            let denied = pending.in_flight && denial.is_about(pending.entry.event.subject());
            denied.then(|| pending.failure_reason(FailureReason::Refused(denial.to_string())))
        });
        self.notify_waiters(&state);
        unlock_and_log(state);
    }

    /// Notifies the threads that wait for an outcome, for room or for events to send.
    fn notify_waiters(&self, state: &State) {
        self.settled.notify_all();
        self.has_room.notify_all();
        // A connection that has sent everything would be woken for nothing, once for each event where few come.
        if !state.is_idle || state.has_again() || state.is_done() || state.failures.has_unlogged() {
            self.has_events.notify_one();
        }
    }

    /// Notes that an event's receipt was dropped. A failure that the receipt did not report is kept for the next flush.
    pub(super) fn receipt_dropped(&self, entry: &Entry) {
        let mut state = self.state.lock();
        entry.receipt_dropped.store(true, Ordering::Relaxed);
        if let Some(Outcome::Failed(reason)) = entry.outcome.get()
            && !entry.reported.swap(true, Ordering::Relaxed)
        {
            state.failures.keep(RecordError::new((*entry.event).clone(), reason.clone()));
        }
        unlock_and_log(state);
    }

    /// Whether the stream has stored at least one event of this recorder.
    pub(super) fn has_stored_any(&self) -> bool {
        self.state.lock().has_stored_any
    }

    /// Whether events are in flight on the current connection.
    pub(super) fn has_in_flight(&self) -> bool {
        self.state.lock().in_flight.0 > 0
    }

    /// How long the oldest event in flight has waited for an answer.
    pub(super) fn oldest_wait(&self) -> Option<Duration> {
        self.state.lock().oldest_wait()
    }

    /// Reduces the window after a connection that did not answer in time: the events in flight may have been too much for it.
    pub(super) fn shrink_window(&self) {
        if self.bounds.flush_timeout.is_some() {
            let mut state = self.state.lock();
            state.window_bytes = (state.window_bytes / 4).max(1);
        }
    }

    /// How many events have which outcome.
    pub(super) fn counts(&self) -> RecorderCounts {
        self.state.lock().counts
    }

    /// Whether nothing is pending, and no event can be enqueued.
    pub(super) fn is_done(&self) -> bool {
        self.state.lock().is_done()
    }

    fn wake_sender(&self) {
        let _ = self.wake.0.try_send(());
    }

    /// Ready when the sender should check its state.
    pub(super) fn woken(&self) -> &Receiver<()> {
        &self.wake.1
    }

    /// Blocks until this entry has an outcome, at most until this time.
    pub(super) fn wait_for(&self, entry: &Entry, until: Instant) {
        let mut state = self.state.lock();
        while entry.outcome.get().is_none() && !self.settled.wait_until(&mut state, until).timed_out() {}
    }
}

fn too_large(event: &Event, limit: usize) -> Option<FailureReason> {
    let size = wire_size(event);
    (size > limit).then_some(FailureReason::TooLarge { size, limit })
}

/// How many bytes a connection carries in `time`, where it took `waited` for `bytes`.
#[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an estimate")]
fn carried(bytes: usize, waited: Duration, time: Duration) -> usize {
    (bytes as f64 * time.as_secs_f64() / waited.as_secs_f64().max(1e-6)) as usize
}

#[cfg(test)]
mod tests;
