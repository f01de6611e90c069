//! The state of a send queue, which its mutex protects.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;
use parking_lot::MutexGuard;

use super::entry::{Entry, Outcome, PendingEvent};
use super::subject_lines::SubjectLines;
use crate::broker::Rejection;
use crate::event::Event;
use crate::event_id::width;
use crate::printable;
use crate::record::counts::RecorderCounts;
use crate::record::failures::Failures;
use crate::record::{FailureReason, RecordError, RecordMetadata, expected_stream};

/// How long to wait before an event is sent again that the server refused for now.
const RETRY_PAUSE: Duration = Duration::from_millis(250);

/// The longest such pause, where the events are kept elsewhere too.
const LONGEST_RETRY_PAUSE: Duration = Duration::from_secs(4);

/// The window in bytes before the speed of a connection is known, where all events in flight are answered together.
const FIRST_WINDOW: usize = 64 << 10;

/// The limits of a send queue.
#[derive(Clone, Copy, Debug)]
pub(in crate::record) struct Bounds {
    pub(in crate::record) events: usize,
    pub(in crate::record) bytes: usize,
    /// Events in flight, at most.
    pub(in crate::record) window: usize,
    /// Events in flight, at most, until the stream has stored one. From then on its settings are known.
    pub(in crate::record) first_window: usize,
    /// Bytes in flight, at most, unless a single event is larger.
    pub(in crate::record) window_bytes: usize,
    /// How long after it was first sent an event may be sent again. [`State::resend_window`] replaces it once the stream's
    /// window is known.
    pub(in crate::record) resend_window: Duration,
    /// Set where all events in flight are answered together, once all of them have arrived: how long that may take. Then no more
    /// bytes are in flight than the connection carries in a quarter of this time. `None` where each event has its own answer.
    pub(in crate::record) flush_timeout: Option<Duration>,
    /// Set where the events are kept elsewhere too: how long an event that the server refuses is sent again at least. It is sent again
    /// for as long as no other event is stored: a missing stream or permission is no reason to give all events up.
    pub(in crate::record) give_up_after: Option<Duration>,
}

/// What happens to an event, for whoever keeps the events of this queue elsewhere too.
#[derive(Debug)]
pub(in crate::record) enum Report {
    /// The server refuses it for the first time, and it is sent again for a limited time.
    Refused(u64),
    /// It waits, because it or another of its subject is refused.
    Waits(u64),
    /// It has its outcome.
    Settled(Settled),
}

/// The outcome of an event.
#[derive(Debug)]
pub(in crate::record) struct Settled {
    pub(in crate::record) number: u64,
    pub(in crate::record) result: Result<RecordMetadata, FailureReason>,
}

#[derive(Debug)]
pub(super) struct State {
    /// Events without an outcome, by number.
    pub(super) pending: BTreeMap<u64, PendingEvent>,
    /// The number of the next event that is enqueued.
    pub(super) next: u64,
    /// All events before this number were sent on this connection, except those in `retry`, `ready` and `lines`.
    pub(super) to_send: u64,
    /// Events to send before those from `to_send` on.
    pub(super) ready: BTreeSet<u64>,
    /// The events of subjects that the server refuses for now, where the events are kept elsewhere too.
    pub(super) lines: SubjectLines,
    /// Events to send again because the server refused them for now, and the time from which they may be sent.
    pub(super) retry: BTreeSet<u64>,
    pub(super) retry_at: Instant,
    /// How many pending events the server refused for now.
    pub(super) refused: usize,
    /// Why it refused one of them.
    pub(super) refusal: Option<Refusal>,
    /// Events and bytes in flight on this connection.
    pub(super) in_flight: (usize, usize),
    /// The number of the last connection that brought an answer.
    pub(super) last_answer: u64,
    /// Bytes that may be in flight.
    pub(super) window_bytes: usize,
    /// The connection has sent everything, and sleeps until an event is enqueued or there is something else to do.
    pub(super) is_idle: bool,
    /// Bytes of all pending events.
    pub(super) bytes: usize,
    /// The number of the current connection. Older connections get no more events.
    pub(super) connection: u64,
    /// How long after it was first sent an event may be sent again.
    pub(super) resend_window: Duration,
    /// The largest event that the server accepts.
    pub(super) max_payload: usize,
    pub(super) closed: bool,
    /// The stream has stored at least one event of this recorder.
    pub(super) has_stored_any: bool,
    /// The name of the stream and the highest sequence that it acknowledged. The name is `None` before the first event, and once
    /// there are several streams.
    pub(super) last_stored: (Option<String>, u64),
    pub(super) failures: Failures,
    pub(super) counts: RecorderCounts,
    pub(super) trouble: Option<String>,
    /// When the stream last stored an event.
    stored_at: Option<Instant>,
    /// How often in a row the server refused events, while it stored none.
    pub(super) refusals: u32,
    /// Since when events are refused for now, as long as there are some.
    pub(super) refused_since: Option<Instant>,
    /// Gets the outcome of each event.
    pub(super) reports: Option<Sender<Report>>,
}

/// Why the server refused an event for now.
#[derive(Debug)]
pub(super) struct Refusal {
    number: u64,
    /// The event is sent again for a limited time only.
    is_limited: bool,
    pub(super) reason: String,
}

impl State {
    pub(super) fn new(bounds: &Bounds, max_payload: usize) -> Self {
        Self {
            pending: BTreeMap::new(),
            next: 0,
            to_send: 0,
            ready: BTreeSet::new(),
            lines: SubjectLines::default(),
            retry: BTreeSet::new(),
            retry_at: Instant::now(),
            refused: 0,
            refusal: None,
            in_flight: (0, 0),
            last_answer: 0,
            window_bytes: bounds.flush_timeout.map_or(bounds.window_bytes, |_| bounds.window_bytes.min(FIRST_WINDOW)),
            is_idle: false,
            bytes: 0,
            connection: 0,
            resend_window: bounds.resend_window,
            max_payload,
            closed: false,
            has_stored_any: false,
            last_stored: (None, 0),
            failures: Failures::within(bounds.events, bounds.bytes),
            counts: RecorderCounts::default(),
            trouble: None,
            stored_at: None,
            refusals: 0,
            refused_since: None,
            reports: None,
        }
    }

    /// Whether nothing is pending, and no event can be enqueued.
    pub(super) fn is_done(&self) -> bool {
        self.closed && self.pending.is_empty()
    }

    pub(super) fn has_pending_below(&self, number: u64) -> bool {
        self.pending.first_key_value().is_some_and(|(first, _)| *first < number)
    }

    /// How many events may be in flight on this connection: a single one while it is doubtful whether answers arrive at all. Events that are
    /// sent again and again must not fill the stream.
    pub(super) fn window(&self, bounds: &Bounds) -> usize {
        /// After so many attempts without an answer it is doubtful.
        const ATTEMPTS: u32 = 3;
        let oldest = self.pending.first_key_value().and_then(|(_, pending)| pending.sent);
        let is_doubtful = self.last_answer != self.connection && oldest.is_some_and(|sent| sent.unanswered >= ATTEMPTS);
        match (is_doubtful, self.has_stored_any) {
            (true, _) => 1,
            (false, false) => bounds.first_window,
            (false, true) => bounds.window,
        }
    }

    /// How long the oldest event in flight has waited for an answer.
    pub(super) fn oldest_wait(&self) -> Option<Duration> {
        // Events are sent in the order of their numbers, except the few that are sent again.
        let (_, oldest) = self.pending.range(..self.to_send).find(|(_, pending)| pending.in_flight)?;
        oldest.sent.map(|sent| sent.last.elapsed())
    }

    /// Schedules an event to be sent again because the server refused it for now.
    pub(super) fn schedule_retry(&mut self, number: u64, reason: String) {
        let Some(pending) = self.pending.get_mut(&number) else { return };
        pending.attempt_refused();
        if std::mem::take(&mut pending.in_flight) {
            self.in_flight = (self.in_flight.0 - 1, self.in_flight.1 - pending.entry.event.size());
        }
        self.refused += usize::from(!std::mem::replace(&mut pending.is_refused, true));
        self.refused_since.get_or_insert_with(Instant::now);
        self.retry.insert(number);
        self.retry_at = Instant::now() + retry_pause(self.refusals);
        // A reason stays while it is true of its event. Otherwise the reasons of several events would alternate in the log.
        let is_limited = pending.first_refused.is_some();
        let is_news = self.refusal.as_ref().is_none_or(|known| {
            let is_settled = !self.pending.contains_key(&known.number);
            known.number == number
                || (is_settled && !(known.is_limited && is_limited) && !self.lines.was_refused_lately())
        });
        if is_news {
            self.refusal = Some(Refusal { number, is_limited, reason });
        }
    }

    /// Makes an event that is scheduled to be sent again wait for those of its subject that are before it, and the later ones for it.
    pub(super) fn put_in_line(&mut self, number: u64, is_full: bool) {
        let Some(pending) = self.pending.get_mut(&number) else { return };
        if is_full {
            // A stream takes it.
            pending.forget_refusal();
        }
        let (subject, without_stream) = (pending.entry.event.subject(), pending.first_refused);
        self.retry.remove(&number);
        self.retry.extend(self.lines.refuse(subject, number, without_stream, &mut self.ready));
        if is_full {
            self.retry_at = self.retry_at.min(Instant::now() + pause_for_room(self.refusals, self.retry.len()));
        }
        self.report(Report::Waits(number));
    }

    /// Makes an event that has another subject now wait for none of its former one.
    pub(super) fn leave_line(&mut self, number: u64, subject: &str) {
        let _none = self.lines.leave(subject, number, false, &mut self.ready);
        if number < self.to_send && !self.ready.contains(&number) {
            self.retry.insert(number);
        }
    }

    /// Tells whoever keeps the events of this queue elsewhere too.
    pub(super) fn report(&self, report: Report) {
        if let Some(reports) = &self.reports {
            // Without a receiver, the queue is about to end.
            let _ = reports.send(report);
        }
    }

    /// Whether there are events to send again.
    pub(super) fn has_again(&self) -> bool {
        !self.retry.is_empty() || !self.ready.is_empty()
    }

    /// Sends no event again that was refused.
    pub(super) fn forget_again(&mut self) {
        self.retry.clear();
        self.ready.clear();
    }

    /// How long events are refused for now, if none was stored meanwhile.
    pub(super) fn refused_alone_for(&self) -> Option<Duration> {
        let since = self.refused_since.filter(|since| self.stored_at.is_none_or(|stored| stored < *since))?;
        Some(since.elapsed())
    }

    /// Whether the event that the server refuses is to be sent again: it was first refused less than `give_up_after` ago, or no other event
    /// was stored since, which would show that only this one is refused. None can be stored if those that wait are too far from it.
    pub(super) fn is_held(&mut self, number: u64, give_up_after: Duration) -> bool {
        let Some(pending) = self.pending.get_mut(&number) else { return false };
        let (known, others_stored) = (pending.first_refused, pending.others_stored);
        // It may have waited for others of its subject that were refused too.
        let since = || self.lines.refused_since(pending.entry.event.subject()).unwrap_or_else(Instant::now);
        let first = known.unwrap_or_else(since);
        pending.first_refused = Some(first);
        if known.is_none() {
            self.report(Report::Refused(number));
        }
        if first.elapsed() < give_up_after {
            return true;
        }
        let others_stored = others_stored || self.stored_at.is_some_and(|stored| stored >= first);
        !others_stored && !self.blocks_others(number)
    }

    /// Whether others wait, and none of them may be sent before this one, the oldest, has an outcome: see [`width`].
    fn blocks_others(&self, number: u64) -> bool {
        /// With more than so many others that may be sent, it is not this one that blocks the rest.
        const FEW: usize = 100;
        let is_oldest = self.pending.first_key_value().is_some_and(|(oldest, _)| *oldest == number);
        let end = number.saturating_add(width());
        let near = || self.pending.range(number + 1..end);
        is_oldest
            && self.pending.range(end..).next().is_some()
            && near().take(FEW + 1).count() <= FEW
            && near().all(|(_, pending)| pending.is_refused || self.lines.has(pending.entry.event.subject()))
    }

    /// Why the server refuses this event at the moment, for the log.
    pub(super) fn refusal_of(&self, number: u64, rejection: Rejection) -> String {
        let Some(pending) = self.pending.get(&number) else { return String::new() };
        let event = &pending.entry.event;
        let subject = printable(event.subject());
        match rejection {
            Rejection::NoStream | Rejection::NoLeader => format!("no stream takes {subject} at the moment"),
            Rejection::ByServer(reason) => {
                let reason = expected_stream::explained(printable(&reason).into_owned(), event);
                format!("{subject} is refused: {reason}")
            }
            Rejection::ForNow(reason) => reason,
        }
    }

    /// Notes that the server has answered several events, and whether it stored any.
    pub(super) fn note_answers(&mut self, any_stored: bool) {
        if any_stored {
            if self.refused_alone_for().is_some_and(|time| time >= RETRY_PAUSE) {
                // It takes events again, and those that wait are before the others.
                self.retry_at = Instant::now();
            }
            (self.stored_at, self.refusals) = (Some(Instant::now()), 0);
        } else if self.reports.is_some() && self.refused > 0 {
            self.refusals = self.refusals.saturating_add(1);
        }
    }

    /// Notes that the stream stored an event at this sequence. With several streams, no sequence is of use.
    pub(super) fn note_stored(&mut self, stream: &str, sequence: u64) {
        match &mut self.last_stored {
            (Some(known), highest) if known == stream => *highest = sequence.max(*highest),
            (None, 0) => self.last_stored = (Some(stream.to_owned()), sequence),
            _ => self.last_stored = (None, u64::MAX),
        }
    }

    /// Fails the pending events for which `reason` returns a reason. Call [`unlock_and_log`] afterwards.
    pub(super) fn fail(&mut self, reason: impl Fn(&PendingEvent) -> Option<FailureReason>) {
        let failed: Vec<_> =
            self.pending.iter().filter_map(|(number, pending)| Some((*number, reason(pending)?))).collect();
        for (number, reason) in failed {
            self.settle(number, Outcome::Failed(reason));
        }
    }

    /// Sets the outcome of a pending event. A failure that no receipt will report is kept for the next flush. Call
    /// [`unlock_and_log`] afterwards. Returns how many bytes of it were in flight.
    pub(super) fn settle(&mut self, number: u64, outcome: Outcome) -> usize {
        let Some(pending) = self.pending.remove(&number) else { return 0 };
        let size = pending.entry.event.size();
        self.bytes -= size;
        self.retry.remove(&number);
        self.ready.remove(&number);
        if !self.lines.is_empty() {
            let is_stored = matches!(outcome, Outcome::Recorded(_));
            for other in self.lines.leave(pending.entry.event.subject(), number, is_stored, &mut self.ready) {
                // A stream takes its subject.
                if let Some(other) = self.pending.get_mut(&other) {
                    other.forget_refusal();
                }
            }
        }
        self.refused -= usize::from(pending.is_refused);
        if self.refused == 0 {
            self.refused_since = None;
        }
        if self.refused == 0 && !self.lines.was_refused_lately() {
            self.refusal = None;
        }
        if pending.in_flight {
            self.in_flight = (self.in_flight.0 - 1, self.in_flight.1 - size);
        }
        if self.reports.is_some() {
            let result = match &outcome {
                Outcome::Recorded(metadata) => Ok(metadata.clone()),
                Outcome::Failed(reason) => Err(reason.clone()),
            };
            self.report(Report::Settled(Settled { number, result }));
        }
        if let Some(failure) = self.set_outcome(pending.entry, outcome) {
            self.failures.keep(failure);
        }
        if pending.in_flight { size } else { 0 }
    }

    /// Counts and sets the outcome of an event that is no longer pending. Returns a failure that no receipt will report.
    pub(super) fn set_outcome(&mut self, entry: Arc<Entry>, outcome: Outcome) -> Option<RecordError> {
        self.counts.add(&outcome);
        let is_unclaimed = entry.receipt_dropped.load(Ordering::Relaxed) && !entry.reported.load(Ordering::Relaxed);
        let reason = match &outcome {
            Outcome::Failed(reason) if is_unclaimed => Some(reason.clone()),
            _ => None,
        };
        let _ = entry.outcome.set(outcome);
        reason.map(|reason| RecordError::new(take_event(entry), reason))
    }
}

fn retry_pause(refusals: u32) -> Duration {
    (RETRY_PAUSE * (1 << (refusals / 8).min(8))).min(LONGEST_RETRY_PAUSE)
}

/// A stream that has stored an event a moment ago has room again soon.
fn pause_for_room(refusals: u32, attempts: usize) -> Duration {
    const SHORTEST: Duration = Duration::from_millis(10);
    /// Attempts are no heavier load than this, however many subjects wait.
    const PER_ATTEMPT: Duration = Duration::from_micros(200);
    let attempts = u32::try_from(attempts).unwrap_or(u32::MAX);
    (SHORTEST * (1 << refusals.min(8))).max(PER_ATTEMPT.saturating_mul(attempts)).min(retry_pause(refusals))
}

/// Unlocks the state, then logs the failures that were kept meanwhile. The log may block, and events can be enqueued while it
/// does.
pub(super) fn unlock_and_log(mut state: MutexGuard<'_, State>) {
    let lines = state.failures.unlogged();
    drop(state);
    for line in lines {
        log::warn!(event = "recorder.failures", failures:% = line; "recorder: {line}");
    }
}

/// The event of an entry. Copies it only where the receipt or the connection still holds it.
fn take_event(entry: Arc<Entry>) -> Event {
    let event = match Arc::try_unwrap(entry) {
        Ok(entry) => entry.event,
        Err(entry) => Arc::clone(&entry.event),
    };
    Arc::unwrap_or_clone(event)
}
