//! An event in the send queue, and what is known of it so far.

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use crate::event::Event;
use crate::record::{FailureReason, RecordMetadata};

/// An event, shared by the send queue and the receipt.
#[derive(Debug)]
pub(in crate::record) struct Entry {
    pub(in crate::record) event: Arc<Event>,
    pub(in crate::record) outcome: OnceLock<Outcome>,
    /// The receipt was dropped. Set and read under the send queue's lock.
    pub(super) receipt_dropped: AtomicBool,
    /// The failure was returned by the receipt, or kept for the next flush.
    pub(in crate::record) reported: AtomicBool,
}

impl Entry {
    pub(super) fn new(event: Event) -> Self {
        Self {
            event: Arc::new(event),
            outcome: OnceLock::new(),
            receipt_dropped: AtomicBool::new(false),
            reported: AtomicBool::new(false),
        }
    }
}

/// The outcome of an event.
#[derive(Debug)]
pub(in crate::record) enum Outcome {
    Recorded(RecordMetadata),
    Failed(FailureReason),
}

/// An event without an outcome.
#[derive(Debug)]
pub(super) struct PendingEvent {
    pub(super) entry: Arc<Entry>,
    pub(super) sent: Option<Sent>,
    /// It was sent on the current connection and has no answer.
    pub(super) in_flight: bool,
    /// When the server first refused it, in an earlier start too; `None` also where it may be sent again without a limit.
    pub(super) first_refused: Option<Instant>,
    /// Others were stored after that, in an earlier start.
    pub(super) others_stored: bool,
    /// The server refused it for now, so it is sent again.
    pub(super) is_refused: bool,
}

/// The attempts to send an event that have no answer. Each of them may have stored it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sent {
    pub(super) first: Instant,
    pub(super) last: Instant,
    pub(super) unanswered: u32,
    /// The highest sequence that the stream had acknowledged at the first attempt: the event can only be after it.
    pub(super) after_sequence: u64,
}

impl Sent {
    /// Whether it was first sent so long ago that the stream may no longer recognise a repetition.
    pub(super) fn is_older_than(&self, window: Duration) -> bool {
        self.first.elapsed() >= window
    }
}

impl PendingEvent {
    pub(super) fn new(entry: Arc<Entry>) -> Self {
        Self { entry, sent: None, in_flight: false, first_refused: None, others_stored: false, is_refused: false }
    }

    /// The reason to report where the last attempt failed for `reason`. An earlier attempt without an answer may have stored the
    /// event: then the reason is [`FailureReason::Unconfirmed`].
    pub(super) fn failure_reason(&self, reason: FailureReason) -> FailureReason {
        match self.sent {
            Some(sent) if sent.unanswered > 1 => FailureReason::Unconfirmed(sent.first.elapsed()),
            _ => reason,
        }
    }

    /// The time for which it is sent again begins anew with the next refusal.
    pub(super) fn forget_refusal(&mut self) {
        (self.first_refused, self.others_stored) = (None, false);
    }

    /// Notes that the last attempt did not store the event. If there was no other unanswered attempt, it can be sent again at any
    /// time without a duplicate: a connection has at most one copy in flight, and answers of older connections do not arrive.
    pub(super) fn attempt_refused(&mut self) {
        self.sent = self.sent.and_then(|sent| {
            let unanswered = sent.unanswered.saturating_sub(1);
            (unanswered > 0).then_some(Sent { unanswered, ..sent })
        });
    }
}
