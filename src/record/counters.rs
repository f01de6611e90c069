//! What became of a recorder's events, in numbers.

use std::sync::Arc;

use super::send_queue::{Outcome, SendQueue};

/// Counts a [`NatsRecorder`](super::NatsRecorder)'s events by what became of them. Clones count the same events.
#[derive(Clone, Debug)]
pub struct RecorderCounters(Arc<SendQueue>);

/// How many events came to what. What is still on its way is in none of the numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RecorderCounts {
    /// The stream has acknowledged them, or in core NATS the server has read them.
    pub stored: u64,
    /// They are known not to be stored.
    pub not_stored: u64,
    /// They were sent and no answer came: they may be stored or not.
    pub unknown: u64,
}

impl RecorderCounters {
    pub(super) fn of(queue: Arc<SendQueue>) -> Self {
        Self(queue)
    }

    /// The numbers at this moment. Does not block.
    #[must_use]
    pub fn counts(&self) -> RecorderCounts {
        self.0.counts()
    }
}

impl RecorderCounts {
    pub(super) fn add(&mut self, outcome: &Outcome) {
        match outcome {
            Outcome::Kept(_) => self.stored += 1,
            Outcome::Failed(reason) if reason.may_be_stored() => self.unknown += 1,
            Outcome::Failed(_) => self.not_stored += 1,
        }
    }

    /// How many events are settled.
    #[must_use]
    pub fn settled(&self) -> u64 {
        self.stored + self.not_stored + self.unknown
    }
}
