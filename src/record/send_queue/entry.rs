//! An event that waits, and what is known of its way so far.

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use crate::event::Event;
use crate::record::{FailureReason, RecordMetadata};

/// An event on its way.
#[derive(Debug)]
pub(in crate::record) struct Entry {
    pub(in crate::record) event: Arc<Event>,
    pub(in crate::record) outcome: OnceLock<Outcome>,
    /// Nobody holds the receipt any more. Set and read under the queue's lock.
    pub(super) released: AtomicBool,
    /// The failure was handed out by the receipt, or kept for the next flush.
    pub(in crate::record) told: AtomicBool,
}

/// What became of an event.
#[derive(Debug)]
pub(in crate::record) enum Outcome {
    Kept(RecordMetadata),
    Failed(FailureReason),
}

#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) entry: Arc<Entry>,
    pub(super) sent: Option<Sent>,
    /// It is on its way on the present connection.
    pub(super) under_way: bool,
    /// When the server first said that no stream takes it.
    pub(super) no_stream: Option<Instant>,
}

/// How often an event was sent without an answer: each time it may have been stored.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sent {
    pub(super) first: Instant,
    pub(super) last: Instant,
    pub(super) unanswered: u32,
    /// The highest sequence that the stream had acknowledged then.
    pub(super) behind: u64,
}

impl Sent {
    /// Whether it was sent first so long ago that the stream may not recognise it any more.
    pub(super) fn is_beyond(&self, window: Duration) -> bool {
        self.first.elapsed() >= window
    }
}

impl Waiting {
    /// Why it failed, when this is why it was not stored this time: if it was sent before without an answer, it may be stored
    /// all the same.
    pub(super) fn reason(&self, reason: FailureReason) -> FailureReason {
        match self.sent {
            Some(sent) if sent.unanswered > 1 => FailureReason::Unconfirmed(sent.first.elapsed()),
            _ => reason,
        }
    }

    /// Hears that it was not stored, this time. If it was never sent but once, sending it again doubles nothing, however
    /// late: on one connection no more than one copy is under way, and of older ones no answer comes.
    pub(super) fn refused(&mut self) {
        self.sent = self.sent.and_then(|sent| {
            let unanswered = sent.unanswered.saturating_sub(1);
            (unanswered > 0).then_some(Sent { unanswered, ..sent })
        });
    }
}
